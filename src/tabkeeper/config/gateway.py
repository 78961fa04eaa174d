"""What a user can set of the CDP gateway: ``[gateway]``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tabkeeper.config.values import Duration, Settings


class GatewaySettings(Settings):
    """How clients of their own reach leased browsers over CDP."""

    platform: str | None = Field(
        None,
        description="Platform of clients that name none, such as Puppeteer's browserURL, which drops path and query; "
        "the only platform if there is one.",
    )
    stall: Duration = Field(
        timedelta(seconds=60),
        description="A client that reads nothing for this long is disconnected; so is a browser.",
    )
    ping: Duration = Field(
        timedelta(seconds=20),
        description="How often a client, and a browser elsewhere, is asked for a sign of life; without one for as "
        "long again it is gone.",
    )
    max_message_mb: int = Field(
        100, ge=1, description="Longest message of a client in MB, such as a file it uploads."
    )

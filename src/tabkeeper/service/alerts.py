"""The latest alerts as the service tells them: in the words that channels have them in, and who has heard."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from tabkeeper.alerts.alert import Alert, Severity
from tabkeeper.ledger.alerting import recent
from tabkeeper.service.models import Told


class AlertTold(Told):
    """One alert, and how far it has come."""

    id: int
    kind: str
    severity: Severity
    at: datetime
    title: str
    text: str = Field(description="What happened, to what, with its figures.")
    budget: str | None
    session_id: str | None
    delivered: Mapping[str, str] = Field(description="By channel: pending, delivered or dead.")


def recent_alerts(engine: Any, most: int) -> list[AlertTold]:
    """Return the latest alerts, newest first."""
    with engine.connect() as connection:
        found = recent(connection, most)
    return [
        AlertTold(
            id=event.id,
            kind=alert.kind,
            severity=alert.severity,
            at=alert.at,
            title=alert.title,
            text=alert.text,
            budget=alert.budget,
            session_id=alert.session_id,
            delivered={one.channel: one.state for one in deliveries},
        )
        for event, deliveries in found
        for alert in [Alert.of(event)]
    ]

"""How the web server must be run for the gateway: long messages, signs of life, and a way to drop a connection."""

from __future__ import annotations

import logging
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from tabkeeper.config import GatewaySettings

ABORT = "tabkeeper.abort"
"""Under this name in a scope's state: drops the connection at once, whatever still waits to be sent."""


_quiet = logging.getLogger(f"{__name__}.connections")
_quiet.setLevel(logging.WARNING)  # what it says below that quotes addresses, with the tokens in them


class GatewayProtocol(WebSocketsSansIOProtocol):
    """Closing politely waits until the client has read everything, so one that reads nothing would stay for ever."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.logger = self.conn.logger = _quiet
        self.conn.debug = False

    def handle_connect(self, event: Request) -> None:
        """Begin a connection."""
        super().handle_connect(event)
        if self.response.status_code == 101:  # else there is no scope
            self.scope["state"][ABORT] = self.transport.abort

    async def send(self, message: ASGISendEvent) -> None:
        """Send for the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # a refusal is an answer, too: else it is logged as a fault


def uvicorn_options(settings: GatewaySettings) -> dict[str, Any]:
    """Return what `uvicorn.Config` must be told."""
    seconds = settings.ping.total_seconds()
    return {
        "ws": GatewayProtocol,
        "ws_max_size": settings.max_message_mb * 2**20,
        "ws_ping_interval": seconds,
        "ws_ping_timeout": seconds,
        # CDP to a browser nearby: time is dearer than bytes.
        "ws_per_message_deflate": False,
    }

"""The gateway's paths, to be put into the service's application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, WebSocketRoute

from tabkeeper.service.access import Rooms
from tabkeeper.service.gateway.discovery import Discovery
from tabkeeper.service.gateway.gateway import Gateway
from tabkeeper.service.gateway.watch import Watch


def gateway_routes(rooms: Rooms, gateway: Gateway) -> Sequence[BaseRoute]:
    """Return the gateway's routes; the guard must stand before them."""
    return [
        WebSocketRoute("/cdp", gateway),
        WebSocketRoute("/cdp/", gateway),
        *Discovery(rooms, gateway).routes(),
        *Watch(rooms, gateway).routes(),
    ]

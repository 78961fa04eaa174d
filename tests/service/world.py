"""A small world for the service: the real app around a real pool in virtual time, called without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from tests.pool.world import world

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ServiceSettings
from tabkeeper.pool.pool import SessionPool
from tabkeeper.service import create_app
from tabkeeper.service.tokens import hash_token
from tabkeeper.testing import FakeProvider

MAIN, ACME, LOOKER = "tk_" + "m" * 43, "tk_" + "a" * 43, "tk_" + "r" * 43

TOKENS: list[dict[str, Any]] = [
    {"name": "main", "hash": hash_token(MAIN), "scopes": ["read", "lease", "direct", "manage"]},
    {"name": "acme", "hash": hash_token(ACME), "scopes": ["lease"], "tenants": ["acme"]},
    {"name": "looker", "hash": hash_token(LOOKER), "scopes": ["read"]},
]


@dataclass
class House:
    app: FastAPI
    pool: SessionPool
    provider: FakeProvider
    clock: VirtualClock

    def client(self, token: str | None = MAIN, **more: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url=more.pop("base_url", "http://127.0.0.1:8020"),
            headers=headers | more.pop("headers", {}),
            **more,
        )


@asynccontextmanager
async def house(
    clock: VirtualClock, *, service: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[House]:
    async with world(clock, **more) as here:
        settings = ServiceSettings.model_validate({"tokens": TOKENS, **(service or {})})
        app = create_app(here.pool, settings, clock=clock)
        async with app.router.lifespan_context(app):
            yield House(app, here.pool, here.provider, clock)
        assert await here.violations() == []

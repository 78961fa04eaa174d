"""Browserless: https://docs.browserless.io, its Session API. Times are milliseconds, the key is part of addresses.

A session has no browser before somebody connects, and without `keep_alive` none after they leave. So a session whose
creation got no answer costs nothing, although nothing there can list it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import Capabilities, Check, RemoteSession, SessionSpec
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.providers.http import Refusal

_MOST_UNANSWERED = 1000
_UNITS = re.compile(r"\bunits?\b", re.IGNORECASE)
_ID = re.compile(r"(?:([\w-]{1,256})\.)?([\w-]{1,128})", re.ASCII)
_ENDPOINT = re.compile(r"/e/([\w-]{1,256})/session/[\w-]+", re.ASCII)


class BrowserlessProvider(HostedProvider):
    """See `HostedProvider`. Ids are `endpoint.id`: both are needed to end a session from another process.

    Nothing there lists sessions or tells of one, so `get` and `list` know those that this object created.
    """

    capabilities = Capabilities(
        own_timeout=True,
        free_until_connected=True,
        max_seconds=3600,
        regions=True,
        proxies=True,
        outlives_connections=False,
    )
    default_url = "https://production-sfo.browserless.io"
    reserved = frozenset({"ttl", "processKeepAlive"})
    regions = ("sfo", "lon", "ams")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._made: dict[str, RemoteSession] = {}
        """Sessions of this object that have not been ended."""
        self._unanswered: dict[str, None] = {}
        """Labels of sessions whose address nobody was ever given."""

    async def create(self, spec: SessionSpec) -> RemoteSession:
        """See `Provider.create`."""
        try:
            return await super().create(spec)
        except (OutcomeUnknownError, asyncio.CancelledError):
            self._unanswered[spec.session_id] = None
            if len(self._unanswered) > _MOST_UNANSWERED:
                del self._unanswered[next(iter(self._unanswered))]
            raise

    async def find(self, label: str) -> RemoteSession | None:
        """See `Provider.find`: what was created without an answer never has a browser, so it is no session."""
        if label in self._unanswered:
            raise ProviderNotFoundError(
                self.name, f"nobody can connect to session {label}, so it has no browser"
            )
        return await super().find(label)

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:  # noqa: ARG002 - it goes into the query
        return {}

    def _query(self, key: SecretStr) -> Mapping[str, SecretStr]:
        return {"token": key}

    def _url_of(self, region: str | None) -> str:
        return f"https://production-{region}.browserless.io" if region else self.default_url

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        if refusal.status == 429 and "concurrent" in refusal.message.lower():
            return ProviderCapacityError(self.name, refusal.message, retry_after=refusal.retry_after)
        # With which status a plan without units left refuses is not documented.
        if refusal.status in {401, 403, 429} and _UNITS.search(refusal.message):
            return ProviderPaymentError(self.name, refusal.message, retry_after=refusal.retry_after)
        return None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        milliseconds = int(min(spec.max_seconds, self.capabilities.max_seconds or spec.max_seconds) * 1000)
        answer = await self._api.once("POST", "/session", body=self._body(spec, milliseconds))
        try:
            made = RemoteSession(
                provider_session_id=self._id_in(answer),
                connect_url=self._address(answer["connect"], milliseconds),
                label=spec.session_id,
            )
        except (KeyError, TypeError, ValueError):
            # Nobody can connect to it, so it costs nothing; its time there ends it.
            raise OutcomeUnknownError(self.name, "a session was created, but the answer is odd") from None
        self._made[made.provider_session_id] = made
        return made

    def _body(self, spec: SessionSpec, milliseconds: int) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            **settings.options,
            **spec.options,
            "ttl": milliseconds,
            # How long a browser waits, and is paid for, after a connection ends.
            "processKeepAlive": milliseconds if settings.keep_alive else 0,
        }
        if settings.proxies:
            body.setdefault("proxy", {"type": "residential"})
        return body

    def _id_in(self, answer: Mapping[str, Any]) -> str:
        found = _ENDPOINT.fullmatch(urlsplit(str(answer["stop"])).path)
        session_id = f"{found[1]}.{answer['id']}" if found else str(answer["id"])
        if not _ID.fullmatch(session_id):
            raise ValueError
        return session_id

    def _address(self, url: object, milliseconds: int) -> str:
        """Return where to connect, with the key, and for longer than the 30 s after which connections are cut."""
        assert self._settings.api_key is not None
        parts = urlsplit(str(url))
        if parts.scheme not in {"ws", "wss"}:
            raise ValueError
        query = dict(parse_qsl(parts.query))
        query.setdefault("token", self._settings.api_key.get_secret_value())
        query.setdefault("timeout", str(milliseconds))
        return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query, quote_via=quote), ""))

    async def _get(self, provider_session_id: str) -> RemoteSession:
        self._parts(provider_session_id)
        made = self._made.get(provider_session_id)
        if made is None or not self.alive(provider_session_id):
            raise ProviderNotFoundError(self.name, f"session {provider_session_id} is not known to run")
        return made

    async def _running(self) -> Sequence[RemoteSession]:
        return [one for key, one in self._made.items() if self.alive(key)]

    async def _release(self, provider_session_id: str) -> bool:
        endpoint, session_id = self._parts(provider_session_id)
        path = f"/session/{session_id}" if endpoint is None else f"/e/{endpoint}/session/{session_id}"
        try:
            # Without force a session to which somebody is connected goes on.
            await self._api.repeat("DELETE", path, query={"force": "true"})
        except ProviderNotFoundError:
            self._made.pop(provider_session_id, None)
            raise
        except ProviderRequestError as error:
            # Nothing there says whether it still runs, so it does.
            raise ProviderUnavailableError(
                self.name, f"session {provider_session_id} may still run: {error}"
            ) from error
        self._made.pop(provider_session_id, None)
        return True

    def _parts(self, provider_session_id: str) -> tuple[str | None, str]:
        """Return the endpoint, if there is one, and the service's id; nothing else was ever given out."""
        found = _ID.fullmatch(provider_session_id)
        if found is None:
            raise ProviderRequestError(self.name, f"{provider_session_id!r} is no session id")
        return found[1], found[2]

    async def _look(self) -> Check:
        # It tells neither units nor limits; a list of profiles costs nothing and needs a valid key.
        await self._api.repeat("GET", "/profiles", query={"limit": "1"})
        return Check(name="account", ok=True, detail="the key is valid; units and limits it does not tell")

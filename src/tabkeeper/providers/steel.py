"""Steel: https://docs.steel.dev. Times are milliseconds; ids are ours to choose, so they are made of our labels."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import Capabilities, Check, ProviderUsage, RemoteSession, SessionSpec
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.providers.http import Refusal
from tabkeeper.providers.reading import checked_id, moment

_OVER = frozenset({"released", "failed"})
"""Every other status, known or not, may cost money: such a session is taken to run."""
_NAMES = uuid.UUID("6f1c2b1e-6f0e-5d0a-9c57-74a1c0f6a5d4")
_PAGES = 100
"""Pages of a list that are read at most, 100 sessions each."""


class SteelProvider(HostedProvider):
    """See `HostedProvider`. Steel keeps no labels: a session's id is computed from its label."""

    capabilities = Capabilities(
        list_by_label=True,
        finds_ended=True,
        usage=True,
        own_timeout=True,
        min_seconds=15,
        max_seconds=86400,
        live_view=True,
        regions=True,
        proxies=True,
        own_proxies=frozenset({"http", "https"}),
    )
    default_url = "https://api.steel.dev"
    reserved = frozenset({"sessionId", "timeout", "projectId", "region"})

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        return {"steel-api-key": key}

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        # The same status stands for too many calls; which words tell them apart is not documented.
        if refusal.status == 429 and "concurrent" in refusal.message.lower():
            return ProviderCapacityError(self.name, refusal.message, retry_after=refusal.retry_after)
        return None

    def _id_of(self, label: str) -> str | None:
        return str(uuid.uuid5(_NAMES, label)) if label else None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        session_id = self._id_of(spec.session_id)
        assert session_id is not None
        answer = await self._api.once("POST", "/v1/sessions", body=self._body(spec, session_id))
        try:
            made = self._read(answer)
        except ProviderError as error:
            raise OutcomeUnknownError(self.name, "a session was created, but the answer is odd") from error
        return await self._usable(made)

    def _body(self, spec: SessionSpec, session_id: str) -> dict[str, Any]:
        settings = self._settings
        shortest, longest = self.capabilities.min_seconds, self.capabilities.max_seconds
        assert longest is not None
        body: dict[str, Any] = {
            **settings.options,
            **spec.options,
            "sessionId": session_id,
            "timeout": int(min(max(spec.max_seconds, shortest), longest) * 1000),
        }
        if settings.project_id is not None:
            body["projectId"] = settings.project_id
        if settings.region is not None:
            body["region"] = settings.region
        if spec.proxy is not None:
            body["proxyUrl"] = spec.proxy.url
        elif settings.proxies:
            body.setdefault("useProxy", True)
        return body

    async def _get(self, provider_session_id: str) -> RemoteSession:
        return self._read(await self._fetch(provider_session_id))

    async def _fetch(self, session_id: str) -> Any:
        return await self._api.repeat("GET", f"/v1/sessions/{checked_id(self.name, session_id)}")

    async def _running(self) -> Sequence[RemoteSession]:
        query = {"status": "live", "limit": "100"}
        if self._settings.project_id is not None:
            query["projectId"] = self._settings.project_id
        # New sessions shift the pages, so one may be seen twice.
        found: dict[str, RemoteSession] = {}
        for _ in range(_PAGES):
            answer = await self._api.repeat("GET", "/v1/sessions", query=query)
            page = answer.get("sessions") if isinstance(answer, dict) else None
            if not isinstance(page, list):
                raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
            for one in map(self._read, page):
                if one.running:
                    found[one.provider_session_id] = one
            if not page or not answer.get("nextCursor"):
                break
            query["cursorId"] = str(answer["nextCursor"])
        return list(found.values())

    async def _release(self, provider_session_id: str) -> bool:
        # Without an id this path would release all sessions of the account; `checked_id` refuses an empty one.
        answer = await self._api.repeat(
            "POST", f"/v1/sessions/{checked_id(self.name, provider_session_id)}/release"
        )
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise ProviderRequestError(self.name, f"session {provider_session_id} was not released")
        # It says that the request was accepted; only the session says that it is over.
        return False

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`; `duration` also counts while it runs."""
        answer = await self._fetch(provider_session_id)
        started = moment(answer.get("createdAt"))
        length, proxied = answer.get("duration"), answer.get("proxyBytesUsed")
        seconds = length / 1000 if isinstance(length, int) else None
        over = answer.get("status") in _OVER
        return ProviderUsage(
            seconds=seconds,
            proxy_bytes=proxied if isinstance(proxied, int) else None,
            started_at=started,
            ended_at=started + timedelta(seconds=seconds)
            if over and started and seconds is not None
            else None,
        )

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which a person can watch, and use, the session. Who has it needs no key: a secret.

        Raises:
            ProviderRequestError: the session has none.
        """
        url = (await self._fetch(provider_session_id)).get("debugUrl")
        if not isinstance(url, str):
            raise ProviderRequestError(self.name, f"session {provider_session_id} cannot be watched")
        return url

    async def _look(self) -> Check:
        answer = await self._api.repeat("GET", "/v1/sessions", query={"status": "live", "limit": "1"})
        live = answer.get("totalCount", "?") if isinstance(answer, dict) else "?"
        return Check(name="account", ok=True, detail=f"the key is valid; {live} sessions run")

    def _read(self, session: object) -> RemoteSession:
        if not isinstance(session, dict) or not isinstance(session.get("id"), str):
            raise ProviderUnavailableError(self.name, "what it says of a session cannot be read")
        url = session.get("websocketUrl")
        return RemoteSession(
            provider_session_id=session["id"],
            connect_url=self._with_key(url) if isinstance(url, str) and url else "",
            running=session.get("status") not in _OVER,
            created_at=moment(session.get("createdAt")),
        )

    def _with_key(self, url: str) -> str:
        """Add the key, without which connections are refused, and the path that some clients leave out wrongly."""
        assert self._settings.api_key is not None
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        if "apiKey" not in query and "token" not in query:
            query["apiKey"] = self._settings.api_key.get_secret_value()
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode(query), ""))

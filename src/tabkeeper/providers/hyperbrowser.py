"""Hyperbrowser: https://hyperbrowser.ai/docs. Times are minutes or text of milliseconds; there are no labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import Capabilities, Check, ProviderUsage, RemoteSession, SessionSpec
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.providers.http import Refusal
from tabkeeper.providers.reading import checked_id, moment

_OVER = frozenset({"closed", "error", "close-error"})
"""Every other status, known or not, may cost money: such a session is taken to run."""
_PAGE, _PAGES = 10, 100
"""Sessions in a page of the list (its greatest length is not documented), and pages that are read at most."""


class HyperbrowserProvider(HostedProvider):
    """See `HostedProvider`. Only the answer to a create tells whose session it is.

    A session whose create got no answer cannot be told from another one of the account. It is neither adopted nor
    ended, since both could hit somebody else's: its timeout ends it, and until then money is held for it.
    """

    capabilities = Capabilities(
        list_by_label=False,
        extend=True,
        usage=True,
        own_timeout=True,
        min_seconds=60,
        max_seconds=43200,
        step_seconds=60,
        live_view=True,
        regions=True,
        proxies=True,
        own_proxies=frozenset({"http", "https"}),
    )
    default_url = "https://api.hyperbrowser.ai"
    reserved = frozenset({"timeoutMinutes", "region"})
    regions = ("us", "us-central", "us-east", "us-west", "europe-west", "asia-south", "us-dev")

    def __init__(self, name: str, settings: ProviderSettings, **more: Any) -> None:
        super().__init__(name, settings, **more)
        if settings.project_id is not None:
            raise ConfigError(
                f"providers.{name}.project_id: a key of hyperbrowser belongs to one team; remove it"
            )

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        return {"x-api-key": key}

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        # Neither the status nor the words of a reached limit of sessions are documented.
        if refusal.status == 429 and "concurren" in refusal.message.lower():
            return ProviderCapacityError(self.name, refusal.message, retry_after=refusal.retry_after)
        return None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        answer = await self._api.once("POST", "/api/session", body=self._body(spec))
        try:
            made = self._read(answer)
        except ProviderError as error:
            raise OutcomeUnknownError(self.name, "a session was created, but the answer is odd") from error
        return await self._booted(made)

    def _body(self, spec: SessionSpec) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            **settings.options,
            **spec.options,
            "timeoutMinutes": int(self._life(spec.max_seconds) / 60),
        }
        if settings.region is not None:
            body["region"] = settings.region
        if spec.proxy is not None:
            body |= {"useProxy": True, "proxyServer": spec.proxy.server}
            if spec.proxy.username:
                body["proxyServerUsername"] = spec.proxy.username
                body["proxyServerPassword"] = spec.proxy.password
        elif settings.proxies:
            body.setdefault("useProxy", True)
        return body

    async def _get(self, provider_session_id: str) -> RemoteSession:
        return self._read(await self._fetch(provider_session_id))

    async def _fetch(self, session_id: str) -> dict[str, Any]:
        answer = await self._api.repeat("GET", f"/api/session/{checked_id(self.name, session_id)}")
        if not isinstance(answer, dict):
            raise ProviderUnavailableError(self.name, f"what it says of session {session_id} cannot be read")
        return answer

    async def _running(self) -> Sequence[RemoteSession]:
        # New sessions shift the pages, so one may be seen twice.
        found: dict[str, RemoteSession] = {}
        for page in range(1, _PAGES + 1):
            query = {"status": "active", "page": str(page), "limit": str(_PAGE)}
            answer = await self._api.repeat("GET", "/api/sessions", query=query)
            sessions = answer.get("sessions") if isinstance(answer, dict) else None
            if not isinstance(sessions, list):
                raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
            for one in map(self._read, sessions):
                if one.running:
                    found[one.provider_session_id] = one
            total = answer.get("totalCount")
            if not sessions or (isinstance(total, int) and page * _PAGE >= total):
                break
        return list(found.values())

    async def _release(self, provider_session_id: str) -> bool:
        path = f"/api/session/{checked_id(self.name, provider_session_id)}/stop"
        answer = await self._api.repeat("PUT", path)
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise ProviderRequestError(self.name, f"session {provider_session_id} was not stopped")
        # It says that the request was accepted; only the session says that it is over.
        return False

    async def extend(self, provider_session_id: str, seconds: float) -> None:
        """Let a running session live longer, by whole minutes rounded up; it costs as much more.

        Whether the provider counts from now or from the session's end is not documented.

        Raises:
            ProviderRequestError: it is over. OutcomeUnknownError: it may have been extended.
        """
        minutes = max(1, math.ceil(seconds / 60))
        path = f"/api/session/{checked_id(self.name, provider_session_id)}/extend-session"
        # Said twice, it might be done twice.
        answer = await self._api.once("PUT", path, body={"durationMinutes": minutes})
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise ProviderRequestError(self.name, f"session {provider_session_id} was not extended")
        self._prolong(provider_session_id, minutes * 60)

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`: how long it ran. The price of a credit and the unit of traffic are not published."""
        answer = await self._fetch(provider_session_id)
        started = _instant(answer.get("startTime")) or moment(answer.get("createdAt"))
        ended = _instant(answer.get("endTime"))
        return ProviderUsage(
            seconds=(ended - started).total_seconds() if started and ended else None,
            started_at=started,
            ended_at=ended,
        )

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which a person can watch, and use, the session. Who has it needs no key: a secret.

        Raises:
            ProviderNotFoundError: there is no such session, or it is over.
        """
        answer = await self._fetch(provider_session_id)
        url = answer.get("liveUrl")
        if not isinstance(url, str) or not url or answer.get("status") in _OVER:
            raise ProviderNotFoundError(self.name, f"session {provider_session_id} cannot be watched")
        return url

    async def _look(self) -> Check:
        found = await self._api.repeat("GET", "/api/team/credit-info")
        left = found.get("remaining") if isinstance(found, dict) else None
        advice = "top the account up; sessions may be refused" if isinstance(left, int) and left <= 0 else ""
        told = "?" if left is None else left
        return Check(
            name="account", ok=True, detail=f"the key is valid; {told} credits are left", advice=advice
        )

    def _read(self, session: object) -> RemoteSession:
        if not isinstance(session, dict) or not isinstance(session.get("id"), str) or not session["id"]:
            raise ProviderUnavailableError(self.name, "what it says of a session cannot be read")
        url = session.get("wsEndpoint")
        return RemoteSession(
            provider_session_id=session["id"],
            connect_url=url if isinstance(url, str) else "",
            running=session.get("status") not in _OVER,
            created_at=moment(session.get("createdAt")),
        )


def _instant(told: object) -> datetime | None:
    """Read milliseconds since the epoch, which are text; None for what is absent or odd."""
    try:
        return datetime.fromtimestamp(int(told) / 1000, UTC) if isinstance(told, str | int) else None
    except (ValueError, OverflowError, OSError):
        return None

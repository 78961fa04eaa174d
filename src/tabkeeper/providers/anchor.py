"""Anchor Browser: https://docs.anchorbrowser.io. Times are minutes, labels are tags, credits are dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderUnavailableError,
)
from tabkeeper.money import Money
from tabkeeper.providers.base import (
    Capabilities,
    Check,
    ProviderTotal,
    ProviderUsage,
    RemoteSession,
    SessionSpec,
)
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.providers.http import Refusal
from tabkeeper.providers.reading import checked_id, moment

_LIVE = frozenset({"running", "active", "pending", "starting"})
_OVER = frozenset({"completed", "failed", "stopped", "ended", "terminated", "timeout"})
"""Its words for states are not listed anywhere. What is in neither set may cost money: it is taken to run."""
_OWNER, _LABEL, _PLATFORM = "tabkeeper", "session:", "platform:"
"""Our tags: who made the session, its id here, and what it is for."""
_IDLE_MINUTES = 5
"""A session is left alone for this long before it is ended; its first connection may take its time, too."""


class AnchorProvider(HostedProvider):
    """See `HostedProvider`."""

    capabilities = Capabilities(
        list_by_label=True,
        finds_ended=True,
        usage=True,
        own_timeout=True,
        min_seconds=60,
        step_seconds=60,
        live_view=True,
        proxies=True,
        own_proxies=frozenset({"http", "https"}),
        concurrency=True,
    )
    default_url = "https://api.anchorbrowser.io"
    reserved = frozenset()

    def __init__(self, name: str, settings: ProviderSettings, **more: Any) -> None:
        super().__init__(name, settings, **more)
        if settings.project_id is not None:
            raise ConfigError(
                f"providers.{name}.project_id: a key of anchor belongs to one project; remove it"
            )
        session = settings.options.get("session", {})
        timeout = session.get("timeout", {}) if isinstance(session, dict) else None
        if not isinstance(timeout, dict) or not isinstance(session.get("tags", []), list):
            raise ConfigError(
                f"providers.{name}.options.session: it and its timeout must be tables, its tags a list"
            )
        if "max_duration" in timeout:
            raise ConfigError(
                f"providers.{name}.options.session.timeout.max_duration: tabkeeper sets this itself; remove it"
            )

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        return {"anchor-api-key": key}

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        # A rate limit says when to come again; at the limit of browsers at once there is no telling.
        if (
            refusal.status == 429
            and refusal.retry_after is None
            and "rate limit" not in refusal.message.lower()
        ):
            return ProviderCapacityError(self.name, refusal.message)
        if refusal.status == 403 and "cost limit" in refusal.message.lower():
            return ProviderPaymentError(
                self.name, f"{refusal.message} (status 403)", retry_after=refusal.retry_after
            )
        return None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        answer = _inner(await self._api.once("POST", "/v1/sessions", body=self._body(spec)))
        session_id, url = answer.get("id"), answer.get("cdp_url")
        if not isinstance(session_id, str) or not session_id:
            raise OutcomeUnknownError(self.name, "a session was created, but the answer does not name it")
        return RemoteSession(
            provider_session_id=session_id,
            connect_url=self._address(session_id, url if isinstance(url, str) else ""),
            label=spec.session_id,
        )

    def _body(self, spec: SessionSpec) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {**settings.options, **spec.options}
        session: dict[str, Any] = dict(options.get("session", {}))
        session["tags"] = [
            *session.get("tags", ()),
            _OWNER,
            _LABEL + spec.session_id,
            _PLATFORM + spec.platform,
        ]
        session["timeout"] = {
            "idle_timeout": -1 if settings.keep_alive else _IDLE_MINUTES,
            **session.get("timeout", {}),
            "max_duration": int(self._life(spec.max_seconds) / 60),
        }
        if spec.proxy is not None:
            session["proxy"] = {
                "type": "custom",
                "server": spec.proxy.server,
                "username": spec.proxy.username,
                "password": spec.proxy.password,
                "active": True,
            }
        elif settings.proxies:
            session.setdefault("proxy", {"type": "anchor_proxy", "active": True})
        return {**options, "session": session}

    async def _get(self, provider_session_id: str) -> RemoteSession:
        answer = await self._fetch(provider_session_id)
        return RemoteSession(
            provider_session_id=provider_session_id,
            connect_url=self._address(provider_session_id, ""),
            label=_label_in(answer.get("tags")),
            running=answer.get("status") not in _OVER,
            created_at=moment(answer.get("created_at")),
        )

    async def _fetch(self, session_id: str) -> dict[str, Any]:
        answer = _inner(await self._api.repeat("GET", f"/v1/sessions/{checked_id(self.name, session_id)}"))
        if not answer:
            raise ProviderUnavailableError(self.name, f"what it says of session {session_id} cannot be read")
        return answer

    async def _running(self) -> Sequence[RemoteSession]:
        # The other list, with pages, is a history; this one is documented as that of the account's browsers.
        answer = _inner(await self._api.repeat("GET", "/v1/sessions/all/status", query={"tags": _OWNER}))
        items = answer.get("items")
        if not isinstance(items, list):
            raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
        return [
            RemoteSession(
                provider_session_id=one["session_id"],
                connect_url="",
                label=_label_in(one.get("tags")),
                created_at=moment(one.get("created_at")),
            )
            for one in items
            if isinstance(one, dict)
            and isinstance(one.get("session_id"), str)
            and one.get("status") not in _OVER
        ]

    async def _search(self, label: str) -> RemoteSession | None:
        running = await super()._search(label)
        if running is not None:
            return running
        query = {"tags": f"{_OWNER},{_LABEL}{label}", "sort_order": "desc", "limit": "10"}
        answer = _inner(await self._api.repeat("GET", "/v1/sessions", query=query))
        items = answer.get("sessions")
        if not isinstance(items, list):
            raise ProviderUnavailableError(self.name, "its history cannot be read")
        return next(
            (
                RemoteSession(
                    provider_session_id=one["id"],
                    connect_url="",
                    label=label,
                    running=one.get("status") not in _OVER,
                    created_at=moment(one.get("created_at")),
                )
                for one in items
                if isinstance(one, dict)
                and isinstance(one.get("id"), str)
                and _label_in(one.get("tags")) == label
            ),
            None,
        )

    async def _release(self, provider_session_id: str) -> bool:
        path = f"/v1/sessions/{checked_id(self.name, provider_session_id)}"
        try:
            await self._api.repeat("DELETE", path)
        except ProviderAuthError:
            # The same status stands for a bad key and for a session that is over: if it can be read, the key is good.
            if (await self._fetch(provider_session_id)).get("status") in _LIVE:
                raise
            return True
        return (await self._fetch(provider_session_id)).get("status") not in _LIVE

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`; what it cost is known once it is over, and one credit is a dollar."""
        answer = await self._fetch(provider_session_id)
        started = moment(answer.get("created_at"))
        seconds, proxied = _number(answer.get("duration")), _number(answer.get("proxy_bytes"))
        over = answer.get("status") in _OVER
        return ProviderUsage(
            seconds=seconds,
            proxy_bytes=int(proxied) if proxied is not None else None,
            started_at=started,
            ended_at=started + timedelta(seconds=seconds)
            if over and started and seconds is not None
            else None,
            cost=_dollars(answer.get("credits_used")) if over else None,
        )

    async def used_on(self, day: date) -> ProviderTotal | None:
        """See `Dated.used_on`."""
        start = datetime.combine(day, time.min, UTC)
        query = {
            "from_date": start.isoformat().replace("+00:00", "Z"),
            "to_date": (start + timedelta(days=1, milliseconds=-1)).isoformat().replace("+00:00", "Z"),
            "granularity": "day",
            "metrics": "session_count,session_hours,proxy_bytes,credits_used",
        }
        answer = await self._api.repeat("GET", "/v1/sessions/history", query=query)
        found = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise ProviderUnavailableError(self.name, f"what it says of {day} cannot be read")
        # Other days, if a zone of its own makes it show them, are not asked for.
        of_day = [one for one in found if isinstance(one, dict) and str(one.get("date"))[:10] == str(day)]
        if not of_day:
            return ProviderTotal(seconds=0.0, proxy_bytes=0, cost=Money(0)) if not found else None
        costs = [_dollars(one.get("credits_used")) for one in of_day]
        hours = [_number(one.get("session_hours")) for one in of_day]
        traffic = [_number(one.get("proxy_bytes")) for one in of_day]
        return ProviderTotal(
            seconds=sum(one or 0.0 for one in hours) * 3600,
            proxy_bytes=int(sum(one or 0.0 for one in traffic)),
            cost=None if None in costs else Money(sum(one.nanos for one in costs if one is not None)),
        )

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which a person can watch the session. Who has it needs no key: a secret.

        Raises:
            ProviderNotFoundError: it has no page yet, or is over.
        """
        path = f"/v1/sessions/{checked_id(self.name, provider_session_id)}/pages"
        items = _inner(await self._api.repeat("GET", path)).get("items")
        for page in items if isinstance(items, list) else ():
            if isinstance(page, dict) and isinstance(page.get("frontend_url"), str):
                return str(page["frontend_url"])
        raise ProviderNotFoundError(self.name, f"session {provider_session_id} has no page to watch")

    async def _look(self) -> Check:
        found = _inner(await self._api.repeat("GET", "/v1/billing"))
        limit, wanted = _number(found.get("max_concurrent_browsers")), self._settings.max_sessions
        told = "any number of" if limit == -1 else f"up to {limit:g}" if limit is not None else "?"
        left = _number(found.get("credits"))
        detail = (
            f"the key is valid; tier {found.get('tier', '?')} runs {told} sessions, "
            f"{'?' if left is None else format(left, 'g')} credits are left"
        )
        advice = ""
        if limit is not None and limit >= 0 and wanted is not None and wanted > limit:
            advice = f"set providers.{self.name}.max_sessions to {limit:g} at most; more are refused"
        elif left is not None and left <= 0:
            advice = "top the account up, or see that its plan bills what goes beyond it"
        return Check(name="account", ok=True, detail=detail, advice=advice)

    def _address(self, session_id: str, url: str) -> str:
        """Return where a browser listens, with the key and the session, whatever the API left out.

        An address without a session would start another browser, and bill it.
        """
        assert self._settings.api_key is not None
        if not url:
            base = self._settings.base_url or self.default_url
            url = base.replace("http", "ws", 1).replace("api.", "connect.", 1)
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        key = query.pop("apiKey", None) or self._settings.api_key.get_secret_value()
        query = {"apiKey": key, "sessionId": session_id, **query}
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode(query), ""))


def _inner(answer: object) -> dict[str, Any]:
    """Return what is in the envelope; older documents show answers without one."""
    found = answer.get("data", answer) if isinstance(answer, dict) else None
    return found if isinstance(found, dict) else {}


def _label_in(tags: object) -> str | None:
    """Read our label from tags, which some answers tell as a list and others, by their schema, as an object."""
    if isinstance(tags, dict):
        tags = [*tags, *tags.values()]
    words = [one for one in tags if isinstance(one, str)] if isinstance(tags, list) else []
    if _OWNER not in words:
        return None
    return next((one.removeprefix(_LABEL) for one in words if one.startswith(_LABEL)), None)


def _number(found: object) -> float | None:
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _dollars(credits_used: object) -> Money | None:
    """Read credits, which are a number or decimal text, or ``"N/A"`` before they are known."""
    if isinstance(credits_used, bool) or not isinstance(credits_used, int | float | str):
        return None
    try:
        amount = Decimal(str(credits_used))
    except InvalidOperation:
        return None
    return Money.from_decimal(amount) if amount.is_finite() else None

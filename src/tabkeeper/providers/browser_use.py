"""Browser Use Cloud: https://docs.browser-use.com. Times are minutes; proxies are on unless they are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import SecretStr

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.money import Money
from tabkeeper.providers.base import Capabilities, Check, ProviderUsage, RemoteSession, SessionSpec
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.providers.http import Refusal
from tabkeeper.providers.reading import checked_id, moment

_OVER = frozenset({"stopped"})
"""Every other status, known or not, may cost money: such a session is taken to run."""
_OWNER, _LABEL = "tool", "session"
"""Keys of our metadata: who made the session, and its id here."""
_BROWSERS = "/api/v4/browsers"
_ACCOUNT = "/api/v3/billing/account"
"""The fourth version of the API has none."""
_PAGE, _PAGES = 100, 100
"""Sessions in a page of the list, and pages that are read at most."""


class BrowserUseProvider(HostedProvider):
    """See `HostedProvider`. A session goes on when its connection ends."""

    capabilities = Capabilities(
        list_by_label=True,
        finds_ended=True,
        usage=True,
        own_timeout=True,
        min_seconds=60,
        max_seconds=14400,
        step_seconds=60,
        live_view=True,
        proxies=True,
        concurrency=True,
    )
    default_url = "https://api.browser-use.com"
    reserved = frozenset({"metadata", "timeout"})

    def __init__(self, name: str, settings: ProviderSettings, **more: Any) -> None:
        super().__init__(name, settings, **more)
        where, plan = f"providers.{name}", settings.plan or ""
        if settings.project_id is not None:
            raise ConfigError(f"{where}.project_id: a key of browser_use belongs to one project; remove it")
        managed = settings.proxies or settings.options.get("proxyCountryCode") is not None
        if plan == "browser-use/direct" and managed:
            raise ConfigError(
                f'{where}.plan: with its proxies, take "browser-use/payg" or "browser-use/scaleup"'
            )
        if plan.startswith("browser-use/") and settings.max_gb == 0:
            raise ConfigError(
                f'{where}.max_gb: Browser Use charges for traffic without a proxy, too; write more than "0"'
            )

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        return {"X-Browser-Use-API-Key": key}

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        said = refusal.message.lower()
        if refusal.status == 429 and "concurrent" in said:
            return ProviderCapacityError(self.name, refusal.message, retry_after=refusal.retry_after)
        if refusal.status == 403 and "timeout" in said:
            return ProviderRequestError(self.name, refusal.message)
        return None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        answer = await self._api.once("POST", _BROWSERS, body=self._body(spec))
        try:
            made = self._read(answer)
        except ProviderError as error:
            raise OutcomeUnknownError(self.name, "a session was created, but the answer is odd") from error
        return await self._booted(made)

    def _body(self, spec: SessionSpec) -> dict[str, Any]:
        body: dict[str, Any] = {
            **self._settings.options,
            **spec.options,
            "timeout": int(self._life(spec.max_seconds) / 60),
            "metadata": {_OWNER: "tabkeeper", _LABEL: spec.session_id, "platform": spec.platform},
        }
        # Without a word about it there is a proxy, at 25 times the price of traffic without.
        body.setdefault("proxyCountryCode", "us" if self._settings.proxies else None)
        return body

    async def _get(self, provider_session_id: str) -> RemoteSession:
        return self._read(await self._fetch(provider_session_id))

    async def _fetch(self, session_id: str) -> dict[str, Any]:
        answer = await self._api.repeat("GET", f"{_BROWSERS}/{checked_id(self.name, session_id)}")
        if not isinstance(answer, dict):
            raise ProviderUnavailableError(self.name, f"what it says of session {session_id} cannot be read")
        return answer

    async def _running(self) -> Sequence[RemoteSession]:
        query = {"filterBy": "active", "metadata": f"{_OWNER}=tabkeeper", "pageSize": str(_PAGE)}
        # New sessions shift the pages, so one may be seen twice.
        found: dict[str, RemoteSession] = {}
        for number in range(1, _PAGES + 1):
            answer = await self._api.repeat("GET", _BROWSERS, query={**query, "pageNumber": str(number)})
            page = answer.get("items") if isinstance(answer, dict) else None
            if not isinstance(page, list):
                raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
            for one in map(self._read, page):
                if one.running and one.label is not None:
                    found[one.provider_session_id] = one
            total = answer.get("totalItems")
            if not page or (isinstance(total, int) and number * _PAGE >= total):
                break
        return list(found.values())

    async def _search(self, label: str) -> RemoteSession | None:
        query = {"metadata": f"{_LABEL}={label}", "pageSize": str(_PAGE)}
        answer = await self._api.repeat("GET", _BROWSERS, query=query)
        page = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(page, list):
            raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
        return next((one for one in map(self._read, page) if one.label == label), None)

    async def _release(self, provider_session_id: str) -> bool:
        path = f"{_BROWSERS}/{checked_id(self.name, provider_session_id)}"
        answer = await self._api.repeat("PATCH", path, body={"action": "stop"})
        return isinstance(answer, dict) and answer.get("status") in _OVER

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`: time, traffic and dollars; while it runs neither length nor dollars.

        Until a session ends its cost is that of its whole timeout, taken in advance.
        """
        answer = await self._fetch(provider_session_id)
        started, ended = moment(answer.get("startedAt")), moment(answer.get("finishedAt"))
        time, traffic = _number(answer.get("browserCost")), _number(answer.get("proxyCost"))
        megabytes = _number(answer.get("proxyUsedMb"))
        over = answer.get("status") in _OVER and ended is not None
        return ProviderUsage(
            seconds=(ended - started).total_seconds() if over and started and ended else None,
            proxy_bytes=int(megabytes * 1_000_000) if megabytes is not None else None,
            started_at=started,
            ended_at=ended,
            cost=Money.from_decimal(time + traffic)
            if over and time is not None and traffic is not None
            else None,
        )

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which a person can watch, and use, the session. Who has it needs no key: a secret.

        Raises:
            ProviderRequestError: the session has none, since it is over.
        """
        answer = await self._fetch(provider_session_id)
        url = _either(answer, "liveUrl", "live_url")
        if not isinstance(url, str):
            raise ProviderRequestError(
                self.name, f"session {provider_session_id} cannot be watched: it is over"
            )
        return url

    async def _look(self) -> Check:
        try:
            account = await self._api.repeat("GET", _ACCOUNT)
        except (ProviderAuthError, ProviderNotFoundError):
            # Keys may be good for one version of the API only.
            await self._api.repeat("GET", _BROWSERS, query={"pageSize": "1"})
            return Check(name="account", ok=True, detail="the key is valid, but may not read the balance")
        if not isinstance(account, dict):
            raise ProviderUnavailableError(self.name, "its account cannot be read")
        most, used = account.get("concurrentSessionLimit"), account.get("activeSessionCount")
        balance = _number(account.get("totalCreditsBalanceUsd"))
        told = f"the key is valid; ${balance or 0:.2f} left; {used} of {most} sessions run"
        if balance is not None and balance <= 0:
            return Check(name="account", ok=False, detail=told, advice="top the account up")
        wanted, advice = self._settings.max_sessions, ""
        if wanted is not None and isinstance(most, int) and wanted > most:
            advice = f"set providers.{self.name}.max_sessions to {most} at most; more are refused"
        return Check(
            name="account",
            ok=True,
            detail=told,
            advice=advice,
            concurrency=most if isinstance(most, int) else None,
        )

    def _read(self, session: object) -> RemoteSession:
        if not isinstance(session, dict) or not isinstance(session.get("id"), str):
            raise ProviderUnavailableError(self.name, "what it says of a session cannot be read")
        kept = session.get("metadata")
        label = kept.get(_LABEL) if isinstance(kept, dict) and kept.get(_OWNER) == "tabkeeper" else None
        url = _either(session, "cdpUrl", "cdp_url")
        started = _either(session, "startedAt", "started_at")
        return RemoteSession(
            provider_session_id=session["id"],
            connect_url=url if isinstance(url, str) else "",
            label=label if isinstance(label, str) else None,
            running=session.get("status") not in _OVER,
            created_at=moment(started),
        )


def _either(session: Mapping[str, Any], one: str, other: str) -> Any:
    """Return a field that some regions spell otherwise."""
    return session.get(one) or session.get(other)


def _number(text: object) -> Decimal | None:
    try:
        number = Decimal(str(text))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None

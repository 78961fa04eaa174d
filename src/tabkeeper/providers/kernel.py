"""Kernel: https://www.kernel.sh/docs. Its timeout counts only while nobody is connected; labels are tags."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import Capabilities, Check, ProviderUsage, RemoteSession, SessionSpec
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.providers.http import Refusal
from tabkeeper.providers.reading import checked_id, moment

_OWNER, _LABEL = "tool", "session"
"""Tags of ours: who made the session, and its id here."""
_NO_TAG = re.compile(r"[^A-Za-z0-9 _.:/=+@-]")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_CONCURRENCY = re.compile(r"concurren", re.IGNORECASE)
_MONEY = re.compile(r"spend|\bcap\b|credit|payment|billing|plan\b", re.IGNORECASE)
_PAGES = 100
"""Pages of a list that are read at most, 100 sessions each."""
_SHAPES: Mapping[str, Mapping[str, object]] = {
    "kernel/headless": {"headless": True},
    "kernel/headful": {"headless": False},
    "kernel/headful-gpu": {"headless": False, "gpu": True},
}
"""What the built-in price lists are the prices of. Kernel's own default is the eight times dearer headful browser."""
_MEMORY = {"kernel/headless": "1GiB", "kernel/headful": "8GiB"}


class KernelProvider(HostedProvider):
    """See `HostedProvider`. A session goes on as long as anybody is connected, so it has no timeout of its own."""

    capabilities = Capabilities(
        list_by_label=True,
        finds_ended=True,
        usage=True,
        min_seconds=10,
        max_seconds=259200,
        live_view=True,
        regions=True,
        proxies=True,
        concurrency=True,
    )
    default_url = "https://api.onkernel.com"
    reserved = frozenset({"tags", "name", "timeout_seconds", "region"})
    regions = ("us-east", "us-west", "eu-west", "ap-southeast")

    def __init__(self, name: str, settings: ProviderSettings, **more: Any) -> None:
        super().__init__(name, settings, **more)
        plan = settings.plan or ""
        self._shape = _SHAPES.get(plan, {})
        wanted = {"gpu": False, "memory": _MEMORY.get(plan), **self._shape} if self._shape else {}
        for key, value in wanted.items():
            if settings.options.get(key, value) != value:
                raise ConfigError(
                    f"providers.{name}.options.{key}: plan {plan!r} is not the price of such a browser; "
                    "remove it, or choose another plan, or write rates of your own"
                )

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        headers = {"Authorization": SecretStr(f"Bearer {key.get_secret_value()}")}
        if self._settings.project_id is not None:
            headers["X-Kernel-Project-Id"] = SecretStr(self._settings.project_id)
        return headers

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        code = refusal.body.get("code") if isinstance(refusal.body, dict) else None
        said = f"{code} {refusal.message}".replace("_", " ")
        after = refusal.retry_after
        if refusal.status == 404 and "project" in said:
            # Else it would be taken to mean that there is no such session, and one that runs to be over.
            return ProviderRequestError(
                self.name, f"{refusal.message}; check providers.{self.name}.project_id"
            )
        # How a reached limit of sessions is worded is not documented.
        if refusal.status == 529 or (refusal.status in {403, 409, 429} and _CONCURRENCY.search(said)):
            return ProviderCapacityError(self.name, f"no capacity: {refusal.message}", retry_after=after)
        if refusal.status == 403 and _MONEY.search(said):
            message = f"status 403: {refusal.message}; see the plan and its spending caps at Kernel"
            return ProviderPaymentError(self.name, message, retry_after=after)
        if refusal.status == 409 and re.search(r"\bname\b", said, re.IGNORECASE):
            # Names are our labels, which nobody else uses: the call reached Kernel before.
            return OutcomeUnknownError(self.name, f"a session of this name runs already: {refusal.message}")
        return None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        try:
            answer = await self._api.once("POST", "/browsers", body=self._body(spec))
        except ProviderRateLimitError as error:
            if error.retry_after is None and await self._full():
                raise ProviderCapacityError(self.name, f"all its sessions are in use: {error}") from error
            raise
        try:
            made = self._read(answer)
        except ProviderError as error:
            raise OutcomeUnknownError(self.name, "a session was created, but the answer is odd") from error
        return await self._usable(made)

    async def _full(self) -> bool:
        """Say whether the account has no session left; False if it does not tell."""
        try:
            limits = await self._api.repeat("GET", "/org/limits")
        except ProviderError:
            return False
        return isinstance(limits, dict) and limits.get("concurrent_sessions_available") == 0

    def _body(self, spec: SessionSpec) -> dict[str, Any]:
        settings = self._settings
        tags = {_OWNER: "tabkeeper", _LABEL: spec.session_id, "platform": spec.platform}
        body: dict[str, Any] = {
            **settings.options,
            **spec.options,
            **self._shape,
            # Nobody may be connected while a session waits for its next lease; without a connection it is free.
            "timeout_seconds": math.ceil(self._life(spec.max_seconds)),
            "tags": {key: _NO_TAG.sub("_", value)[:256] for key, value in tags.items()},
        }
        if _NAME.fullmatch(spec.session_id):
            # Two running sessions cannot have one name, so no network can double a create.
            body["name"] = spec.session_id
        if settings.region is not None:
            body["region"] = settings.region
        if settings.proxies and not {"proxy", "proxy_id"} & body.keys():
            # Kernel's own proxy is that of stealth browsers.
            body.setdefault("stealth", True)
        return body

    async def _get(self, provider_session_id: str) -> RemoteSession:
        return self._read(await self._fetch(provider_session_id))

    async def _fetch(self, session_id: str) -> dict[str, Any]:
        path = f"/browsers/{checked_id(self.name, session_id)}"
        answer = await self._api.repeat("GET", path, query={"include_deleted": "true"})
        if not isinstance(answer, dict):
            raise ProviderUnavailableError(self.name, f"what it says of session {session_id} cannot be read")
        return answer

    async def _running(self) -> Sequence[RemoteSession]:
        query = {"limit": "100", f"tags[{_OWNER}]": "tabkeeper"}
        # New sessions shift the pages, so one may be seen twice.
        found: dict[str, RemoteSession] = {}
        for _ in range(_PAGES):
            page, headers = await self._api.repeat_for_headers("GET", "/browsers", query=query)
            if not isinstance(page, list):
                raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
            for one in map(self._read, page):
                if one.running and one.label is not None:
                    found[one.provider_session_id] = one
            following = headers.get("x-next-offset", "0")
            if not page or following in {"0", query.get("offset")}:
                break
            query["offset"] = following
        return list(found.values())

    async def _search(self, label: str) -> RemoteSession | None:
        query = {"status": "all", "limit": "100", f"tags[{_LABEL}]": label}
        page = await self._api.repeat("GET", "/browsers", query=query)
        if not isinstance(page, list):
            raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
        return next((one for one in map(self._read, page) if one.label == label), None)

    async def _release(self, provider_session_id: str) -> bool:
        await self._api.repeat("DELETE", f"/browsers/{checked_id(self.name, provider_session_id)}")
        # It says that the request was accepted; only the session says that it is over.
        return False

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`: the time it was active, standby left out, once Kernel says that it is final."""
        answer = await self._fetch(provider_session_id)
        usage = answer.get("usage")
        uptime = usage.get("uptime_ms") if isinstance(usage, dict) else None
        final = answer.get("usage_status") == "ready" and isinstance(uptime, int | float)
        return ProviderUsage(
            seconds=uptime / 1000 if final and uptime is not None else None,
            started_at=moment(answer.get("created_at")),
            ended_at=moment(answer.get("deleted_at")),
        )

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which a person can watch, and use, the session. Who has it needs no key: a secret.

        Raises:
            ProviderRequestError: the session has none, since its browser is headless or it is over.
        """
        answer = await self._fetch(provider_session_id)
        url = answer.get("browser_live_view_url")
        if not isinstance(url, str) or answer.get("deleted_at") is not None:
            raise ProviderRequestError(
                self.name,
                f"session {provider_session_id} cannot be watched: it is over, or headless (set options.headless = "
                'false, or plan = "kernel/headful")',
            )
        return url

    async def _look(self) -> Check:
        limits = await self._api.repeat("GET", "/org/limits")
        if not isinstance(limits, dict):
            raise ProviderUnavailableError(self.name, "its limits cannot be read")
        most, used = limits.get("max_concurrent_sessions"), limits.get("concurrent_sessions_used")
        wanted, advice = self._settings.max_sessions, ""
        if wanted is not None and isinstance(most, int) and wanted > most:
            advice = f"set providers.{self.name}.max_sessions to {most} at most; more are refused"
        told = f"the account may run {'?' if most is None else most} sessions"
        if used is not None:
            told += f" and runs {used}"
        return Check(
            name="account",
            ok=True,
            detail=f"the key is valid; {told}",
            advice=advice,
            concurrency=most if isinstance(most, int) else None,
        )

    def _read(self, session: object) -> RemoteSession:
        if not isinstance(session, dict) or not isinstance(session.get("session_id"), str):
            raise ProviderUnavailableError(self.name, "what it says of a session cannot be read")
        tags = session.get("tags")
        label = tags.get(_LABEL) if isinstance(tags, dict) and tags.get(_OWNER) == "tabkeeper" else None
        url = session.get("cdp_ws_url")
        return RemoteSession(
            provider_session_id=session["session_id"],
            connect_url=url if isinstance(url, str) else "",
            label=label if isinstance(label, str) else None,
            running=session.get("deleted_at") is None,
            created_at=moment(session.get("created_at")),
        )

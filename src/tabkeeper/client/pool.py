"""`RemotePool`: `get_session` over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import httpx
from playwright.async_api import Browser, Playwright, async_playwright

from tabkeeper.client.lease import RemoteLease
from tabkeeper.client.lines import Lines
from tabkeeper.client.problems import error_of
from tabkeeper.config import parse_duration
from tabkeeper.errors import (
    PoolClosedError,
    PoolError,
)
from tabkeeper.money import Money
from tabkeeper.pool.lease import LeaseRequest

log = logging.getLogger(__name__)

_WAIT = 20.0
"""Seconds that one call waits in the queue, before it asks again."""
_MARGIN = 15.0
"""Seconds that an answer may take beyond that."""


class RemotePool:
    """A pool that `tabkeeper serve` runs somewhere.

    Args:
        url: the service's address.
        token: as `tabkeeper tokens create` prints; none for a service that runs with ``--open``.
        direct: connect to providers themselves instead of through the gateway; needs the scope ``direct``.
        ttl: how long the service keeps a lease when it hears nothing of this process; its own default if unset.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        direct: bool = False,
        ttl: timedelta | float | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._direct = direct
        self._ttl = None if ttl is None else parse_duration(ttl).total_seconds()
        self._http: Lines | None = None
        self._playwright: Playwright | None = None
        self._starting = asyncio.Lock()
        self._leases: set[RemoteLease] = set()

    def __repr__(self) -> str:
        return f"<RemotePool {self.url}>"

    async def open(self) -> Self:
        """Make ready; the service is first called when something is asked of it."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._http = Lines(self.url, headers, _WAIT + _MARGIN)
        return self

    async def close(self) -> None:
        """Give all leases back, and let go."""
        try:
            for failed in await asyncio.gather(
                *(lease.release(success=False, reason="its program ended") for lease in list(self._leases)),
                return_exceptions=True,
            ):
                if failed is not None:  # the service takes it back by itself
                    log.warning("a lease could not be given back: %s", failed)
        finally:
            if self._playwright is not None:
                await self._playwright.stop()
                self._playwright = None
            if self._http is not None:
                await self._http.aclose()
                self._http = None

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_session(
        self,
        platform: str,
        *,
        priority: int = 0,
        timeout: float | timedelta | None = None,
        tenant: str | None = None,
        tags: Mapping[str, str] | None = None,
        max_duration: float | timedelta | None = None,
        max_cost: Money | str | None = None,
        profile: str | None = None,
        identity: str | None = None,
        session_id: str | None = None,
        sticky: str | None = None,
        failed_proxies: Collection[str] = (),
    ) -> LeaseRequest[RemoteLease]:
        """Lease a session of the service's pool; arguments and errors are those of `SessionPool.get_session`.

        Raises (when awaited):
            PoolError: the service cannot be reached, besides what the pool itself raises.
            ConfigError: the service does not take the token, or not for this; or the request has a mistake.
        """
        body = {
            "platform": platform,
            "priority": priority,
            "timeout": None if timeout is None else parse_duration(timeout).total_seconds(),
            "tenant": tenant,
            "tags": dict(tags or {}),
            "max_duration": None if max_duration is None else parse_duration(max_duration).total_seconds(),
            "max_cost": max_cost.text() if isinstance(max_cost, Money) else max_cost,
            "profile": profile,
            "identity": identity,
            "session_id": session_id,
            "sticky": sticky,
            "failed_proxies": list(failed_proxies),
            "direct": self._direct,
            "ttl": self._ttl,
            "wait": _WAIT,
        }
        return LeaseRequest(lambda: self._acquire({k: v for k, v in body.items() if v is not None}))

    async def stats(self) -> dict[str, Any]:
        """Return the pool's figures, as `SessionPool.stats` has them, as plain data."""
        found: dict[str, Any] = await self.call("GET", "/stats")
        return found

    async def health(self) -> dict[str, Any]:
        """Return whether the service is usable, and how full it is; also when it is not."""
        found: dict[str, Any] = await self.call("GET", "/health", allow=503)
        return found

    async def _acquire(self, body: dict[str, Any]) -> RemoteLease:
        platform = body["platform"]
        told = await self.call("POST", "/leases", body, platform=platform)
        secret = {key: told[key] for key in ("token", "cdp_url", "connect_url")}
        path = f"/leases/{told['id']}"
        try:
            while told["status"] == "queued":
                told = await self.call("GET", f"{path}?wait={_WAIT:g}", platform=platform)
        except BaseException:
            with contextlib.suppress(PoolError):
                await asyncio.shield(self.call("DELETE", path))
            raise
        if told["status"] != "active":
            raise error_of(told["problem"] or {"detail": told["message"]}, platform)
        at_home = "profile" in body and not self._direct
        lease = RemoteLease(self, told | secret, at_home=at_home)
        self._leases.add(lease)
        return lease

    def forget(self, lease: RemoteLease) -> None:
        """Note that a lease is over."""
        self._leases.discard(lease)

    async def call(
        self, method: str, path: str, body: object = None, *, platform: str = "", allow: int = 0
    ) -> Any:
        """Call the service, and return what it answers as plain data.

        Raises:
            PoolError, ConfigError: it cannot be reached, or refuses.
        """
        if self._http is None:
            raise PoolClosedError("open the pool first: 'async with RemotePool(...) as pool:'")
        try:
            answer = await self._http.request(method, path, body)
        except httpx.RequestError as error:
            raise PoolError(
                f"the service at {self.url} cannot be reached: {str(error) or type(error).__name__}"
            ) from error
        found = _document(answer)
        if not answer.is_success and answer.status_code != allow:
            raise error_of(_problem(answer, found, self.url), platform)
        if found is None:
            raise PoolError(
                f"the service at {self.url} answered {answer.status_code} without a JSON object; "
                "does something on the way, such as a proxy, answer in its place?"
            )
        return found

    async def connect(self, address: str) -> Browser:
        """Connect to a browser over CDP."""
        async with self._starting:
            if self._playwright is None:
                self._playwright = await async_playwright().start()
        return await self._playwright.chromium.connect_over_cdp(address)


def _document(answer: httpx.Response) -> dict[str, Any] | None:
    """Read the JSON object that every answer of the service is; None if it is something else."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _problem(answer: httpx.Response, found: dict[str, Any] | None, url: str) -> dict[str, Any]:
    """Read a refusal; one that is none of the service's own comes from something on the way, such as a proxy."""
    if found is not None and str(found.get("type", "")).startswith("urn:tabkeeper:problem:"):
        return found
    return {"detail": f"the service at {url} answered {answer.status_code} {answer.reason_phrase}".rstrip()}

"""The pool of another process: the same `get_session`, over HTTP, so that code moves there by one line.

    async with SessionPool.from_file("tabkeeper.toml") as pool:                    # here
    async with RemotePool("http://127.0.0.1:8020", token=token) as pool:           # elsewhere

Browsers are reached through the service's CDP gateway, or, with ``direct=True``, at their providers' own addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from playwright.async_api import Browser, BrowserContext, Page, Playwright, async_playwright

from tabkeeper.config import parse_duration
from tabkeeper.errors import (
    BudgetExceededError,
    ConfigError,
    LeaseLostError,
    LedgerUnavailableError,
    NoProxyError,
    PoolClosedError,
    PoolError,
    QueueFullError,
    QueueTimeoutError,
    SessionCreationError,
    SessionInUseError,
    SessionTimeoutError,
)
from tabkeeper.money import Money
from tabkeeper.pool.lease import LeaseRequest

T = TypeVar("T")

_WAIT = 20.0
"""Seconds that one call waits in the queue, before it asks again."""
_MARGIN = 15.0
"""Seconds that an answer may take beyond that."""


class RemotePool:
    """A pool that `tabkeeper serve` runs somewhere.

    Args:
        url: the service's address.
        token: as `tabkeeper tokens new` prints; none for a service that runs with ``--open``.
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
        self._http: httpx.AsyncClient | None = None
        self._playwright: Playwright | None = None
        self._starting = asyncio.Lock()
        self._leases: set[RemoteLease] = set()

    def __repr__(self) -> str:
        return f"<RemotePool {self.url}>"

    async def open(self) -> Self:
        """Make ready; the service is first called when something is asked of it."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            timeout=_WAIT + _MARGIN,
            limits=httpx.Limits(max_connections=None),
        )
        return self

    async def close(self) -> None:
        """Give all leases back, and let go."""
        await asyncio.gather(
            *(lease.release(success=False, reason="its program ended") for lease in list(self._leases))
        )
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
        lease = RemoteLease(self, told | secret)
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
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise PoolError(
                f"the service at {self.url} cannot be reached: {str(error) or type(error).__name__}"
            ) from error
        if answer.is_error and answer.status_code != allow:
            try:
                problem = answer.json()
            except ValueError:
                problem = {"detail": f"the service at {self.url} answered {answer.status_code}"}
            raise error_of(problem, platform)
        return answer.json() if answer.content else None

    async def connect(self, address: str) -> Browser:
        """Connect to a browser over CDP."""
        async with self._starting:
            if self._playwright is None:
                self._playwright = await async_playwright().start()
        return await self._playwright.chromium.connect_over_cdp(address)


class RemoteLease:
    """The right to use a session until `release`, the end of the ``async with`` block, or `deadline`."""

    def __init__(self, pool: RemotePool, told: Mapping[str, Any]) -> None:
        self._pool = pool
        self._told = dict(told)
        self._browser: Browser | None = None
        self._context: BrowserContext | None = None
        self._opening = asyncio.Lock()
        self._scopes: set[asyncio.Timeout] = set()
        self._released = False
        self._beating = asyncio.create_task(self._beat(), name=f"tabkeeper heartbeat {self.id}")

    def __repr__(self) -> str:
        return f"<RemoteLease {self.id} on {self.session_id} ({self.platform}, {self.outcome or 'running'})>"

    @property
    def id(self) -> str:
        """The lease's id at the service."""
        return str(self._told["id"])

    @property
    def session_id(self) -> str:
        """The pool's id of the session."""
        return str(self._told["session_id"])

    @property
    def platform(self) -> str:
        """What kind of work it was leased for."""
        return str(self._told["platform"])

    @property
    def provider(self) -> str:
        """Who runs the browser."""
        return str(self._told["provider"])

    @property
    def tenant(self) -> str:
        """Who is charged."""
        return str(self._told["tenant"])

    @property
    def is_new(self) -> bool:
        """Whether the session was created for this lease, or is not the one that `session_id` named."""
        return bool(self._told["is_new"])

    @property
    def granted_at(self) -> datetime:
        """When the lease began (UTC)."""
        return datetime.fromisoformat(self._told["granted_at"])

    @property
    def deadline(self) -> datetime:
        """When it is taken back if it is not released (UTC)."""
        return datetime.fromisoformat(self._told["deadline"])

    @property
    def waited(self) -> timedelta:
        """How long the request was in the queue."""
        return timedelta(seconds=self._told["waited_seconds"])

    @property
    def cost(self) -> Money:
        """What it has cost, as of the last heartbeat, or in the end."""
        return Money.parse(self._told["cost"])

    @property
    def outcome(self) -> str:
        """How it ended: ok, failed, reclaimed or lost; empty while it runs."""
        return str(self._told["outcome"] or "") if self._is_over else ""

    @property
    def connect_url(self) -> str:
        """Where a CDP client of your own connects. Who has it holds the lease: do not log it.

        Raises:
            LeaseLostError: the lease is over.
        """
        self._check()
        return str(self._told["connect_url"] or self._told["cdp_url"])

    async def browser(self) -> Browser:
        """Connect over CDP (once) and return the Playwright browser.

        Raises:
            LeaseLostError: the lease is over.
        """
        async with self._opening:
            if self._browser is None:
                address = self.connect_url
                async with self._while_held():
                    self._browser = await self._pool.connect(address)
            return self._browser

    async def context(self, **options: Any) -> BrowserContext:
        """Return the lease's context: clean when the lease begins.

        Args:
            **options: for Playwright's `Browser.new_context`, at the first call only.

        Raises:
            LeaseLostError: the lease is over.
            ValueError: options were given after the context was opened.
        """
        browser = await self.browser()
        async with self._opening, self._while_held():
            if self._context is None:
                self._context = await browser.new_context(**options)
            elif options:
                raise ValueError("the lease's context is open already; pass its options at the first call")
            return self._context

    async def new_page(self) -> Page:
        """Open a page in the lease's context.

        Raises:
            LeaseLostError: the lease is over.
        """
        context = await self.context()
        async with self._while_held():
            return await context.new_page()

    async def use(self, operation: Callable[[RemoteLease], Awaitable[T]], *, timeout: float = 60) -> T:
        """Run `operation(lease)` within `timeout` seconds; it is cancelled when the lease is lost.

        Raises:
            SessionTimeoutError: it took too long.
            LeaseLostError: the lease ended meanwhile.
        """
        self._check()
        scope = asyncio.timeout(timeout)
        self._scopes.add(scope)
        try:
            async with scope:
                return await operation(self)
        except Exception as error:
            self._raise_if_lost(error)
            if isinstance(error, TimeoutError) and scope.expired():
                raise SessionTimeoutError(
                    f"an operation on session {self.session_id} (platform {self.platform!r}) took longer than "
                    f"{timeout:g} s"
                ) from error
            raise
        finally:
            self._scopes.discard(scope)

    async def release(self, *, success: bool = True, reason: str | None = None) -> None:
        """Give the session back. Safe to repeat, and harmless when the lease is over already.

        Raises:
            ValueError: a reason for a success.
            PoolError: the service cannot be reached; it takes the lease back by itself then.
        """
        if success and reason is not None:
            raise ValueError(f"reason {reason!r} needs success=False: a success has none")
        if self._released:
            return
        self._released = True
        self._beating.cancel()
        await asyncio.wait([self._beating])
        self._pool.forget(self)
        body = {"success": success} if reason is None else {"success": success, "reason": reason}
        try:
            # Before the browser is let go: to the gateway that would be the lease's end, and nothing of its success.
            self._told |= await self._pool.call("DELETE", f"/leases/{self.id}", body)
        finally:
            if self._browser is not None:
                with contextlib.suppress(Exception):  # it may be gone, and is not ours to mend
                    await self._browser.close()

    async def end_of_block(self, error: BaseException | None) -> None:
        """Release at the end of an ``async with`` block, as a failure if `error` ended it.

        Raises:
            LeaseLostError: the block failed because the lease had ended under it.
        """
        lost = self._is_over
        note = None if error is None else f"{type(error).__name__}: {error}".splitlines()[0][:300]
        await self.release(success=error is None, reason=note)
        if lost and isinstance(error, Exception) and not isinstance(error, LeaseLostError):
            self._raise_if_lost(error)

    @property
    def _is_over(self) -> bool:
        return str(self._told["status"]) != "active"

    def _check(self) -> None:
        if self._is_over or self._released:
            raise LeaseLostError(
                self.session_id, self.platform, self._told["message"] if self._is_over else "it was released"
            )

    def _raise_if_lost(self, error: BaseException) -> None:
        if self._is_over and not self._released:
            raise LeaseLostError(self.session_id, self.platform, self._told["message"]) from error

    @contextlib.asynccontextmanager
    async def _while_held(self) -> Any:
        """Give up when the lease is lost: Playwright may never answer what a browser was asked as it died."""
        self._check()
        scope = asyncio.timeout(None)
        self._scopes.add(scope)
        try:
            async with scope:
                yield
        except Exception as error:
            self._raise_if_lost(error)
            raise
        finally:
            self._scopes.discard(scope)

    async def _beat(self) -> None:
        """Tell the service that the holder lives, and notice when the lease is over."""
        every = max(0.05, (self._told["expires_in_seconds"] or 30.0) / 3)
        while not self._is_over:
            await asyncio.sleep(every)
            with contextlib.suppress(PoolError):  # it may come back; if not, the lease ends there by itself
                self._told |= await self._pool.call("GET", f"/leases/{self.id}")
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())


def error_of(
    problem: Mapping[str, Any], platform: str
) -> PoolError | BudgetExceededError | ConfigError | Exception:
    """Return the error that the pool raised at the service, as far as its answer tells."""
    kind = str(problem.get("type", "")).rpartition(":")[2]
    said = str(problem.get("detail") or problem.get("title") or "the service refused")
    match kind:
        case "budget-exceeded":
            return BudgetExceededError(
                budget=problem["budget"],
                **{name: Money.parse(problem[name]) for name in ("limit", "spent", "held", "needed")},
                resets_at=datetime.fromisoformat(problem["resets_at"]) if problem["resets_at"] else None,
                subject=problem["subject"],
                on_exceed=problem["on_exceed"],
            )
        case "queue-full":
            return QueueFullError(platform, problem["queued"])
        case "queue-timeout":
            return QueueTimeoutError(
                platform, problem["waited_seconds"], problem["position"], problem["blocked_by"]
            )
        case "invalid" | "bad-request" | "unauthorized" | "forbidden":
            return ConfigError(said)
        case "closing":
            return PoolClosedError(said)
        case "unavailable":
            return LedgerUnavailableError(said)
        case "creation-failed":
            return SessionCreationError(said)
        case "session-in-use":
            return SessionInUseError(said)
        case "no-proxy":
            return NoProxyError(said)
        case _:
            return PoolError(said)

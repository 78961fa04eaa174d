"""Any plain CDP endpoint: a browser that somebody else runs and that is only connected to.

A session here is a connection right, not a thing at the other side: nothing is started and nothing is ended remotely.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

import httpx

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import (
    Capabilities,
    Check,
    Leftover,
    LostCallback,
    ProviderUsage,
    RemoteSession,
    SessionSpec,
)
from tabkeeper.providers.redact import redact

_SECONDS = 10.0


class _SecretTarget(httpx.AsyncBaseTransport):
    """Puts the real path and query on a request at the last moment: httpx logs the address that it was given."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # A request of its own: the client logs the one it made after the answer.
        real = httpx.Request(
            request.method,
            request.url.copy_with(raw_path=self._target.encode()),
            headers=request.headers,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(real)

    async def aclose(self) -> None:
        await self._inner.aclose()


class CdpProvider:
    """See `Provider`.

    Args:
        name: the provider's name in the configuration.
        settings: its section; `url` is ws(s):// (used as it is) or http(s):// (asked for the address of its browser).
        clock: for `RemoteSession.created_at`.
    """

    capabilities = Capabilities(list_by_label=True, host_bound=True)

    def __init__(self, name: str, settings: ProviderSettings, *, clock: Clock | None = None) -> None:
        if settings.url is None:
            raise ConfigError(f"providers.{name}.url: a cdp provider needs one")
        self.name = name
        self._url = settings.url
        parts = self._parts()
        if parts.scheme not in {"ws", "wss", "http", "https"} or not parts.hostname:
            raise ConfigError(
                f"providers.{name}.url: must start with ws://, wss://, http:// or https:// and name a host"
            )
        self._clock = clock or SystemClock()
        self._on_lost: LostCallback | None = None
        self._closed = False
        self._sessions: dict[str, RemoteSession] = {}

    async def start(self, on_lost: LostCallback) -> None:
        """See `Provider.start`."""
        assert self._on_lost is None, "started twice"
        self._on_lost = on_lost

    async def create(self, spec: SessionSpec) -> RemoteSession:
        """See `Provider.create`. With a ws(s) address this asks nobody; an http(s) address is asked each time."""
        if self._closed or self._on_lost is None:
            raise ProviderUnavailableError(
                self.name, "it is closed" if self._closed else "it was not started"
            )
        if spec.session_id in self._sessions:
            raise ProviderRequestError(self.name, f"session {spec.session_id} exists already")
        session = RemoteSession(
            provider_session_id=spec.session_id,
            connect_url=await self._find_browser(),
            label=spec.session_id,
            created_at=self._clock.now(),
            shared=True,
        )
        self._sessions[spec.session_id] = session
        return session

    def alive(self, provider_session_id: str) -> bool:
        """See `Provider.alive`: True until closed or reported lost."""
        return provider_session_id in self._sessions

    def report_lost(self, provider_session_id: str, reason: str) -> None:
        """Say that the connection to a session broke, which only its user can see; `on_lost` is told once."""
        session = self._sessions.pop(provider_session_id, None)
        if session is not None:
            assert self._on_lost is not None
            self._on_lost(provider_session_id, reason)

    async def get(self, provider_session_id: str) -> RemoteSession:
        """See `Provider.get`; knows the sessions of this object only."""
        try:
            return self._sessions[provider_session_id]
        except KeyError:
            raise ProviderNotFoundError(self.name, f"there is no session {provider_session_id}") from None

    async def list(self, label_prefix: str = "") -> Sequence[RemoteSession]:
        """See `Provider.list`; knows the sessions of this object only."""
        return [s for key, s in self._sessions.items() if key.startswith(label_prefix)]

    async def running(self) -> Sequence[RemoteSession]:
        """See `Provider.running`."""
        return await self.list()

    async def find(self, label: str) -> RemoteSession | None:
        """See `Provider.find`; knows the sessions of this object only."""
        return self._sessions.get(label)

    async def close(self, provider_session_id: str) -> None:
        """See `Provider.close`. Only the connection, which its user closes, holds anything at the other side."""
        self._sessions.pop(provider_session_id, None)

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:  # noqa: ARG002
        """See `Provider.usage`; an endpoint tells nothing."""
        return None

    async def reap(self, leftovers: Sequence[Leftover]) -> None:
        """See `Provider.reap`; sessions ended with the connections of their dead owner."""

    async def check(self) -> Sequence[Check]:
        """See `Provider.check`. A ws(s) host is only connected to: a handshake could start a paid browser there."""
        shown = redact(self._url.get_secret_value())
        try:
            if self._parts().scheme.startswith("http"):
                await self._find_browser()
            else:
                await self._knock()
        except ProviderError as error:
            advice = f"see that a browser listens there, or correct providers.{self.name}.url"
            return [Check(name="endpoint", ok=False, detail=str(error), advice=advice)]
        return [Check(name="endpoint", ok=True, detail=f"{shown} answers")]

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        self._closed = True
        self._sessions.clear()

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self._url.get_secret_value())
            _ = parts.port  # raises for a bad one
        except ValueError:
            raise ConfigError(f"providers.{self.name}.url: is not a valid address") from None
        return parts

    async def _find_browser(self) -> str:
        """Return the WebSocket address of the endpoint's browser.

        Raises:
            ProviderError: it cannot be reached, refuses, or is no CDP endpoint; the message holds no secret.
        """
        parts = self._parts()
        if parts.scheme in {"ws", "wss"}:
            return self._url.get_secret_value()
        query = f"?{parts.query}" if parts.query else ""
        shown = redact(parts.geturl())
        user = (parts.username, parts.password or "") if parts.username is not None else None
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        bare = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
        transport = _SecretTarget(f"{parts.path.rstrip('/')}/json/version{query}")
        try:
            async with httpx.AsyncClient(transport=transport, timeout=_SECONDS, auth=user) as client:
                answer = await client.get(bare)
        except httpx.HTTPError as error:
            # httpx errors may quote the address.
            raise ProviderUnavailableError(
                self.name, f"{shown} cannot be reached ({type(error).__name__})"
            ) from None
        if not answer.is_success:
            raise self._refusal(answer, shown)
        try:
            found = urlsplit(answer.json()["webSocketDebuggerUrl"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ProviderRequestError(
                self.name, f"{shown} answers, but not as a CDP endpoint does"
            ) from None
        # The browser names itself by the address it listens on, which behind a proxy or in a container is not ours.
        scheme = "wss" if parts.scheme == "https" else "ws"
        queries = "&".join(q for q in (found.query, parts.query) if q)
        return SplitResult(scheme, parts.netloc, found.path, queries, "").geturl()

    def _refusal(self, answer: httpx.Response, shown: str) -> ProviderError:
        status = answer.status_code
        message = f"{shown} answered with status {status}"
        if status in {401, 403}:
            return ProviderAuthError(self.name, f"{message}; check the key in providers.{self.name}.url")
        if status == 402:
            return ProviderPaymentError(self.name, message)
        if status == 429:
            after = answer.headers.get("retry-after", "")
            return ProviderRateLimitError(
                self.name, message, retry_after=float(after) if after.isdecimal() else None
            )
        if status == 503:
            return ProviderCapacityError(self.name, message)
        if "Host header" in answer.text:
            # Chromium's guard against DNS rebinding.
            return ProviderRequestError(self.name, f"{message}; write the host as an IP address or localhost")
        if status >= 500:
            return ProviderUnavailableError(self.name, message)
        return ProviderRequestError(self.name, message)

    async def _knock(self) -> None:
        parts = self._parts()
        secure = parts.scheme == "wss"
        try:
            async with asyncio.timeout(_SECONDS):
                _, writer = await asyncio.open_connection(
                    parts.hostname,
                    parts.port or (443 if secure else 80),
                    ssl=ssl.create_default_context() if secure else None,
                )
        except (OSError, TimeoutError) as error:
            shown = redact(parts.geturl())
            raise ProviderUnavailableError(
                self.name, f"{shown} cannot be reached ({type(error).__name__})"
            ) from None
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

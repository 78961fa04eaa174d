"""The shared way to a provider's HTTP API: what is sent, what is sent again, and what an answer means.

Two verbs. `once` is for creates: sent a single time, and everything that leaves open whether it took effect is
`OutcomeUnknownError`. `repeat` is for what may be said twice: reads and closes. Keys are put on a request below
httpx, so neither its logs nor its exceptions hold them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.redact import redact, scrub

ATTEMPTS = 4
"""How often a read or a close is sent in all."""
LONGEST_PAUSE = 30.0
"""A provider that wants a longer pause than this gets it from the caller: the error says how long."""
LONGEST_RETRY_AFTER = 3600.0
"""What a provider asks beyond this is a mistake of its clock or ours."""

_BEFORE_SENDING = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""Errors of httpx after which the provider has certainly not seen the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is not a success, as adapters judge it."""

    provider: str
    status: int
    message: str
    """What the provider says, without secrets."""
    body: Any
    """The answer's JSON, or None."""
    retry_after: float | None


Judge = Callable[[Refusal], ProviderError | None]
"""An adapter's own reading of a refusal; None leaves it to the common one."""


class Api:
    """One provider account's HTTP API. Close it with `aclose`.

    Args:
        provider: name in the configuration, for errors.
        base_url: where paths begin.
        headers: sent with every request and shown nowhere.
        query: the same, for providers that want their key in the address.
        judge: the adapter's own reading of refusals.
        seconds: how long an answer to `repeat` may take; an answer to `once` may take `create_seconds`.
        create_seconds: longer than a pool waits, so that the pool's patience decides and not this.
        transport, sleep, clock, rng: for tests.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        headers: Mapping[str, SecretStr] | None = None,
        query: Mapping[str, SecretStr] | None = None,
        judge: Judge = lambda _: None,
        seconds: float = 30.0,
        create_seconds: float = 180.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        self._provider = provider
        self._shown = redact(base_url)
        self._judge = judge
        self._sleep = sleep
        self._clock = clock or SystemClock()
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._times = httpx.Timeout(seconds, connect=10.0, pool=seconds)
        self._create_times = httpx.Timeout(create_seconds, connect=10.0, pool=seconds)
        headers, query = headers or {}, query or {}
        values = [s.get_secret_value() for s in (*headers.values(), *query.values())]
        # An error may quote the key alone, without the scheme before it.
        self._secrets = [*values, *(v.removeprefix("Bearer ") for v in values if v.startswith("Bearer "))]
        self.skew: timedelta | None = None
        """How far the provider's clock is ahead of ours, at least, by its last answer; None if it did not say."""
        self._client = httpx.AsyncClient(
            base_url=base_url,
            transport=_Signing(transport or _transport(base_url), headers, query),
            headers={"accept": "application/json", "user-agent": "tabkeeper"},
        )

    def __repr__(self) -> str:
        return f"Api({self._provider!r}, {self._shown!r})"

    async def once(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request that must not be sent twice, and return the JSON of the answer.

        Raises:
            OutcomeUnknownError: it may have taken effect.
            ProviderError: it has not.
        """
        return (await self._send(method, path, None, body, once=True))[0]

    async def repeat(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a request that may be sent twice, again if need be, and return the JSON of the answer.

        Raises:
            ProviderError: the last attempt's.
        """
        return (await self.repeat_for_headers(method, path, query=query, body=body))[0]

    async def repeat_for_headers(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """As `repeat`, with the answer's headers: some tell there where a list goes on.

        Raises:
            ProviderError: the last attempt's.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            retry=retry_if_exception(_passes),
            wait=self._pause,
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._send, method, path, query, body, once=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _pause(self, state: RetryCallState) -> float:
        backoff = min(8.0, 0.5 * 2.0 ** (state.attempt_number - 1)) * self._rng.uniform(0.75, 1.25)
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, ProviderError) else None
        return max(backoff, asked or 0.0)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        *,
        once: bool,
    ) -> tuple[Any, Mapping[str, str]]:
        what = f"{method} {path} at {self._shown}"
        times = self._create_times if once else self._times
        sent = self._clock.now()
        try:
            # Without a body there is no content type either: some servers refuse an empty one that is said to be JSON.
            answer = await self._client.request(method, path, params=query, timeout=times, json=body)
        except _BEFORE_SENDING as error:
            # Messages of httpx may quote addresses and header values.
            raise ProviderUnavailableError(
                self._provider, f"{self._shown} cannot be reached ({type(error).__name__})"
            ) from None
        except httpx.HTTPError as error:
            raise self._no_answer(f"{what} got no answer ({type(error).__name__})", once=once) from None
        self.skew = skew(answer.headers.get("date", ""), sent, self._clock.now())
        if not answer.is_success:
            raise self._refusal(answer, what, once=once)
        if not answer.content:
            return None, answer.headers
        try:
            return answer.json(), answer.headers
        except ValueError:
            raise self._no_answer(f"{what} was answered with something else than JSON", once=once) from None

    def _no_answer(self, message: str, *, once: bool) -> ProviderError:
        kind = OutcomeUnknownError if once else ProviderUnavailableError
        return kind(self._provider, message)

    def _refusal(self, answer: httpx.Response, what: str, *, once: bool) -> ProviderError:
        try:
            body = answer.json()
        except ValueError:
            body = None
        refusal = Refusal(
            provider=self._provider,
            status=answer.status_code,
            message=scrub(_words(body) or answer.reason_phrase, self._secrets)[:300],
            body=body,
            retry_after=retry_after(answer.headers, self._clock.now()),
        )
        judged = self._judge(refusal)
        if judged is not None:
            return judged
        return _common(refusal, what, once=once)


def _transport(base_url: str) -> httpx.AsyncHTTPTransport:
    # httpx looks for the environment's proxy only if it makes the transport itself.
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if host in {"localhost", "127.0.0.1", "::1"} or proxy_bypass(host):
        proxy = None
    return httpx.AsyncHTTPTransport(proxy=proxy)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait, bounded; None if it does not say.

    >>> retry_after({"retry-after": "7"}, datetime.now(UTC))
    7.0
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    text = headers.get("retry-after", "").strip()
    seconds = _number(text)
    if seconds is not None:
        return _bounded(seconds)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _bounded((moment - now).total_seconds())


def skew(date: str, sent: datetime, received: datetime) -> timedelta | None:
    """Return how far ahead of ours a clock is, at least, that said `date` between `sent` and `received`.

    The date of an answer is in whole seconds, cut off.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> skew("Thu, 01 Jan 2026 12:00:10 GMT", noon, noon + timedelta(seconds=3))
    datetime.timedelta(seconds=7)
    """
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return None
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    least, most = theirs - received, theirs + timedelta(seconds=1) - sent
    zero = timedelta(0)
    return least if least > zero else min(zero, most)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _passes(error: BaseException) -> bool:
    return (
        isinstance(error, ProviderUnavailableError | ProviderRateLimitError)
        and (error.retry_after or 0.0) <= LONGEST_PAUSE
    )


def _words(body: Any) -> str:
    """Return what a person should read of an error's JSON: most APIs say ``message``, some nest or list it."""
    if isinstance(body, list):
        return "; ".join(filter(None, map(_words, body)))
    if not isinstance(body, dict):
        return ""
    for key in ("message", "error", "detail", "msg"):
        found = body.get(key)
        if isinstance(found, str) and found:
            return found
        if isinstance(found, dict | list) and (nested := _words(found)):
            return nested
    return ""


def _common(refusal: Refusal, what: str, *, once: bool) -> ProviderError:
    status, name, after = refusal.status, refusal.provider, refusal.retry_after
    message = f"{what} was answered with status {status}: {refusal.message}"
    match status:
        case 401 | 403:
            return ProviderAuthError(name, f"{message}; check providers.{name}.api_key")
        case 402:
            return ProviderPaymentError(name, message, retry_after=after)
        case 404 | 410 if once:
            # There is no session yet that could be unknown: a path, a profile or a project is.
            return ProviderRequestError(name, message)
        case 404 | 410:
            return ProviderNotFoundError(name, message)
        case 429:
            return ProviderRateLimitError(name, message, retry_after=after)
        case 408 | 425:
            pass
        case _ if status < 500:
            return ProviderRequestError(name, message)
    # A gateway that gave up says nothing about what went on behind it.
    kind = OutcomeUnknownError if once else ProviderUnavailableError
    return kind(name, message, retry_after=after)


class _Signing(httpx.AsyncBaseTransport):
    """Puts keys on a request at the last moment, on a copy: the client logs and quotes the one it made."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        headers: Mapping[str, SecretStr],
        query: Mapping[str, SecretStr],
    ) -> None:
        self._inner = inner
        self._headers = headers
        self._query = query

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if self._query:
            added = urlencode({key: secret.get_secret_value() for key, secret in self._query.items()})
            path = url.raw_path.decode()
            url = url.copy_with(raw_path=f"{path}{'&' if '?' in path else '?'}{added}".encode())
        headers = request.headers.copy()
        for key, secret in self._headers.items():
            headers[key] = secret.get_secret_value()
        real = httpx.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        return await self._inner.handle_async_request(real)

    async def aclose(self) -> None:
        await self._inner.aclose()

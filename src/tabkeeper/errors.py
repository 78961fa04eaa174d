"""Every exception that Tabkeeper raises, as one tree.

    TabkeeperError
    ├── ConfigError                  the configuration is wrong; exit code 2
    ├── SealedError                  a stored secret cannot be opened with the keys at hand
    ├── PoolError
    │   ├── QueueTimeoutError        waited too long for a session
    │   ├── QueueFullError           too many are waiting already
    │   ├── PoolClosedError          the pool is shutting down
    │   ├── SessionCreationError     no provider could start a session
    │   ├── SessionInUseError        somebody else holds that session
    │   ├── SessionTimeoutError      an operation on a session took too long
    │   └── LeaseLostError           the session ended under its holder
    ├── BudgetExceededError          a budget (or a cap) does not allow it
    ├── RunError                     a run cannot be begun, resumed or committed
    │   └── RunLostError             another process works on it now
    ├── BlockedError                 a site keeps its visitor out
    ├── ProxyError
    │   ├── NoProxyError             no proxy fits and works
    │   └── MissingKeyError          a sticky session was asked for without its key
    ├── ProviderError
    │   ├── ProviderAuthError  ProviderPaymentError  ProviderCapacityError  ProviderRateLimitError
    │   ├── ProviderUnavailableError  ProviderNotFoundError  ProviderRequestError
    │   └── OutcomeUnknownError      nobody knows whether a session was created
    └── LedgerError
        ├── IdempotencyConflictError
        ├── NoPriceError             what a session may cost is unknown, so it is refused, never free
        ├── SchemaVersionError       the database is older or newer than this code
        └── LedgerUnavailableError   the database cannot be reached or written

Messages say what happened, to which platform, provider or session, and what to do.
"""

from __future__ import annotations

from datetime import datetime

from tabkeeper.money import Money


class TabkeeperError(Exception):
    """Base of all errors of this package."""


class ConfigError(TabkeeperError):
    """The configuration cannot be used; the message names the key and what to write instead."""


class SealedError(TabkeeperError):
    """What is stored encrypted was stored with another key, or changed since."""


class ProxyError(TabkeeperError):
    """Something is wrong with the proxies."""


class NoProxyError(ProxyError):
    """No proxy that fits can be used now; the message says what is wrong with each."""


class MissingKeyError(ProxyError, ValueError):
    """A sticky session has no key, so nobody could find its proxy again."""


class RunError(TabkeeperError):
    """A run over sites cannot be begun, resumed or committed; the message says why."""


class RunLostError(RunError):
    """Another process has taken the run over; this one must let go of it."""


class BlockedError(TabkeeperError):
    """A site keeps its visitor out. Raise it where a page shows that: the page is tried on another proxy or session."""


class PoolError(TabkeeperError):
    """The pool could not serve a request."""


class QueueTimeoutError(PoolError):
    """A request waited as long as it was willing to; the message names what it waited for.

    Attributes:
        platform: the platform asked for.
        waited: seconds in the queue.
        position: place in the platform's queue when it gave up, 1 is the front.
        blocked_by: what stood in the way, for people.
    """

    def __init__(self, platform: str, waited: float, position: int, blocked_by: str) -> None:
        self.platform = platform
        self.waited = waited
        self.position = position
        self.blocked_by = blocked_by
        super().__init__(
            f"no session for platform {platform!r} within {waited:.1f} s (place {position} in its queue): "
            f"{blocked_by}; pass a longer timeout or a higher priority, or raise the limit that is in the way"
        )


class QueueFullError(PoolError):
    """The queue has reached `max_queued`; nothing was queued."""

    def __init__(self, platform: str, queued: int) -> None:
        self.platform = platform
        self.queued = queued
        super().__init__(
            f"the queue is full ({queued} requests wait), so the one for platform {platform!r} was refused; "
            "try later, or raise pool.max_queued"
        )


class PoolClosedError(PoolError):
    """The pool is closed or closing and gives no more leases."""


class SessionCreationError(PoolError):
    """No provider of the platform could start a session; `__cause__` is the last provider's error."""


class SessionInUseError(PoolError):
    """The session, or the browser behind it, is somebody else's too, so it is not handed out whole."""


class SessionTimeoutError(PoolError):
    """An operation took longer than the platform's `use_timeout`."""


class LeaseLostError(PoolError):
    """The session ended under its holder: browser died, deadline passed, cap reached, or it was evicted.

    Attributes:
        session_id: our id of the session.
        reason: one word or two, as in the ledger's `close_reason`.
    """

    def __init__(self, session_id: str, platform: str, reason: str) -> None:
        self.session_id = session_id
        self.platform = platform
        self.reason = reason
        more = " (a request of higher priority needed its place)" if reason == "evicted in use" else ""
        super().__init__(
            f"the lease on session {session_id} (platform {platform!r}) ended early: {reason}{more}; lease a new one"
        )


class BudgetExceededError(TabkeeperError):
    """A hard budget, or a session's or lease's own cap, does not allow what was asked.

    Attributes:
        budget: name of the budget or cap.
        limit: what it allows in its window.
        spent: settled so far in the window.
        held: held for running sessions.
        needed: worst case of what was asked for.
        resets_at: when the next window begins (None for a cap or a budget without end).
        on_exceed: what the budget's owner wants then: "deny", "wait" or "fallback".
    """

    def __init__(
        self,
        *,
        budget: str,
        limit: Money,
        spent: Money,
        held: Money,
        needed: Money,
        resets_at: datetime | None,
        subject: str,
        on_exceed: str = "deny",
    ) -> None:
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.held = held
        self.needed = needed
        self.resets_at = resets_at
        self.subject = subject
        self.on_exceed = on_exceed
        left = limit - spent - held
        tail = f"; resets {resets_at:%Y-%m-%d %H:%M %Z}" if resets_at else ""
        super().__init__(
            f'Budget "{budget}" has {left} left of {limit} ({spent} spent, {held} held) and {subject} '
            f"may cost {needed}{tail}. Raise it; or make holds smaller with a shorter session_ttl or lease_timeout, "
            "or with max_session_cost"
        )


class ProviderError(TabkeeperError):
    """A provider of browsers answered with an error.

    Attributes:
        provider: the provider's name in the configuration.
        retry_after: seconds to wait before asking again, if the provider said so.
    """

    def __init__(self, provider: str, message: str, *, retry_after: float | None = None) -> None:
        self.provider = provider
        self.retry_after = retry_after
        super().__init__(f"provider {provider!r}: {message}")


class ProviderAuthError(ProviderError):
    """The key is missing, wrong or lacks a permission."""


class ProviderPaymentError(ProviderError):
    """The account has no money or credits left, or the plan does not include this."""


class ProviderCapacityError(ProviderError):
    """The account's limit of concurrent sessions, or this machine's capacity, is reached."""


class ProviderRateLimitError(ProviderError):
    """Too many calls; wait `retry_after` seconds."""


class ProviderUnavailableError(ProviderError):
    """The provider cannot be reached or failed inside; nothing was created."""


class ProviderNotFoundError(ProviderError):
    """The provider does not know that session."""


class ProviderRequestError(ProviderError):
    """The provider refused the request as wrong."""


class OutcomeUnknownError(ProviderError):
    """A create got no answer: a session may or may not exist (and cost money) at the provider."""


class LedgerError(TabkeeperError):
    """The ledger could not do what was asked."""


class IdempotencyConflictError(LedgerError):
    """A key was used again for something else; the message names the key and what differs."""


class NoPriceError(LedgerError):
    """There is no price, or no worst case, for what was asked; the message says which setting gives one."""


class SchemaVersionError(LedgerError):
    """The database's schema is not the one this version of Tabkeeper expects."""


class LedgerUnavailableError(LedgerError):
    """The database cannot be reached, is read-only or full; no new paid session is started."""

"""Errors as answers: every refusal of the service is one problem-details document (RFC 9457).

The kind is the last part of `type`, such as ``urn:tabkeeper:problem:queue-full``; programs go by it and by the status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tabkeeper.clock import Clock
from tabkeeper.errors import (
    BudgetExceededError,
    ConfigError,
    LeaseLostError,
    LedgerError,
    MissingKeyError,
    NoProxyError,
    PoolClosedError,
    ProviderError,
    QueueFullError,
    QueueTimeoutError,
    SessionCreationError,
    SessionInUseError,
    TabkeeperError,
)

MEDIA_TYPE = "application/problem+json"
URN = "urn:tabkeeper:problem:"

TITLES: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "unauthorized": (401, "A token is needed"),
    "budget-exceeded": (402, "A budget does not allow it"),
    "forbidden": (403, "This caller may not do that"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "That cannot be done with this"),
    "too-slow": (408, "The request did not come in time"),
    "lease-over": (409, "The lease is over"),
    "session-in-use": (409, "The session is not handed out whole"),
    "no-proxy": (409, "No proxy fits and works"),
    "too-large": (413, "The request is too large"),
    "invalid": (422, "The request has a mistake"),
    "queue-full": (429, "Too many wait already"),
    "queue-timeout": (429, "No session became free in time"),
    "too-many": (429, "Too many do that already"),
    "internal": (500, "The service has a fault"),
    "creation-failed": (502, "No provider could start a session"),
    "provider-failed": (502, "A provider answered with an error"),
    "closing": (503, "The service is stopping"),
    "unavailable": (503, "The service cannot do this now"),
}


class Problem(BaseModel):
    """What went wrong (RFC 9457). `budget-exceeded` and `queue-timeout` say more about it in further fields."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:tabkeeper:problem: and the kind.", examples=[URN + "queue-full"])
    title: str
    status: int
    detail: str = ""


class ProblemError(Exception):
    """A refusal with its kind.

    Args:
        kind: a key of `TITLES`.
        detail: for people: what happened and what to do.
        retry_after: seconds after which it may work.
        more: further fields of the document.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        retry_after: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or TITLES[kind][1])
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.more = more or {}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return TITLES[self.kind][0]

    def document(self) -> dict[str, Any]:
        """Return what is answered."""
        status, title = TITLES[self.kind]
        problem = Problem(type=URN + self.kind, title=title, status=status, detail=self.detail, **self.more)
        return problem.model_dump(mode="json")

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        found = {"Cache-Control": "no-store"}
        if self.retry_after is not None:
            found["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.kind in {"too-slow", "too-large"}:
            found["Connection"] = "close"  # the rest of the request is not read
        if self.kind == "unauthorized":
            found["WWW-Authenticate"] = 'Bearer realm="tabkeeper"'
        return found


def problem_of(error: Exception, clock: Clock) -> ProblemError:
    """Say an error of the pool as a refusal; those that nobody foresaw become "internal", without their words."""
    said = str(error)
    match error:
        case ProblemError():
            return error
        case QueueFullError():
            return ProblemError("queue-full", said, retry_after=5, more={"queued": error.queued})
        case QueueTimeoutError():
            more = {
                "waited_seconds": round(error.waited, 3),
                "position": error.position,
                "blocked_by": error.blocked_by,
            }
            return ProblemError("queue-timeout", said, retry_after=1, more=more)
        case BudgetExceededError():
            return _budget(error, clock.now())
        case LeaseLostError():
            return ProblemError("lease-over", said)
        case SessionInUseError():
            return ProblemError("session-in-use", said)
        case PoolClosedError():
            return ProblemError("closing", said, retry_after=10)
        case NoProxyError():
            return ProblemError("no-proxy", said, retry_after=10)
        case MissingKeyError() | ConfigError():
            return ProblemError("invalid", said)
        case SessionCreationError():
            return ProblemError("creation-failed", said, retry_after=10)
        case ProviderError():
            return ProblemError("provider-failed", said, retry_after=error.retry_after)
        case LedgerError():
            return ProblemError("unavailable", said, retry_after=10)
        case TabkeeperError():
            return ProblemError("unavailable", said)
        case ValueError() | TypeError():
            return ProblemError("invalid", said)
        case _:
            return ProblemError("internal", "see the service's log")


def _budget(error: BudgetExceededError, now: datetime) -> ProblemError:
    more = {
        "budget": error.budget,
        "limit": error.limit.text(),
        "spent": error.spent.text(),
        "held": error.held.text(),
        "needed": error.needed.text(),
        "resets_at": error.resets_at,
        "subject": error.subject,
        "on_exceed": error.on_exceed,
    }
    after = None if error.resets_at is None else (error.resets_at - now).total_seconds()
    return ProblemError("budget-exceeded", str(error), retry_after=after, more=more)

"""What the service refused, as the error that the pool raised there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tabkeeper.errors import (
    BudgetExceededError,
    ConfigError,
    LedgerUnavailableError,
    NoProxyError,
    PoolClosedError,
    PoolError,
    QueueFullError,
    QueueTimeoutError,
    SessionCreationError,
    SessionInUseError,
    TabkeeperError,
)
from tabkeeper.money import Money


class UnknownLeaseError(PoolError):
    """The service knows nothing of a lease: it was started anew, or the lease ended long ago."""


def error_of(problem: Mapping[str, Any], platform: str) -> TabkeeperError:
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
        case "not-found":
            return UnknownLeaseError(said)
        case _:
            return PoolError(said)

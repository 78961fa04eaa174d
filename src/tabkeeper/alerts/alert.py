"""An alert as people and programs see it: what happened, to what, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tabkeeper.config import Dollars
from tabkeeper.ledger.alerting import AlertEvent
from tabkeeper.money import Money
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.report import CostReport

Severity = Literal["info", "warning", "critical"]


class Alert(BaseModel):
    """One alert. Money is in dollars, as decimal text in JSON; `key` is the same however often it is delivered."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    key: str
    kind: str
    severity: Severity
    at: datetime
    title: str
    text: str
    budget: str | None = None
    share: float | None = None
    """The threshold that was reached, as a share of the limit."""
    amount: Dollars | None = None
    limit: Dollars | None = None
    session_id: str | None = None
    report: CostReport | None = None
    """Of a daily_report, as it was kept; hooks have it, and webhooks that ask for it."""

    def page(self) -> str | None:
        """Return the report that the alert carries as an HTML page, to be mailed or put somewhere; None without one."""
        return None if self.report is None else render_html(self.report)

    @classmethod
    def of(cls, event: AlertEvent) -> Alert:
        """Word an event of the ledger."""
        severity, title, words = _KINDS.get(event.kind, _OTHER)
        return cls(
            key=event.key,
            kind=event.kind,
            severity="critical" if event.share is not None and event.share >= 1 else severity,
            at=event.at,
            title=title or event.kind.replace("_", " ").capitalize(),
            text=words(event),
            budget=event.budget,
            share=event.share,
            amount=event.amount,
            limit=event.limit,
            session_id=event.session_id,
        )


def _threshold(event: AlertEvent) -> str:
    share = f"{(event.share or 0) * 100:.12g} %"
    how = "spent" if event.metric == "spent" else "spent or held for sessions that run"
    return f"budget {event.budget!r} has reached {share}: {event.amount} of {event.limit} is {how}"


def _denied(event: AlertEvent) -> str:
    return (
        f"budget {event.budget!r} of {event.limit} has refused a session that may cost {event.amount}; "
        "further refusals of this window are only counted"
    )


def _overrun(event: AlertEvent) -> str:
    said = event.detail or "a session cost more than was held for it"
    return f"session {event.session_id}: {said} ({event.amount})" if event.amount else said


def _estimate(event: AlertEvent) -> str:
    return (
        f"nobody saw the end of session {event.session_id}; it is counted with {event.amount or Money(0)}, "
        f"the most it can have cost{': ' + event.detail if event.detail else ''}"
    )


def _plain(event: AlertEvent) -> str:
    about = (
        f"session {event.session_id}: " if event.session_id and event.session_id not in event.detail else ""
    )
    return f"{about}{event.detail}" if event.detail else f"{about}{event.kind}"


_OTHER: tuple[Severity, str, Callable[[AlertEvent], str]] = ("warning", "", _plain)
_KINDS: Mapping[str, tuple[Severity, str, Callable[[AlertEvent], str]]] = {
    "threshold": ("warning", "Budget threshold reached", _threshold),
    "denied": ("critical", "Budget refuses sessions", _denied),
    "overrun": ("critical", "A session cost more than was held", _overrun),
    "estimate": ("warning", "A session was settled by estimate", _estimate),
    "release": ("critical", "A session is not confirmed closed", _plain),
    "stray": ("warning", "A session without an owner is ended", _plain),
    "drift": ("warning", "A provider contradicts itself", _plain),
    "reconciliation": ("warning", "A provider billed otherwise", _plain),
    "forecast": ("warning", "Forecast over budget", _plain),
    "creation_failures": ("critical", "Sessions cannot be created", _plain),
    "unhealthy": ("warning", "Many sessions are unhealthy", _plain),
    "queue_wait": ("warning", "Requests wait too long", _plain),
    "leak": ("warning", "A lease is not released", _plain),
    "daily_report": ("info", "Daily report", _plain),
    "test": ("info", "Test", _plain),
}

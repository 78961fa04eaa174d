"""The ledger's rules once more, as plain Python over dictionaries: slow, obvious, and written apart from it.

Prices here are whole cents for started minutes, so that nothing of the real pricing is borrowed.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

CENT = 10_000_000
FREE_MINUTES = 30
FEES = {"bb": 0, "fee": 3, "plan": 0}


def meter(provider, seconds):
    """Cents due at an age."""
    return FEES[provider] + max(1, -(-int(seconds * 1000) // 60_000))


@dataclass
class Window:
    budget: str
    start: datetime
    end: datetime
    held: int = 0
    spent: int = 0
    forced: int = 0
    limit: int = 0

    def figures(self):
        return (self.budget, int(self.start.timestamp() * 1_000_000), self.held, self.spent, self.forced)


@dataclass
class Budget:
    name: str
    period: str
    limit: int
    mode: str
    scope: tuple[str, str] | None = None
    live: dict = field(default_factory=dict)
    past: list = field(default_factory=list)

    def window(self, now):
        start, end = _bounds(self.period, now)
        return self.live.setdefault(start, Window(self.name, start, end, limit=self.limit))

    def windows(self):
        return [*self.live.values(), *self.past]

    def change(self, limit, mode, now):
        """A new version takes over the windows that are not over; the others stay as they are."""
        if (limit, mode) == (self.limit, self.mode):
            return
        self.limit, self.mode = limit, mode
        for start, window in list(self.live.items()):
            if window.end <= now:
                self.past.append(self.live.pop(start))
            else:
                window.limit = limit
                window.forced += max(0, window.held + window.spent - limit - window.forced)


def _bounds(period, now):
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return midnight, midnight + timedelta(days=1)
    if period == "month":
        first = midnight.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)
    return datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass
class Session:
    id: str
    platform: str
    provider: str
    tenant: str
    minutes: int
    held: int
    at: datetime
    windows: list
    state: str = "open"
    cost: int = 0
    usage: tuple | None = None
    settled: tuple | None = None
    """Usage of the first settlement; `usage` is the latest word."""
    free: int = 0
    leases: list = field(default_factory=list)


class Oracle:
    """What the ledger must answer, and what must be in its windows."""

    def __init__(self, budgets):
        self.budgets = {budget.name: budget for budget in budgets}
        self.sessions = {}
        self.free_used = {}

    def applicable(self, platform, tenant):
        values = {"platform": platform, "tenant": tenant}
        return [b for b in self.budgets.values() if b.scope is None or values[b.scope[0]] == b.scope[1]]

    def hold(self, session_id, platform, provider, tenant, minutes, now):
        """Return the names of the budgets that refuse; none means that it is held."""
        amount = meter(provider, minutes * 60) * CENT
        windows = [(budget, budget.window(now)) for budget in self.applicable(platform, tenant)]
        refusing = {b.name for b, w in windows if b.mode == "hard" and w.held + w.spent + amount > b.limit}
        if not refusing:
            for _, window in windows:
                window.held += amount
            chosen = [window for _, window in windows]
            self.sessions[session_id] = Session(
                session_id, platform, provider, tenant, minutes, amount, now, chosen
            )
        return refusing

    def settle(self, session, seconds, quality):
        """Book a usage and return its cost in nano-dollars."""
        cost = meter(session.provider, seconds) * CENT
        if session.provider == "plan":
            month = session.at.strftime("%Y-%m")
            minutes = meter("plan", seconds)
            # The meter of the allowance counts what is billed: whole started minutes.
            free = min(minutes, FREE_MINUTES - self.free_used.get(month, 0))
            self.free_used[month] = self.free_used.get(month, 0) + free
            session.free = free
            cost = (minutes - free) * CENT
        for window in session.windows:
            window.held -= session.held
            window.spent += cost
            window.forced += max(0, cost - session.held)
        session.state, session.cost, session.usage = "settled", cost, (seconds, quality)
        session.settled = session.usage
        return cost

    def adjust(self, session, seconds, quality):
        """Correct a settled session and return its cost; windows that cannot cover more are forced."""
        cost = meter(session.provider, seconds) * CENT
        if session.provider == "plan":
            month = session.at.strftime("%Y-%m")
            minutes = meter("plan", seconds)
            self.free_used[month] -= session.free
            session.free = min(minutes, FREE_MINUTES - self.free_used[month])
            self.free_used[month] += session.free
            cost = (minutes - session.free) * CENT
        more = cost - session.cost
        for window in session.windows:
            window.spent += more
            if more > 0:
                window.forced += max(0, window.held + window.spent - window.limit - window.forced)
        session.cost, session.usage = cost, (seconds, quality)
        return cost

    def orphan_seconds(self, session, now):
        return max(0.0, min((now - session.at).total_seconds(), session.minutes * 60))

    def void(self, session):
        for window in session.windows:
            window.held -= session.held
        session.state = "voided"

    def shares(self, session, seconds):
        """Cents of each lease and of idle time, by minutes begun."""
        shares, before = [], 0.0
        for start, end in session.leases:
            first, last = min(max(start, before), seconds), 0.0
            last = min(max(end, first), seconds)
            before = last
            born = meter(session.provider, 0) if not shares else 0
            shares.append(born + meter(session.provider, last) - meter(session.provider, first))
        return shares, meter(session.provider, seconds) - sum(shares)

    def figures(self):
        return sorted(w.figures() for budget in self.budgets.values() for w in budget.windows())

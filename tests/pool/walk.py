"""Random walks over a pool's board: clumsy callers, failing providers, whole seconds, and the judge beside every step.

`Walk` has one method per event; the choice of what an event is about is a number, so that Hypothesis and a plain
seeded generator can drive the same walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from types import ModuleType
from typing import Any, TypeVar

from tabkeeper.clock import VirtualClock
from tabkeeper.pool import board as board_module
from tabkeeper.pool import plan as plan_module
from tabkeeper.pool import view as view_module
from tabkeeper.pool.gaps import PastLease
from tabkeeper.pool.model import Action, Lane, Request, Rules, Session, State

from . import reference
from .builders import Table, a_view, platform_rules, pool_rules

T = TypeVar("T")

SHORT: dict[str, Any] = {
    "session_ttl": 40.0,
    "idle_timeout": 7.0,
    "lease_timeout": 15.0,
    "max_uses": 4,
    "stale_after": 5.0,
}
"""Times of a platform in which everything becomes due within a short walk."""

LONG = SHORT | {"idle_timeout": 20.0, "max_uses": 9}

WORLDS: dict[str, Rules] = {
    "the pool is the limit": pool_rules(
        {"shop": platform_rules("hosted", **SHORT), "mail": platform_rules("hosted", **SHORT)},
        max_sessions=3,
        aging=10.0,
        close_timeout=5.0,
        leak_after=6.0,
    ),
    "the pool is the limit of two providers": pool_rules(
        {
            "shop": platform_rules("hosted", **(SHORT | {"idle_timeout": 20.0})),
            "mail": platform_rules("local", **(SHORT | {"idle_timeout": 20.0})),
            "maps": platform_rules("local", "hosted", **SHORT),
        },
        max_sessions=4,
        close_timeout=5.0,
    ),
    "a platform is the limit": pool_rules(
        {
            "shop": platform_rules("hosted", "local", max_sessions=2, **SHORT),
            "mail": platform_rules("hosted", max_sessions=1, **SHORT),
        },
        max_sessions=6,
        close_timeout=3.0,
        owning_tenants=frozenset({"acme", "zorg"}),
    ),
    "a provider is the limit": pool_rules(
        {
            "shop": platform_rules("hosted", "local", **SHORT),
            "mail": platform_rules("local", "hosted", **SHORT),
            "maps": platform_rules("hosted", max_sessions=2, **SHORT),
        },
        max_sessions=8,
        provider_limits={"hosted": 2, "local": 1},
        close_timeout=4.0,
        owning_tenants=frozenset({"zorg"}),
    ),
    "tenants are the limit": pool_rules(
        {"shop": platform_rules("hosted", **SHORT), "mail": platform_rules("hosted", "local", **SHORT)},
        max_sessions=4,
        tenant_limits={"acme": 1, "zorg": 2},
        tenant_weights={"acme": 3, "beta": 2},
        close_timeout=5.0,
        leak_after=4.0,
    ),
    "everything at once": pool_rules(
        {
            "shop": platform_rules("hosted", "local", max_sessions=3, **SHORT),
            "mail": platform_rules("local", "hosted", max_sessions=2, **SHORT),
            "maps": platform_rules("local", max_sessions=2, **(SHORT | {"idle_timeout": 20.0})),
        },
        max_sessions=5,
        provider_limits={"hosted": 3, "local": 3},
        tenant_limits={"acme": 2, "zorg": 1, "beta": 3},
        tenant_weights={"zorg": 4},
        owning_tenants=frozenset({"zorg"}),
        aging=3.0,
        close_timeout=2.0,
        leak_after=5.0,
    ),
    "places go by value": pool_rules(
        {
            "shop": platform_rules("hosted", **(SHORT | {"idle_timeout": 20.0, "keep": "value"})),
            "mail": platform_rules("local", "hosted", **(SHORT | {"idle_timeout": 20.0})),
            "maps": platform_rules("hosted", "local", **(SHORT | {"keep": "always"})),
            "news": platform_rules("hosted", **(SHORT | {"keep": "never"})),
        },
        max_sessions=4,
        provider_limits={"local": 2},
        close_timeout=5.0,
        eviction="value",
        owning_tenants=frozenset({"zorg"}),
    ),
    "routes": pool_rules(
        {
            "shop": platform_rules(
                "local",
                "hosted",
                "strong",
                routing="escalate",
                escalate_after=1,
                escalate_hold=15.0,
                escalate_successes=1,
                **SHORT,
            ),
            "mail": platform_rules("hosted", "local", max_sessions=3, routing="cheapest", **SHORT),
        },
        max_sessions=6,
        provider_limits={"hosted": 3},
        provider_paces={"hosted": 20, "local": 30},
        breaker_failures={"hosted": 1, "local": 2},
        close_timeout=3.0,
    ),
    "one place": pool_rules(
        {"shop": platform_rules("hosted", **SHORT), "mail": platform_rules("hosted", **SHORT)},
        max_sessions=1,
        check_timeout=3.0,
        aging=2.0,
        close_timeout=6.0,
        owning_tenants=frozenset({"acme"}),
        tenant_limits={"beta": 1},
    ),
    "holders lose to the more important": pool_rules(
        {
            "shop": platform_rules("hosted", "local", "far", "near", evict_in_use=True, **LONG),
            "mail": platform_rules("near", "far", "local", evict_in_use=True, max_sessions=2, **LONG),
            "maps": platform_rules("far", "hosted", "near", **LONG),
        },
        max_sessions=3,
        aging=60.0,
        provider_limits={"local": 1},
        breaker_failures=dict.fromkeys(("hosted", "local", "far", "near"), 99),
        tenant_limits={"beta": 1},
        owning_tenants=frozenset({"zorg"}),
        close_timeout=3.0,
    ),
}

AHEAD = "sessions are created before anybody asks"
_READY = SHORT | {"idle_timeout": 1.0, "keep": "never", "prewarm": True, "cold_start": 5e8}
WALKED = WORLDS | {
    AHEAD: pool_rules(
        {
            "shop": platform_rules("hosted", "local", **_READY),
            "mail": platform_rules("local", "hosted", **(_READY | {"keep": "value"})),
            "maps": platform_rules("hosted", max_sessions=1, **_READY),
        },
        max_sessions=5,
        provider_limits={"local": 2},
        close_timeout=3.0,
        eviction="value",
        owning_tenants=frozenset({"zorg"}),
    )
}
"""With one more, which the mutants need not be walked through."""

TENANTS = ("default", "acme", "beta", "zorg")
PROXIES = (*[None] * 8, "p1", *[None] * 8, "p2")
IDENTITIES = (*[None] * 5, "ada", *[None] * 4, "bob")
TIMEOUTS = (0, 1, 2, 3, 5, 8, 13, 30)


def pick(items: Sequence[T], number: int) -> T:
    return items[number % len(items)]


class Walk:
    """One pool's life. `check` after every event; each event leaves its step booked unless it says otherwise."""

    def __init__(
        self,
        rules: Rules,
        *,
        plan: ModuleType = plan_module,
        view: ModuleType = view_module,
        board: ModuleType = board_module,
    ) -> None:
        self._plan = plan
        walk = self

        class JudgedBoard(board.MemoryBoard):  # type: ignore[name-defined,misc]
            """A board whose every plan is judged."""

            def _step(self) -> None:
                facts = walk.judge.before()
                seen = len(walk.table.log)
                super()._step()
                walk.judge.judge(facts, walk.table.log[seen:], walk.table.now)

        self.table = Table(
            rules,
            make_view=lambda given: a_view(given, view.View),
            make_board=JudgedBoard,
            clock=VirtualClock(),
        )
        self.judge = reference.Judge(self.table.view)
        self.requests: list[Request] = []
        self.old_leases: list[tuple[Session, int]] = []
        self.steps = 0
        for platform, its_rules in rules.platforms.items():
            if its_rules.prewarm:  # a walk is too short to learn when somebody comes
                begins = [-120.0 + 10 * n + n % 3 for n in range(12)]
                past = [PastLease(Lane(platform), at, at, at + 2) for at in begins]
                self.table.view.keeper.gaps.replay(past)

    # ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, number: int, priority: int) -> None:
        rules = self.table.rules
        tenant = pick(TENANTS, number)
        platform = pick(sorted(rules.platforms), number // 4)
        timeout = pick(TIMEOUTS, number // 16)
        view = self.table.view
        if all(other.tenant != tenant for other in view.requests.values()):
            self.judge.shares.came(tenant)
        lease_seconds = float(pick((15, 9, 3), number // 128))
        request = self.table.ask(
            platform,
            tenant=tenant,
            priority=priority,
            timeout=timeout,
            lease_seconds=lease_seconds,
            settle=False,
            identity=pick(IDENTITIES, number),
            proxy=pick(PROXIES, number),
            wants=pick(list(view.sessions), number // 5) if view.sessions and number % 5 == 0 else "",
        )
        self.requests.append(request)

    def withdraw(self, number: int) -> None:
        """Somebody leaves; now and then somebody who has left already."""
        waiting = [r for r in self.requests if r.waiting]
        if number % 8 == 0 and self.requests:
            self.table.withdraw(pick(self.requests, number // 8))
        elif waiting:
            self.table.withdraw(pick(waiting, number))

    def creation_ends(self, number: int, how: int) -> None:
        if not self.table.creating:
            return
        session = pick(list(self.table.creating.values()), number)
        meant = session.covers if session.state is State.CREATING else None
        failures = session.covers.failures if session.covers else 0
        match how % 8:
            case 0:
                waiter = session.covers
                kind = pick(("failure", "failure", "rate", "capacity", "lasting"), number // 4)
                told = self.table.failed(session, wait=float(number % 4), kind=kind)
                assert told is meant, "somebody else is blamed"
                if waiter is not None:
                    assert waiter.failures == failures + (waiter is meant)
            case 1 | 2:
                effect = pick(("wait", "cheaper", "refuse"), number)
                fits = frozenset(pick(sorted(self.table.view.providers), number // 3).split())
                told = self.table.denied(session, wait=float(1 + number % 6), effect=effect, fits=fits)
                assert told is meant, "somebody else is refused"
                if told is not None and effect == "refuse":
                    self.table.withdraw(told)  # as the pool does, with an error
            case 3:
                self.table.board.held(session, float(2 + number % 20))
                self.table.ready(session)
            case _:
                self.table.ready(session)

    def release(self, number: int, how: int) -> None:
        if not self.table.lent:
            return
        session = self.table.view.sessions[pick(list(self.table.lent), number)]
        _, use = self.table.lent[session.id]
        released = self.table.release(session, keep=how % 4 != 0, check=how % 8 == 5, success=how % 8 > 2)
        assert released, "a holder's own release was refused"
        self.old_leases.append((session, use))

    def release_late(self, number: int) -> None:
        """Release what was released or reclaimed before."""
        if self.old_leases:
            session, use = pick(self.old_leases, number)
            before = reference.fingerprint(self.table.view)
            assert not self.table.board.released(session, use, keep=True, reason="late")
            assert reference.fingerprint(self.table.view) == before, "a late release changed something"

    def goes_wrong(self, number: int, how: int) -> None:
        """A session is found dead, or somebody closes it, whatever its state."""
        sessions = list(self.table.view.sessions.values())
        if not sessions:
            return
        session = pick(sessions, number)
        ending = session.state in {State.DRAINING, State.LOST}
        told = self.table.board.lost if how % 2 else self.table.board.end
        assert told(session, "wrong") is not ending
        # If it is being created, its creation ends later all the same, one way or the other.

    def shared(self, number: int, priority: int) -> None:
        """Somebody more important shares a lease."""
        if self.table.lent:
            session = self.table.view.sessions[pick(list(self.table.lent), number)]
            self.table.view.share(session, priority)

    def doubted(self, number: int) -> None:
        """Somebody doubts that a session is well; only an idle one can be taken out for that."""
        sessions = list(self.table.view.sessions.values())
        if sessions:
            session = pick(sessions, number)
            idle = session.state is State.IDLE
            assert self.table.board.doubt(session) is idle
            if idle:
                self.table.checking[session.id] = session

    def check_ends(self, number: int, how: int) -> None:
        """A check ends; perhaps after its session did."""
        if self.table.checking:
            session = pick(list(self.table.checking.values()), number)
            self.table.checked(session, ok=how % 3 != 0)

    def closed(self, number: int) -> None:
        """An end is confirmed; perhaps long after its place was given up."""
        ends = [*self.table.closing.values(), *self.table.given_up.values()]
        if ends:
            self.table.closed(pick(ends, number))

    def money_freed(self) -> None:
        self.table.board.money_freed()

    def drain(self) -> None:
        self.table.board.drain()

    def pass_time(self, seconds: float) -> None:
        """Let time pass second by second; what must hold at every instant is looked at on each, and in between."""
        for _ in range(int(seconds * 2)):
            self.table.pass_time(0.5)
            self.check()

    def slip(self, seconds: float) -> None:
        """The loop is late: time passes and no timer rings; what comes next meets all that is due."""
        self.table.clock.advance(seconds)

    def settle(self) -> None:
        self.table.loop.settle()
        self.check()

    # ── judgement ──────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        self.table.loop.settle()
        view, now = self.table.view, self.table.now
        reference.check_all(view, now)
        lent = {
            (s.id, s.covers.id, s.uses)
            for s in view.sessions.values()
            if s.state is State.LEASED and s.covers
        }
        ours = {(which, request.id, use) for which, (request, use) in self.table.lent.items()}
        assert lent == ours, f"the view has lent {lent}, we hold {ours}"
        for request in self.requests:
            fate = self.table.fate.get(request.id)
            assert (fate is None) == request.waiting, f"{request}: {fate}"
            assert request.waiting == (request.id in view.requests), f"{request} is lost"
        if self.steps % 2:  # not always: an extra plan must not be what keeps the pool going
            self.check_still(now, "is not stable")
            wake = self._plan.wake_at(view)
            assert wake > now, f"woken at {wake}, which is not after {now}"
            for at in (now + 0.5, now + 1, (now + wake) / 2, wake - 0.25):
                if now < at < wake and at < float("inf"):
                    self.check_still(at, f"is not punctual: wakes at {wake}, but at {at}")
        if len(self.requests) > 64:
            self.requests = [r for r in self.requests if r.waiting] + self.requests[-8:]
            self.old_leases = self.old_leases[-32:]
        self.steps += 1

    def check_still(self, at: float, what: str) -> None:
        view = self.table.view
        before = reference.fingerprint(view)
        actions: list[Action] = self._plan.plan(view, at)
        assert not actions, f"the plan {what}: {actions}"
        assert reference.fingerprint(view) == before, f"the plan {what}: the view changed without an action"

    # ── a plain seeded walk ────────────────────────────────────────────────────────────────────────────────────────

    def stroll(self, chance: Random, steps: int) -> None:
        """Make `steps` random steps."""
        big = 1 << 16
        draw = chance.randrange
        long_held = self.table.view.takes_in_use  # so that holders have something to lose
        quiet = any(
            rules.prewarm for rules in self.table.rules.platforms.values()
        )  # so that lanes fall empty
        events: list[tuple[int, Callable[[], object]]] = [
            (8 if quiet else 30, lambda: self.ask(draw(big), draw(-1, 4))),
            (4, lambda: self.withdraw(draw(big))),
            (60 if long_held else 24, lambda: self.creation_ends(draw(big), draw(big))),
            (4 if long_held else 22, lambda: self.release(draw(big), draw(big))),
            (3, lambda: self.release_late(draw(big))),
            (3, lambda: self.goes_wrong(draw(big), draw(big))),
            (16, lambda: self.closed(draw(big))),
            (2, lambda: self.doubted(draw(big))),
            (6, lambda: self.check_ends(draw(big), draw(big))),
            (16, lambda: self.pass_time(draw(1, 4))),
            (2, lambda: self.pass_time(draw(4, 12))),
            (3, lambda: self.slip(draw(1, 4))),
            (4, lambda: (self.ask(draw(big), draw(-1, 4)), self.slip(draw(1, 8)))),
            (2, self.money_freed),
        ]
        if long_held:
            events.append((1, lambda: self.shared(draw(big), draw(-1, 4))))
        kinds = [event for _, event in events]
        weights = [weight for weight, _ in events]
        drained_after = steps - draw(60)
        for step, event in enumerate(chance.choices(kinds, weights, k=steps)):
            if step == drained_after:
                self.drain()
            event()
            if draw(4):
                self.settle()  # else the next event finds the step still booked
        self.settle()

"""Are the walks of `test_plan_walk.py` sharp? Each mutant has one line of the planner wrong, and must be caught.

A mutant is a copy of the planner's modules, loaded under other names with one text replaced; the values of `model.py`
are shared. Faults that only the order of a long queue shows are judged in `test_queue.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, count, product
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from tests.conftest import PROOF

from tabkeeper import pool

from . import test_plan as stories
from .builders import Table, a_view
from .walk import WORLDS, Walk

ROOM = Path(pool.__file__).parent
MODULES = ("queue", "keep", "lanes", "timers", "view", "plan", "referee", "board")

MUTANTS: dict[str, tuple[str, str, str]] = {
    # queue.py
    "more important goes later": (
        "queue",
        "self._aging) - request.priority",
        "self._aging) + request.priority",
    ),
    "the oldest goes last": ("queue", "entry = (request.arrived_at,", "entry = (-request.arrived_at,"),
    "shares are not counted": ("queue", "self._tags[tenant] = self._now + ", "self._tags[tenant] = "),
    "weights are ignored": ("queue", "// self._weights.get(tenant, 1)", "// 1"),
    "credit for absence": ("queue", "self._tags[tenant] = self._now\n", "pass\n"),
    "skipped tenants are forgotten": (
        "queue",
        "heappush(step.tenants, entry)\n        return",
        "pass\n        return",
    ),
    # plan.py: identities
    "an identity has two sessions": ("plan", "lane.key.identity is not None and lane.places:", "False:"),
    "anybody's end makes room for an identity": ("plan", "session.lane == lane.key)", "True)"),
    "who comes back gets any session": ("plan", "lane.idle.get(request.wants) or ", ""),
    "lanes of identities are kept for ever": ("lanes", "del self.lanes[lane.key]", "return"),
    # by value
    "the most valuable place goes": ("plan", "return min(weighed", "return max(weighed"),
    # in use: `IN_USE`
    "holders as important lose theirs": (
        "plan",
        "if priority >= request.priority:",
        "if priority > request.priority:",
    ),
    "the most important holder loses": (
        "plan",
        "sorted(view.takeable)",
        "sorted(view.takeable, reverse=True)",
    ),
    "the latest holder loses": (
        "plan",
        "in view.takeable[priority].values():",
        "in reversed(view.takeable[priority].values()):",
    ),
    "nobody is taken from": ("plan", "return _taken_in_use(view, lane, fulls, request)", "return None"),
    "an identity takes from itself": (
        "plan",
        "lane.key.identity is not None and session.lane == lane.key:",
        "False:",
    ),
    "anybody's session is taken": ("view", "if self.lane(session.lane).rules.evict_in_use:", "if True:"),
    "lost leases are still to take": (
        "view",
        "self._not_takeable(session, holder)\n        session",
        "session",
    ),
    "waiting does not protect a holder": (
        "view",
        "holder.priority + int((session.leased_at - holder.arrived_at) // self.rules.aging)",
        "holder.priority",
    ),
    "whose turn it was loses to who waited beside it": (
        "plan",
        "if behind and request.arrived_at <= session.leased_at:",
        "if False:",
    ),
    "what a lost lease makes room for waits": (
        "plan",
        "while view.takes_in_use and view.to_grant:",
        "while False:",
    ),
    # view.py
    "tenant limit off by one": (
        "lanes",
        "self.leased_by_tenant[tenant] >= limit",
        "self.leased_by_tenant[tenant] > limit",
    ),
    "promises are not counted": ("view", "self.promised_by_tenant[request.tenant] += 1", "pass"),
    "a lease's end is not counted": ("view", "self.leased_by_tenant[holder.tenant] -= 1", "pass"),
    "tenants stay full": ("view", "self.full_tenants.discard(holder.tenant)", "pass"),
    "held-back lanes stay stuck": ("view", "self.to_grant |= self.stuck", "pass"),
    "a freed creation serves nobody": (
        "view",
        "self.cover(best, session)",
        "lane.spare[session.id] = session",
    ),
    "a withdrawn request keeps its creation": (
        "view",
        "if request.covered_by is not None:\n            self.uncover(request.covered_by)",
        "pass",
    ),
    "the place of a closed session is not free": (
        "view",
        "self.providers[session.provider].sessions -= 1",
        "pass",
    ),
    "the first used is reused": (
        "plan",
        "islice(reversed(lane.idle), _NEAR)",
        "islice(lane.idle, _NEAR)",
    ),
    "stale sessions are lent unchecked": (
        "plan",
        "            if session.stale_at <= now:",
        "            if False:",
    ),
    "a check may take for ever": ("timers", "return thing.check_by", "return NEVER"),
    "leases outlive the money": (
        "view",
        "min(now + request.lease_seconds, session.dies_at)",
        "now + request.lease_seconds",
    ),
    "no timer for ending sessions": (
        "timers",
        "if thing.state in ENDING:\n            return thing.close_by",
        "pass",
    ),
    "no timer for idle sessions": (
        "timers",
        "return min(thing.keep_until, thing.fresh_until, thing.stale_at)",
        "return min(thing.fresh_until, thing.stale_at)",
    ),
    "an earlier timer is not set": ("timers", "if at >= thing.timer_at:", "if thing.timer_at < NEVER:"),
    "timers sleep over what is due": (
        "timers",
        "while self._timers and self._timers[0][0] <= now:",
        "while self._timers and self._timers[0][0] < now:",
    ),
    "parked lanes stay parked": (
        "view",
        "            self._unpark(session.lane.platform)",
        "            pass",
    ),
    "a passed-over lane is forgotten": (
        "lanes",
        "            self._offer_head(lane)\n\n    def park",
        "            pass\n\n    def park",
    ),
    "a lane's later head forgets the first": (
        "lanes",
        "            if promised:\n                aside.add",
        "            if False:\n                aside.add",
    ),
    "a waiting request does not see a spare creation": (
        "view",
        "if lane.spare and not self.tenant_promised(request.tenant):",
        "if False:",
    ),
    "a spare creation is promised past the limit": (
        "view",
        "if lane.spare and not self.tenant_promised(request.tenant):",
        "if lane.spare:",
    ),
    # plan.py
    "pool limit off by one": (
        "plan",
        "if len(view.sessions) >= view.rules.max_sessions:\n        full",
        "if len(view.sessions) > view.rules.max_sessions:\n        full",
    ),
    "platform limit off by one": (
        "plan",
        "if view.by_platform[lane.key.platform] >= lane.rules.max_sessions:\n        full",
        "if view.by_platform[lane.key.platform] > lane.rules.max_sessions:\n        full",
    ),
    "provider limit ignored": (
        "plan",
        "if provider.sessions >= provider.limit:\n        full",
        "if False:\n        full",
    ),
    "the last provider is first": (
        "plan",
        "chosen = next((p for p in providers if",
        "chosen = next((p for p in reversed(providers) if",
    ),
    "failing providers are asked": (
        "plan",
        "if view.providers[name].retry_at <= now and",
        "if",
    ),
    "an empty budget is ignored": ("plan", "if now < lane.wants_at:\n        return []", "pass"),
    "fallback goes to paid providers": (
        "plan",
        "and (now >= lane.paid_from or name in lane.fits)",
        "",
    ),
    "idle sessions close before anybody picks them": (
        "plan",
        "elif thing.state is State.IDLE and thing.fresh_until > now:",
        "elif False:",
    ),
    "the shortest idle is evicted": (
        "plan",
        "idle = view.idle.values()",
        "idle = reversed(view.idle.values())",
    ),
    "evicts where it makes no room": (
        "plan",
        '"provider" not in full or session.provider == provider.name',
        "True",
    ),
    "nobody is evicted": ("plan", "        if found is not None:\n            return found", "        pass"),
    "evicts although places become free": (
        "plan",
        "for provider, full in fulls):\n            return session",
        "for provider, full in fulls):\n            break",
    ),
    "rivals never come": ("plan", "if rival is not None:", "if False:"),
    "rivals of the same step come": (
        "plan",
        "if lane.waiting.step_of(rival) >= step:",
        "if lane.waiting.step_of(rival) > step:",
    ),
    "rivals evict beside room": ("plan", "all(_obstacles(view, other, p) for p in providers) and any", "any"),
    "a step ahead evicts without money": ("plan", " if now >= other.poor_until else []", ""),
    "evicts without money": ("plan", "if now < lane.poor_until:", "if False:"),
    "the impatient begin creations": ("plan", "view.lane(request.lane).uncovered.discard(request)", "pass"),
    "the impatient wait for a second plan": (
        "plan",
        "late += (request for",
        "late += (request for _ in () for",
    ),
    "lanes held back are not noted": ("plan", "view.stuck.update(", "set().update("),
    "platforms are parked while a provider is away": (
        "plan",
        "elif full and all_asked:",
        "elif full:",
    ),
    "nobody hears that a full provider has room": (
        "view",
        "        if self._full_for:\n            self._unpark_at(session.provider)\n",
        "",
    ),
    "nobody hears that a full provider takes more": (
        "view",
        "        self._unpark_at(provider.name)\n",
        "",
    ),
    "places are kept though there is room": ("plan", "    _leave_places_not_needed(view, now)\n", ""),
    "drained pools grant": (
        "plan",
        "    if not view.draining:\n        _grant",
        "    if True:\n        _grant",
    ),
    "leases are never reclaimed": ("plan", "session.lease_ends <= now:", "False:"),
    # board.py
    "a late release counts": (
        "referee",
        "session.state is not State.LEASED or session.uses != use",
        "session.state is not State.LEASED",
    ),
    "used-up sessions are kept": ("referee", "not keep or session.uses >= rules.max_uses or", "not keep or"),
    "a place's waiter is blamed": (
        "referee",
        "session.covers if session.state is State.CREATING else None",
        "session.covers",
    ),
    "no wake after a failure": (
        "view",
        "if now < provider.retry_at < NEVER:\n            self.wake_at_least(provider.retry_at)",
        "pass",
    ),
    "no wake to try one session more": ("view", "self.wake_at_least(gate.ceiling.raise_at)", "pass"),
    "learnt limits are never tried again": ("plan", "view.raise_limits(now)", "pass"),
    "what providers teach is not taken over": ("view", "provider.limit = gate.ceiling.limit\n", "pass\n"),
    "two are tried at once": ("view", "provider.gate.began(session.id, session.created_at)", "pass"),
    "who was tried in vain is tried for ever": ("view", "provider.gate.ended(session.id)", "pass"),
    "routes are ignored": (
        "plan",
        "in view.route(lane.key.platform, now)",
        "in lane.rules.providers",
    ),
    "no wake when the budget resets": ("referee", "self.view.wake_at_least(until)", "pass"),
}

BY_STORIES = {
    "waiting does not protect a holder",
    "the latest holder loses",
    "what a lost lease makes room for waits",
    "an identity takes from itself",
    "the most valuable place goes",
    "used-up sessions are kept",
    "who comes back gets any session",
    "held-back lanes stay stuck",
    "lanes held back are not noted",
    "a lane's later head forgets the first",
    "rivals evict beside room",
    "a step ahead evicts without money",
    "a spare creation is promised past the limit",
    "platforms are parked while a provider is away",
}
"""Rare faults of order and thrift: the walks miss them, a story in `test_plan.py` tells them."""

MET = {
    "the oldest goes last": (0, "tenants are the limit"),
    "shares are not counted": (0, "tenants are the limit"),
    "weights are ignored": (10, "everything at once"),
    "credit for absence": (3, "a platform is the limit"),
    "skipped tenants are forgotten": (0, "everything at once"),
    "an identity has two sessions": (0, "a provider is the limit"),
    "anybody's end makes room for an identity": (0, "places go by value"),
    "holders as important lose theirs": (6, "holders lose to the more important"),
    "whose turn it was loses to who waited beside it": (10, "holders lose to the more important"),
    "tenant limit off by one": (0, "holders lose to the more important"),
    "tenants stay full": (0, "holders lose to the more important"),
    "the first used is reused": (9, "tenants are the limit"),
    "a check may take for ever": (0, "a provider is the limit"),
    "leases outlive the money": (0, "a provider is the limit"),
    "parked lanes stay parked": (0, "a platform is the limit"),
    "platform limit off by one": (0, "a platform is the limit"),
    "provider limit ignored": (0, "a provider is the limit"),
    "fallback goes to paid providers": (0, "everything at once"),
    "the shortest idle is evicted": (5, "everything at once"),
    "evicts where it makes no room": (0, "places go by value"),
    "rivals of the same step come": (0, "a provider is the limit"),
    "evicts without money": (6, "a platform is the limit"),
    "the impatient begin creations": (3, "the pool is the limit of two providers"),
    "nobody hears that a full provider has room": (0, "a provider is the limit"),
    "nobody hears that a full provider takes more": (6, "the pool is the limit of two providers"),
    "drained pools grant": (0, "tenants are the limit"),
    "a late release counts": (4, "holders lose to the more important"),
    "a place's waiter is blamed": (5, "places go by value"),
    "no wake to try one session more": (8, "tenants are the limit"),
    "learnt limits are never tried again": (3, "routes"),
    "who was tried in vain is tried for ever": (0, "holders lose to the more important"),
    "routes are ignored": (0, "routes"),
}
"""The seed and the world of a walk that meets the fault, where trying them all in order would take long.

If the walks or the planner change and it does not any more, the others are tried.
"""

IN_USE = {
    "holders as important lose theirs",
    "the most important holder loses",
    "nobody is taken from",
    "anybody's session is taken",
    "lost leases are still to take",
    "whose turn it was loses to who waited beside it",
}
"""Faults that only a world in which holders may lose their sessions shows; the others are walked for nothing."""
THEIR_WORLD = "holders lose to the more important"

_numbers = count()


@contextmanager
def planner_with(file: str, old: str, new: str) -> Iterator[dict[str, ModuleType]]:
    """Load the planner's modules anew, with one text replaced in one of them."""
    family = f"mutant{next(_numbers)}"
    made: dict[str, ModuleType] = {}
    try:
        for name in MODULES:
            text = (ROOM / f"{name}.py").read_text()
            if name == file:
                assert text.count(old) == 1, (
                    f"the mutant's text occurs {text.count(old)} times in {file}.py: {old!r}"
                )
                text = text.replace(old, new)
            for other in MODULES:
                text = text.replace(f"from tabkeeper.pool.{other} import", f"from {family}_{other} import")
            module = ModuleType(f"{family}_{name}")
            sys.modules[module.__name__] = made[name] = module
            exec(compile(text, module.__name__, "exec"), module.__dict__)
        yield made
    finally:
        for module in made.values():
            sys.modules.pop(module.__name__, None)


def looks_until_caught(
    made: dict[str, ModuleType], walks: Iterable[tuple[int, str]], steps: int = 250
) -> int | None:
    """Walk until something is caught; None if nothing is."""
    looks = 0
    for seed, world in walks:
        walk = Walk(WORLDS[world], plan=made["plan"], view=made["view"], board=made["board"])
        try:
            walk.stroll(Random(f"mutant {world} {seed}"), steps)
        except Exception:
            return looks + walk.steps + 1
        looks += walk.steps
    return None


def stories_that_fail(made: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tell `test_plan.py` again with these modules; return what does not come out any more."""
    monkeypatch.setattr(
        stories,
        "Table",
        partial(
            Table,
            make_view=lambda given: a_view(given, made["view"].View),
            make_board=made["board"].MemoryBoard,
        ),
    )
    failed = []
    for name, story in vars(stories).items():
        if name.startswith("test_") and not hasattr(story, "pytestmark"):
            try:
                story()
            except Exception:
                failed.append(name)
    return failed


def test_the_planner_as_it_is_passes(monkeypatch: pytest.MonkeyPatch):
    """Else each mutant would be caught for nothing."""
    walks = {*product([0, 1] if PROOF else [0], WORLDS), *MET.values()}
    with planner_with("plan", "def plan(", "def plan(") as made:
        assert looks_until_caught(made, sorted(walks)) is None
        assert stories_that_fail(made, monkeypatch) == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planner_with_this_fault_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch):
    with planner_with(*MUTANTS[mutant]) as made:
        if mutant in BY_STORIES:
            assert stories_that_fail(made, monkeypatch), f"no story tells of it: {mutant}"
        else:
            all_of_them = product(range(12), [THEIR_WORLD] if mutant in IN_USE else WORLDS)
            walks = chain([MET[mutant]] if mutant in MET else [], all_of_them)
            assert looks_until_caught(made, walks), f"nobody noticed: {mutant}"

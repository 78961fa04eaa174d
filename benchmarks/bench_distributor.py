"""How long it takes to match 10,000 targets with 200 sessions, and what a greedy choice costs instead.

What makes it hard is how much sites and sessions differ: by what they block, by what a page takes, by price. All
sites here differ in all of these.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tabkeeper.sites.distributor import Free, Pair, Terms, Waiting, match, may_meet

TARGETS, SESSIONS, ROUNDS = 10_000, 200, 7
CASES: dict[str, dict[str, Any]] = {
    "20 sites": {"sites": 20},
    "100 sites": {"sites": 100},
    "1,000 sites": {"sites": 1_000},
    "1,000 sites, each blocks half": {"sites": 1_000, "blocked": 0.5},
    "1,000 sites, one session each": {"sites": 1_000, "room": 1},
    "1,000 sites, nothing known of their pages": {"sites": 1_000, "known": False},
    "1,000 sites, 200 prices": {"sites": 1_000, "prices": 200},
    "100 sites, two sessions each, 200 prices": {"sites": 100, "room": 2, "prices": 200},
}


def crowd(
    seed: int, *, sites: int, blocked: float = 0.05, prices: int = 4, room: int = 25, known: bool = True
) -> tuple[list[Waiting], list[Free], dict[str, Terms]]:
    """Targets, sessions behind a proxy each, and sites; every 500th target has failed on a proxy before."""
    chance = Random(seed)
    proxies = [f"p{n}" for n in range(SESSIONS)]
    terms = {
        f"site{n}": Terms(
            room=room,
            blocked=frozenset(p for p in proxies if chance.random() < blocked),
            page_ms=chance.randrange(1_000, 9_000) if known else 0,
            page_bytes=chance.randrange(100_000, 3_000_000) if known else 0,
        )
        for n in range(sites)
    }
    sessions = [
        Free(id=f"s{n}", proxy=proxies[n], rate=60_000_000, price_per_gb=500_000_000 * (1 + n % prices))
        for n in range(SESSIONS)
    ]
    targets = [
        Waiting(
            id=n,
            site=f"site{chance.randrange(sites)}",
            avoid=frozenset({chance.choice(proxies)}) if n % 500 == 0 else frozenset(),
        )
        for n in range(TARGETS)
    ]
    return targets, sessions, terms


def greedy(targets: Sequence[Waiting], sessions: Sequence[Free], sites: Mapping[str, Terms]) -> list[Pair]:
    """The control: the oldest target takes the cheapest session that is left."""
    left, pairs = list(sessions), []
    room = {name: site.room for name, site in sites.items()}
    line = deque(sorted(targets, key=lambda one: one.id))
    while line and left:
        target = line.popleft()
        site = sites[target.site]
        fits = [one for one in left if may_meet(target, one, site)] if room[target.site] else []
        if fits:
            chosen = min(fits, key=lambda one: (site.cost(one), one.id))
            room[target.site] -= 1
            left.remove(chosen)
            pairs.append(Pair(target.id, chosen.id))
    return pairs


def run() -> dict[str, Any]:
    """Match each crowd some times, on this thread's own clock."""
    return {name: _case(case) for name, case in CASES.items()}


def _case(case: Mapping[str, Any]) -> dict[str, Any]:
    targets, sessions, sites = crowd(1, **case)
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        pairs = match(targets, sessions, sites)
        times.append(time.thread_time() - began)
    by_target, by_session = {one.id: one for one in targets}, {one.id: one for one in sessions}

    def cost(found: Sequence[Pair]) -> str:
        nanos = sum(sites[by_target[p.target].site].cost(by_session[p.session]) for p in found)
        return f"${nanos / 1e9:.6f}"

    simple = greedy(targets, sessions, sites)
    return {
        "median_ms": round(sorted(times)[ROUNDS // 2] * 1e3, 1),
        "least_ms": round(min(times) * 1e3, 1),
        "pairs": len(pairs),
        "cost": cost(pairs),
        "greedy_pairs": len(simple),
        "greedy_cost": cost(simple),
    }

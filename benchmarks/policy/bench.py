"""Every rule on every trace and rate card: what it costs beside the best possible, as figures and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from time import process_time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.policy.cards import CASES, Case
from benchmarks.policy.goals import FEE, goals_of
from benchmarks.policy.replay import Outcome, Replay, Rule
from benchmarks.policy.rules import ONE_PER_TASK, OURS, READY, RULES
from benchmarks.policy.traces import (
    HERE,
    OPTIMUM_AT_PEAK,
    Best,
    Task,
    bounds,
    bursts,
    hindsight,
    optimum,
    peak_demand,
    read,
)

NOT_COPIED = ("lcg11d", "ipsc92d")
"""Traces without a formal licence; see the traces' README."""

SHORT = 20_000
"""Tasks of a trace on which also prewarming is tried; longer ones take minutes for that."""


def shipped() -> dict[str, list[Task]]:
    """The traces that can be replayed without a file."""
    return {"azure8h": read(HERE / "azure8h.csv.gz"), "bursts": bursts()}


def play(tasks: Sequence[Task], rule: Rule, case: Case) -> Outcome:
    """Replay one rule, and take its processor time."""
    places = ceil(rule.capacity * peak_demand(tasks)) if rule.capacity is not None else None
    begun = process_time()
    outcome = Replay(list(tasks), rule, case, places=places).run()
    return replace(outcome, seconds=process_time() - begun)


def best_of(name: str, tasks: Sequence[Task], case: Case) -> Best | None:
    """What no rule can beat, as far as it is known."""
    if case.overhead is not None:
        return optimum(tasks, case.overhead, case.per_second)
    if known := bounds(name, len(tasks)).get(case.name):
        return Best(known[0], exact=known[1] == "exact", reuse=None)
    return None


def matrix(name: str, tasks: Sequence[Task], cases: Iterable[Case]) -> dict[str, Any]:
    """The figures of one trace: by card, by rule."""
    by_card: dict[str, Any] = {}
    once: dict[str, Outcome] = {}
    for case in cases:
        rows = {}
        outcomes = {}
        for rule in RULES:
            if rule.needs_prices:
                outcomes[rule.name] = play(tasks, rule, case)
            else:
                if rule.name not in once:
                    once[rule.name] = play(tasks, rule, case)
                outcomes[rule.name] = once[rule.name]
        single = outcomes[ONE_PER_TASK].cost(case)
        best = best_of(name, tasks, case)
        for rule_name, outcome in outcomes.items():
            cost = outcome.cost(case)
            rows[rule_name] = {
                "dollars": round(cost, 3),
                "ratio": round(cost / best.dollars, 3) if best else None,
                "saving": round(1 - cost / single, 4),
                "reuse": round(outcome.reuse, 4),
                "cold_starts": outcome.sessions,
                "peak_sessions": outcome.peak,
                "mean_life_s": round(outcome.mean_life),
                "replay_s": round(outcome.seconds, 2),
            }
        by_card[case.name] = {
            "best": {
                "dollars": round(best.dollars, 3),
                "kind": "optimum" if best.exact else "lower bound",
                "saving": round(1 - best.dollars / single, 4),
                "reuse": None if best.reuse is None else round(best.reuse, 4),
                "hindsight": _hindsight(tasks, case, best),
            }
            if best
            else None,
            "rules": rows,
        }
    found = {
        "tasks": len(tasks),
        "keys": len({task.key for task in tasks}),
        "peak_demand": peak_demand(tasks),
        "cards": by_card,
        "ready": ready(name, tasks) if FEE in by_card and len(tasks) <= SHORT else {},
    }
    if FEE in by_card and bounds(name, len(tasks)):
        found["goals"] = [goal._asdict() for goal in goals_of(name, by_card, _crowded(name, tasks))]
    return found


def ready(name: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """What it costs that more tasks find a session ready: sessions kept longer, or created before anybody asks."""
    case = CASES[FEE]
    best = best_of(name, tasks, case)
    assert best is not None
    rows = {}
    for rule in READY:
        outcome = play(tasks, rule, case)
        cost = outcome.cost(case)
        rows[rule.name] = {
            "dollars": round(cost, 3),
            "ratio": round(cost / best.dollars, 3),
            "warm": round(outcome.warm, 4),
            "cold_starts": outcome.cold,
            "in_vain": outcome.in_vain,
        }
    return rows


def _crowded(name: str, tasks: Sequence[Task]) -> float | None:
    """Cost beside the optimum where there are no more places than tasks at once, where that optimum is known."""
    known = OPTIMUM_AT_PEAK.get(name)
    if known is None:
        return None
    rule = replace(next(rule for rule in RULES if rule.name == OURS), capacity=1.0)
    return play(tasks, rule, CASES[FEE]).cost(CASES[FEE]) / known


def _hindsight(tasks: Sequence[Task], case: Case, best: Best) -> float | None:
    """What the best waiting time for each key and level costs beside the best possible, where that is known."""
    if case.overhead is None:
        return None
    return round(hindsight(tasks, case.overhead, case.per_second) / best.dollars, 3)


def run(files: Sequence[Path] = (), cards: Sequence[str] = ()) -> dict[str, Any]:
    """Replay the files, or the traces at hand, on the named cards, or all."""
    traces = {file.name.split(".")[0]: read(file) for file in files} or shipped()
    cases = [CASES[card] for card in cards or CASES]
    return {name: matrix(name, tasks, cases) for name, tasks in traces.items()}


def show(figures: dict[str, Any], console: Console) -> None:
    """Print a table for each trace and card."""
    for name, trace in figures.items():
        for card, found in trace["cards"].items():
            best = found["best"]
            title = f"{name} ({trace['tasks']:,} tasks) · {card}"
            table = Table(title=title, title_justify="left")
            table.add_column("rule")
            columns = ("cost", "ratio", "saving", "reuse", "cold starts", "peak", "mean life", "replay")
            for column in columns:
                table.add_column(column, justify="right")
            for rule, row in found["rules"].items():
                table.add_row(
                    rule,
                    f"${row['dollars']:.3f}",
                    "?" if row["ratio"] is None else f"{row['ratio']:.3f}",
                    f"{row['saving']:.1%}",
                    f"{row['reuse']:.1%}",
                    str(row["cold_starts"]),
                    str(row["peak_sessions"]),
                    f"{row['mean_life_s']} s",
                    f"{row['replay_s']:.1f} s",
                )
            if best:
                reuse = "?" if best["reuse"] is None else f"{best['reuse']:.1%}"
                cells = (f"${best['dollars']:.3f}", "1.000", f"{best['saving']:.1%}", reuse)
                table.add_row(best["kind"], *cells, style="bold")
                if best.get("hindsight"):
                    table.add_row("best times, in hindsight", "", f"{best['hindsight']:.3f}")
            console.print(table)
        if trace["ready"]:
            table = Table(title=f"{name} · {FEE} · what readiness costs", title_justify="left")
            for column in ("a session ready is worth", "ratio", "found one ready", "in vain"):
                table.add_column(column)
            for rule, row in trace["ready"].items():
                table.add_row(rule, f"{row['ratio']:.3f}", f"{row['warm']:.1%}", str(row["in_vain"]))
            console.print(table)
        if trace.get("goals"):
            table = Table(title=f"{name} · goals", title_justify="left")
            for column in ("what", "goal", "reached", ""):
                table.add_column(column)
            for goal in trace["goals"]:
                bound = f"{'at most' if goal['at_most'] else 'at least'} {goal['goal']}"
                table.add_row(
                    goal["what"], bound, f"{goal['reached']:.3f}", "holds" if goal["holds"] else "MISSED"
                )
            console.print(table)
    for name in NOT_COPIED:
        if name not in figures:
            console.print(f"{name}: not copied here, for want of a licence; give it with --trace {name}.csv")

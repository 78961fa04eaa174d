"""Whether a session should be created before anybody asks, and when: the window in which the next need is likely.

It never saves money: the session costs the same, and it may wait, or wait in vain. It buys what it is worth that the
next caller finds one ready (`cold_start_cost`). A pure sum over the learnt gaps, without budgets and limits.
"""

from __future__ import annotations

from typing import NamedTuple

from tabkeeper.pool.gaps import EDGES, MIDS
from tabkeeper.pool.meter import Meter

LEAST_SEEN = 5.0
"""So many gaps must have been seen: a guess is no prediction."""

_MOST_STARTS = 16
"""So many of the likeliest bins are tried as the begin of a window."""


class Window(NamedTuple):
    """A session created at `start` and kept until `end`, seconds after its place was left; costs in nano-dollars."""

    start: float
    end: float
    gain: float
    """Expected: what a ready session is worth, times its chance, less all that it costs to have it wait."""
    chance: float
    """That somebody comes while it waits."""
    in_vain: float
    """What it costs if nobody comes."""


def best_window(
    meter: Meter | None,
    law: list[float],
    *,
    empty: float,
    setup: float,
    durations: tuple[float, ...],
    worth: float,
) -> Window | None:
    """Return the window with the highest expected gain, or None if no window has any.

    Args:
        meter: the provider's price list; None if sessions cost nothing.
        law: how likely the gap falls into each bin.
        empty: so many seconds of the gap are over.
        setup: seconds that a creation takes, and is billed for.
        durations: how long the next lease may take.
        worth: what a session that is ready saves, in nano-dollars.
    """
    open_bins = [at for at, edge in enumerate((*EDGES, float("inf"))) if edge > empty]
    left = sum(law[at] for at in open_bins)
    if worth <= 0 or left <= 0:
        return None
    likeliest = sorted(open_bins, key=lambda at: -law[at])[:_MOST_STARTS]
    begins = {max(empty + setup, EDGES[at - 1] if at else 0.0) for at in likeliest}
    windows = (_from(meter, law, ready, left, setup, durations, worth) for ready in sorted(begins))
    best = max(windows, key=lambda window: window.gain)
    return best if best.gain > 0 else None


def _from(  # noqa: PLR0917 - the terms of one sum
    meter: Meter | None,
    law: list[float],
    ready: float,
    left: float,
    setup: float,
    durations: tuple[float, ...],
    worth: float,
) -> Window:
    """Find the best end of a window in which the session is ready at `ready`; `left` is the chance of a gap still open.

    Who comes before that takes it while it is created, or has one created, which makes this one needless: no gain.
    """
    new = 0.0 if meter is None else meter.mean_bill(setup, durations)
    begun = max(ready - setup, 0.0)
    later = sum(chance for chance, gap in zip(law, MIDS, strict=True) if gap > begun)
    served = sum(chance for chance, gap in zip(law, MIDS, strict=True) if begun < gap <= ready)
    best = Window(begun, ready, float("-inf"), 0.0, 0.0)
    gained = met = 0.0
    for chance, gap, edge in zip(law, MIDS, (*EDGES, 2 * MIDS[-1]), strict=True):
        if gap <= ready:
            continue
        waited = 0.0 if meter is None else meter.mean_bill(setup + gap - ready, durations) - new
        if waited > worth:
            break  # to keep it this long costs more than it is worth, whoever comes
        gained += chance * (worth - waited)
        met += chance
        in_vain = 0.0 if meter is None else meter.bill(setup + edge - ready)
        gain = (gained - max(0.0, later - served - met) * in_vain) / left
        if gain > best.gain:
            best = Window(begun, edge, gain, met / left, in_vain)
    return best

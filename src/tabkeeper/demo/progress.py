"""Where the demo stands: which tasks wait, run, are done or refused. Plain data that `run` writes and `show` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabkeeper.clock import Clock, Instant, SystemClock
from tabkeeper.demo.record import BudgetState
from tabkeeper.demo.trace import Task
from tabkeeper.money import ZERO
from tabkeeper.pool.stats import PoolStats


@dataclass(slots=True)
class Progress:
    """The demo at this moment."""

    tasks: Sequence[Task]
    seed: int
    waiting: dict[int, Task] = field(default_factory=dict)
    running: dict[int, tuple[Task, str]] = field(default_factory=dict)
    """Tasks at work, with the session they lease."""
    done: Counter[str] = field(default_factory=Counter)
    """Tasks done, by platform; `refused` and `failed` likewise."""
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    refusal: str = ""
    """What the first refused task was told."""
    failures: list[str] = field(default_factory=list)
    stats: PoolStats | None = None
    budget: BudgetState = field(default_factory=lambda: BudgetState(limit=ZERO))
    phase: str = "starting"
    clock: Clock = field(default_factory=SystemClock)
    started: Instant = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.monotonic()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return self.clock.monotonic() - self.started

    @property
    def ended(self) -> int:
        """Tasks that are over, however they ended."""
        return self.done.total() + self.refused.total() + self.failed.total()

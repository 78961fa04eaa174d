"""What makes a pool one of many processes: whether it shares a board, by which rules, and which of its sessions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tabkeeper.clock import Clock, FleetClock, SystemClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.engines import parse_url
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.processes import this_process
from tabkeeper.pool.board import Board
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Rules
from tabkeeper.pool.shared.teller import Hooks
from tabkeeper.pool.sweeper import label_prefix
from tabkeeper.pool.view import View
from tabkeeper.providers.base import Provider, Shareable
from tabkeeper.vault import Vault

_DECIDES = (
    *(
        "pool/plan.py",
        "pool/view.py",
        "pool/lanes.py",
        "pool/timers.py",
        "pool/model.py",
        "pool/queue.py",
        "pool/keep.py",
        "pool/gaps.py",
        "pool/ahead.py",
    ),
    *(
        "pool/meter.py",
        "pool/referee.py",
        "pool/shared/entries.py",
        "pool/shared/replica.py",
        "pool/shared/snapshot.py",
    ),
    *("providers/breaker.py", "providers/route.py"),
)
"""The files that decide: two processes in which one of them differs may come to different decisions."""


def asks_to_share(config: PoolConfig) -> bool:
    """Say whether processes of this configuration are one pool.

    Raises:
        ConfigError: they are to be, and cannot be.
    """
    if not config.pool.shared:
        return False
    can = parse_url(config.ledger.url).get_backend_name() == "postgresql"
    if config.pool.shared is True and not can:
        raise ConfigError("pool.shared: a pool is shared through PostgreSQL; give ledger.url such an address")
    return can


def is_shared(config: PoolConfig, clock: Clock | None, *, inline: bool) -> bool:
    """Say whether a pool shares its board; in virtual time none does.

    Raises:
        ConfigError: it is to be shared and cannot be.
    """
    return asks_to_share(config) and not inline and (clock is None or type(clock) is SystemClock)


def bound_platforms(config: PoolConfig, providers: Mapping[str, Provider], vault: Vault) -> frozenset[str]:
    """Name the platforms whose sessions stay with the process that made them.

    That is where a provider runs browsers on this machine, where sessions have a proxy of yours, and everywhere
    without keys, because addresses of sessions are never stored in clear.
    """
    return frozenset(
        name
        for name, platform in config.platforms.items()
        if not vault.has_keys
        or platform.proxies
        or any(
            providers[one].capabilities.host_bound or not isinstance(providers[one], Shareable)
            for one in platform.providers
        )
    )


def planner_of(rules: Rules, meters: Mapping[str, Meter]) -> str:
    """Return what a process decides by, in two parts: its code, and its rules and prices."""
    facts = {"rules": asdict(rules), "meters": {name: _prices(meter) for name, meter in meters.items()}}
    text = json.dumps(facts, sort_keys=True, default=sorted)
    return f"{code_of_decisions()}:{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def _prices(meter: Meter) -> list[Any]:
    return [meter.fee, meter.rate, [[meter.bill(age), meter.paid_until(age)] for age in (0.0, 61.0, 3601.0)]]


@cache
def code_of_decisions() -> str:
    """Return what tells the files that decide from those of another version."""
    root = Path(__file__).parents[1]
    found = hashlib.blake2b(digest_size=6)
    for name in _DECIDES:
        found.update((root / name).read_bytes())
    return found.hexdigest()


def shared_board(
    config: PoolConfig,
    view: View,
    clock: FleetClock,
    hooks: Hooks,
    *,
    ledger: Ledger,
    meters: Mapping[str, Meter],
) -> Board:
    """Return the board of a pool that shares it; open it before anything is leased.

    Raises:
        ConfigError: the driver of PostgreSQL is not installed.
    """
    # The driver is an extra, and only who shares a pool needs it here.
    from tabkeeper.ledger.boardlog import BoardLog
    from tabkeeper.pool.shared.board import PostgresBoard

    return PostgresBoard(
        view,
        clock,
        BoardLog(
            config.ledger.url,
            config.pool.name,
            direct=config.ledger.direct_url,
            process=ledger.process_id,
        ),
        hooks,
        who=this_process(ledger.process_id),
        planner=planner_of(view.rules, meters),
        prefix=label_prefix(ledger.installation),
        heartbeat=config.pool.heartbeat.total_seconds(),
        waits=config.pool.takeover == "wait",
    )

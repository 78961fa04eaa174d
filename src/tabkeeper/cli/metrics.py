"""`tabkeeper metrics`: the figures of every open pool as Prometheus text, as of each one's last heartbeat."""

from __future__ import annotations

from collections.abc import Mapping

import typer
from pydantic import ValidationError

from tabkeeper.cli.options import ConfigOption, read_config
from tabkeeper.cli.picture import ProcessLine, processes
from tabkeeper.cli.records import reading
from tabkeeper.clock import SystemClock
from tabkeeper.errors import TabkeeperError
from tabkeeper.pool.metrics import exposition
from tabkeeper.pool.stats import PoolStats


def metrics(config: ConfigOption = None) -> None:
    """Print the metrics of every pool that uses this ledger, as Prometheus' text format.

    They are as of each pool's last heartbeat, seconds ago. With several pools the label `process` tells them apart.
    In a program, `pool.metrics.prometheus()` gives those of its own pool, of this moment.

    For instance:

      tabkeeper metrics

      tabkeeper metrics > /var/lib/node_exporter/textfile/tabkeeper.prom
    """
    settings = read_config(config)
    with reading(settings) as engine:
        lines = [line for line in processes(engine, SystemClock().now()) if line.alive and line.snapshot]
    if not lines:
        raise TabkeeperError("no pool is open, so there are no metrics; open one, or see `tabkeeper report`")
    typer.echo(exposition([(_labels(line, lines), _stats(line)) for line in lines]), nl=False)


def _labels(line: ProcessLine, lines: list[ProcessLine]) -> Mapping[str, str]:
    return {} if len(lines) == 1 else {"process": f"{line.pid}@{line.host}/{line.id[:6]}"}


def _stats(line: ProcessLine) -> PoolStats:
    try:
        return PoolStats.model_validate(line.snapshot)
    except ValidationError as error:
        raise TabkeeperError(
            f"process {line.pid} on {line.host} runs another version of Tabkeeper, whose figures cannot be read here"
        ) from error

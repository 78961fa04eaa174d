"""`tabkeeper explain`: why a session is kept until when, or why and when it was closed.

What runs is explained from its owner's last heartbeat, what is over from the ledger's rows.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tabkeeper.cli.options import ConfigOption, JsonOption, print_json, read_config
from tabkeeper.cli.picture import ProcessLine, ago, processes
from tabkeeper.cli.records import reading
from tabkeeper.clock import SystemClock
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.histories import history
from tabkeeper.pool.explain import Explanation, explain_ended, explain_open
from tabkeeper.pool.stats import SessionStats

explain_app = typer.Typer(no_args_is_help=True, help="Say why something is as it is.")


@explain_app.callback()
def _root() -> None:
    """Say why something is as it is."""


@explain_app.command()
def session(
    session_id: Annotated[
        str, typer.Argument(metavar="SESSION", help="Id as `tabkeeper sessions list` shows it.")
    ],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say why a session is kept until when, or why and when it was closed.

    For instance:

      tabkeeper explain session s0b6f3c55d1e2a90b7c44
    """
    now = SystemClock().now()
    with reading(read_config(config)) as engine:
        with engine.connect() as connection:
            known = history(connection, session_id)
        if known is None:
            raise ConfigError(
                f"the ledger knows no session {session_id!r}; `tabkeeper sessions list --closed 20` shows some"
            )
        owners = processes(engine, now) if known.ended_at is None else []
    told, owner = explain_ended(known), None
    for line in owners:
        if (found := _in_snapshot(line, session_id)) is not None:
            told, owner = found, line
    if as_json:
        print_json(told.model_dump(mode="json"))
        return
    typer.echo(told.text)
    if owner is not None:
        fate = "" if owner.alive else "; it is dead, and `tabkeeper cleanup` ends what it left"
        typer.echo(
            f"As of the last heartbeat of process {owner.pid}@{owner.host}, {ago(owner.heartbeat_at, now)} ago{fate}."
        )


def _in_snapshot(line: ProcessLine, session_id: str) -> Explanation | None:
    for one in line.snapshot.get("open_sessions", []):
        if one["id"] == session_id:
            return explain_open(SessionStats.model_validate(one), line.heartbeat_at)
    return None

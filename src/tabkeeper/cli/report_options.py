"""Options that the commands about booked costs share: which period, and as of when."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

import typer
from sqlalchemy import Connection

from tabkeeper.errors import ConfigError
from tabkeeper.reports.as_of import EVERYTHING, AsOf, as_of_text

AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="ENTRY|TIME",
        help="Only what was known at an entry's number, or at a UTC instant such as 2026-11-21T08:00: "
        "the same bytes at any later time.",
    ),
]


def date_of(given: str | None) -> str | None:
    """Check a day or month given as text."""
    if given is not None:
        read_date(given)
    return given


def read_date(given: str) -> date:
    """Read a day, or a month as its first day.

    Raises:
        BadParameter: it is neither.
    """
    try:
        return date.fromisoformat(f"{given}-01" if len(given) == 7 else given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is no date; write it like 2026-11-21") from None


def period_of(given: str) -> Literal["day", "month"]:
    """Tell a day from a month by how it is written."""
    return "month" if len(given) == 7 else "day"


def read_as_of(conn: Connection, given: str | None, now: datetime) -> AsOf:
    """Find out what may be told: everything, unless `--as-of` says otherwise.

    Raises:
        ConfigError: there is no such entry, or it is no instant of the past.
    """
    if given is None:
        return AsOf(EVERYTHING, now)
    try:
        return as_of_text(conn, given, now)
    except ConfigError as error:
        raise ConfigError(f"--as-of: {error}") from None

"""What the tables of a report are made of: columns of money, bars, sparks, lengths of time.

Nothing here knows a report; `render_table` and `render_trend` lay them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tabkeeper.ledger.rates import BYTE_KINDS, TIME_KINDS
from tabkeeper.money import Money

NONE = "-"
"""Shown where there is no figure."""

ROWS = 10
"""Rows of a table; what is more becomes one row of others."""

_BAR = 24
_SPARKS = "▁▂▃▄▅▆▇█"


def money_column(amounts: Sequence[Money | None]) -> list[str]:
    """Write amounts with the same number of places: four, or what the smallest needs to be seen; None is a dash."""
    known = [abs(amount.nanos) for amount in amounts if amount]
    places = 2 if all(nanos % 10_000_000 == 0 for nanos in known) else 4
    smallest = min(known, default=0)
    while places < 9 and 0 < smallest < 10 ** (9 - places):
        places += 1
    step = Decimal(1).scaleb(-places)
    return [
        NONE
        if amount is None
        else f"{_sign(amount)}${abs(amount.dollars).quantize(step, ROUND_HALF_EVEN):,f}"
        for amount in amounts
    ]


def bar(spent: float, held: float = 0.0, width: int = _BAR) -> str:
    """Draw shares of a whole: ``█`` spent, ``▒`` held, ``·`` left."""
    full = min(width, int(spent * width + 0.5))
    half = min(width - full, int((spent + held) * width + 0.5) - full)
    if spent > 0 and full == 0:
        full, half = 1, min(half, width - 1)
    return "█" * full + "▒" * max(0, half) + "·" * (width - full - max(0, half))


def spark(values: Sequence[int]) -> str:
    """Draw values as blocks of eight heights; nothing at all is a low dot."""
    top = max(values, default=0)
    return "".join(_SPARKS[(value * 7 + top - 1) // top] if value else "·" for value in values)


def usual_table(first: str) -> Table:
    """Begin a table as all of them look; the first column takes the room that is left."""
    table = Table(
        box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1), show_edge=False, header_style="bold"
    )
    table.add_column(first, no_wrap=True, ratio=1, overflow="ellipsis")
    return table


def line(text: str, style: str = "") -> RenderableType:
    """Write one line."""
    return Text(text, style=style)


def str_money(amount: Money) -> str:
    """Write one amount as `money_column` does."""
    return money_column([amount])[0]


def counted(number: int, one: str) -> str:
    """Write a number of things: ``1 session``, ``2 sessions``."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _sign(amount: Money) -> str:
    return "-" if amount.nanos < 0 else ""


def quantity_text(kind: str, quantity: int) -> str:
    """Write a quantity of a component (milliseconds, bytes or a count) in the unit that people use."""
    if kind in TIME_KINDS:
        return f"{hours_text(quantity / 1000)} h"
    if kind in BYTE_KINDS:
        return f"{quantity / 1e9:,.3f} GB"
    return f"{quantity:,}"


def hours_text(seconds: float) -> str:
    """Write seconds as hours."""
    hours = seconds / 3600
    return f"{hours:,.2f}" if hours >= 0.01 or not hours else f"{hours:.4f}"


def wait_text(seconds: float) -> str:
    """Write a short time in the unit that suits it."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def span_text(seconds: float) -> str:
    """Write a long time in its two largest units."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)} s"
    days, minutes = divmod(minutes, 1440)
    hours, minutes = divmod(minutes, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def moment_text(instant: datetime) -> str:
    """Write an instant in UTC, to the second."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def cut(text: str, width: int) -> str:
    """Shorten a text to a width, with an ellipsis for what is missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"

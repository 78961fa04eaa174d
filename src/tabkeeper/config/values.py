"""The kinds of values that settings have: durations, money, prices, time zones; how they are read and written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from tabkeeper.money import Money

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> timedelta:
    """Read ``"90s"``, ``"10m"``, ``"1h30m"``, ``"250ms"`` or a number of seconds.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    text = str(value).strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write it like '30s', '10m' or '1h30m'")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def show_duration(value: timedelta) -> str:
    """Write a duration the way `parse_duration` reads it: ``10m``, ``1h30m``, ``1.5s``."""
    seconds = value.total_seconds()
    if seconds != int(seconds):
        return f"{seconds:g}s"
    out, rest = "", int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        out += f"{count}{unit}" if count else ""
    return out or "0s"


def _parse_money(value: object) -> Money:
    if isinstance(value, Money):
        return value
    if isinstance(value, float):
        raise ValueError(f'write money as text, "{value}", so that it stays exact')  # noqa: TRY004
    money = Money.parse(str(value))
    if money.nanos < 0:
        raise ValueError("must not be negative")
    return money


def _parse_price(value: object) -> Decimal:
    if isinstance(value, float):
        raise ValueError(f'write prices as text, "{value}", so that they stay exact')  # noqa: TRY004
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a price in dollars, such as '0.12'") from None
    if not price.is_finite() or price < 0:
        raise ValueError(f"{value!r} is not a price in dollars, such as '0.12'")
    return price


def check_zone(name: str) -> str:
    """Return `name` if it is an IANA time zone, else raise ValueError naming the nearest ones."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        from zoneinfo import available_timezones

        near = difflib.get_close_matches(name, available_timezones(), 2)
        hint = (
            f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ", such as 'Europe/Berlin'"
        )
        raise ValueError(f"{name!r} is not an IANA time zone{hint}") from None
    return name


AnyDuration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(show_duration)]
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), AfterValidator(_positive), PlainSerializer(show_duration)
]
Dollars = Annotated[Money, BeforeValidator(_parse_money), PlainSerializer(Money.text, return_type=str)]
Price = Annotated[Decimal, BeforeValidator(_parse_price), PlainSerializer(str)]
Zone = Annotated[str, AfterValidator(check_zone)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def check_domain(value: object) -> str:
    """Return a site's domain in its one form: lower case, ASCII, no trailing dot.

    >>> check_domain("Shop.Example.COM")
    'shop.example.com'

    Raises:
        ValueError: it is no domain, for instance a whole address.
    """
    text = str(value).strip().lower().removesuffix(".")
    try:
        name = text.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(
            f"{str(value)!r} is not a site's domain; write it like 'example.com', without https://"
        )
    return name


Domain = Annotated[str, BeforeValidator(check_domain)]


class Settings(BaseModel):
    """Base of all sections: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    """Say which known word was probably meant, as the end of a message; nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""

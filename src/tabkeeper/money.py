"""Money as integer nano-dollars: parse, show, split without remainder.

This room knows no prices and no database; it only makes sure that no amount ever passes through a float.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

NANOS_PER_DOLLAR = 1_000_000_000
_MAX_NANOS = 2**63 - 1
_DOLLARS = re.compile(r"-?\$?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An exact amount of US dollars, held as an integer number of nano-dollars (10⁻⁹ $).

    >>> Money.parse("0.25") + Money.parse("0.5")
    Money.parse('0.75')
    >>> str(Money.parse("1234.5"))
    '$1,234.50'
    """

    nanos: int = 0

    def __post_init__(self) -> None:
        if type(self.nanos) is not int:
            raise TypeError(f"Money takes an integer number of nano-dollars, not {self.nanos!r}")
        if abs(self.nanos) > _MAX_NANOS:
            raise OverflowError(f"{self.nanos} nano-dollars do not fit a 64-bit database column")

    @classmethod
    def parse(cls, text: str | int | Decimal) -> Money:
        """Read dollars from decimal text such as ``"5.00"`` (or an int, or a Decimal); floats are refused.

        So is a comma: in half of the world ``"5,00"`` is five dollars, in the other half five hundred.

        Raises:
            ValueError: the text is no number, or is finer than a nano-dollar.
        """
        if isinstance(text, float):
            raise TypeError(f"money is written as text, not as the float {text!r}: use {str(text)!r}")
        plain = str(text).strip()
        if "," in plain:
            raise ValueError(
                f"{text!r} has a comma; write dollars with a point and no separators, such as '5.00'"
            )
        if not isinstance(text, Decimal) and not _DOLLARS.fullmatch(plain):
            raise ValueError(f"{text!r} is not an amount of dollars, such as '5.00'")
        dollars = Decimal(plain.replace("$", ""))
        if not dollars.is_finite():
            raise ValueError(f"{text!r} is not an amount of dollars, such as '5.00'")
        nanos = dollars.scaleb(9)
        if nanos != nanos.to_integral_value():
            raise ValueError(f"{text!r} is finer than a nano-dollar (nine decimal places)")
        return cls(int(nanos))

    @classmethod
    def from_decimal(cls, dollars: Decimal) -> Money:
        """Round an exact result of a calculation to nano-dollars, half to even (once per line, see rates)."""
        return cls(int(dollars.scaleb(9).to_integral_value(ROUND_HALF_EVEN)))

    @property
    def dollars(self) -> Decimal:
        """The exact amount in dollars."""
        return Decimal(self.nanos).scaleb(-9)

    def split(self, weights: Sequence[int]) -> list[Money]:
        """Divide into parts proportional to `weights` that add up to exactly this amount.

        The remainder of the integer division goes, one nano-dollar each, to the parts with the largest
        fraction (Hamilton's method), ties to the earlier part.

        Raises:
            ValueError: no weights, a negative weight, or all weights zero.
        """
        total = sum(weights)
        if not weights or total <= 0 or min(weights) < 0:
            raise ValueError(f"cannot split {self} by weights {list(weights)!r}")
        sign = -1 if self.nanos < 0 else 1
        amount = abs(self.nanos)
        parts = [amount * weight // total for weight in weights]
        rest = amount - sum(parts)
        by_fraction = sorted(range(len(weights)), key=lambda i: (-(amount * weights[i] % total), i))
        for i in by_fraction[:rest]:
            parts[i] += 1
        return [Money(sign * part) for part in parts]

    def text(self) -> str:
        """Plain decimal text for files and JSON, at least two and at most nine places: ``"0.0132"``."""
        sign = "-" if self.nanos < 0 else ""
        whole, fraction = divmod(abs(self.nanos), NANOS_PER_DOLLAR)
        places = f"{fraction:09d}".rstrip("0").ljust(2, "0")
        return f"{sign}{whole}.{places}"

    def __str__(self) -> str:
        """For people: ``$5.00``, ``$0.0132``, ``-$1,234.50``; never shows less than a non-zero amount has."""
        text = self.text().removeprefix("-")
        whole, _, fraction = text.partition(".")
        return f"{'-' if self.nanos < 0 else ''}${int(whole):,}.{fraction}"

    def __repr__(self) -> str:
        return f"Money.parse({self.text()!r})"

    def __add__(self, other: Money) -> Money:
        return Money(self.nanos + other.nanos)

    def __sub__(self, other: Money) -> Money:
        return Money(self.nanos - other.nanos)

    def __neg__(self) -> Money:
        return Money(-self.nanos)

    def __mul__(self, times: int) -> Money:
        return Money(self.nanos * times)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __int__(self) -> int:
        return self.nanos


ZERO = Money(0)

"""Money is read exactly or not at all, and splits without remainder."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.money import Money


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("5.00", 5_000_000_000),
        ("$0.25", 250_000_000),
        ("0.000000001", 1),
        ("-1", -1_000_000_000),
        (7, 7_000_000_000),
    ],
)
def test_dollars_are_read_to_the_nano(text: object, nanos: int) -> None:
    assert Money.parse(text).nanos == nanos


@pytest.mark.parametrize(
    "text",
    ["5,00", "1,5", "1,000", "1,00,0.5", "1_000", "five", "", "1e3", "nan", "inf", "0.0000000001", ".5"],
)
def test_what_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"comma|amount of dollars|nano"):
        Money.parse(text)


def test_a_float_is_refused_with_the_text_to_write_instead() -> None:
    with pytest.raises(TypeError, match=r"'0\.1'"):
        Money.parse(0.1)


@given(st.integers(-(2**62), 2**62))
def test_text_reads_back(nanos: int) -> None:
    assert Money.parse(Money(nanos).text()) == Money(nanos)
    assert Money.from_decimal(Money(nanos).dollars) == Money(nanos)


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_parts_add_up_to_the_whole_and_none_is_off_by_more_than_a_nano(
    nanos: int, weights: list[int]
) -> None:
    if sum(weights) == 0:
        with pytest.raises(ValueError, match="cannot split"):
            Money(nanos).split(weights)
        return
    parts = Money(nanos).split(weights)
    assert sum(part.nanos for part in parts) == nanos
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Decimal(part.nanos) - Decimal(nanos) * weight / sum(weights)) <= 1

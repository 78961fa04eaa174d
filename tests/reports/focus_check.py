"""Applies `focus_rules` to a dataset read back from its file: says what it breaks, by the requirement's name."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .focus_rules import COLUMNS, DECIMAL, INSTANT, PAIRS, RECOMMENDED, Row

_NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_PASCAL = re.compile(r"([A-Z][a-z0-9]*)+")
_PLACEHOLDERS = {"n/a", "na", "none", "null", "not applicable", "unknown", "-"}


def violations(header: Sequence[str], rows: Sequence[Row], version: str) -> list[str]:
    """Say what a dataset breaks; nulls are None."""
    ours = {name: column for name, column in COLUMNS.items() if column.since <= version}
    found = [
        f"{name} is missing: {column.present}"
        for name, column in ours.items()
        if name not in header and column.present != RECOMMENDED
    ]
    found += _names(header, set(ours))
    for place, row in enumerate(rows):
        found += [
            f"row {place}: {said}" for name in header if name in ours for said in _of(name, row, version)
        ]
    for child, parent, rule in (
        ("SkuPriceId", "SkuId", "SkuPriceId-C-008"),
        ("SkuPriceId", "SkuPriceDetails", "SkuPriceDetails-C-007"),
        ("SkuId", "SkuMeter", "SkuMeter-C-006"),
        ("ServiceName", "ServiceCategory", "ServiceName-C-005"),
        ("ServiceName", "ServiceSubcategory", "ServiceName-C-008"),
    ):
        found += _one_parent(rows, child, parent, rule)
    return found


def _names(header: Sequence[str], known: set[str]) -> list[str]:
    """ColumnHandling: custom columns have a prefix and come last; names are in Pascal case, and short."""
    custom = [name.startswith("x_") for name in header]
    found = [
        f"ColumnHandling-A-010: {name} is no column of this version"
        for name in header
        if name not in known and not name.startswith("x_")
    ]
    found += ["ColumnHandling-A-013: custom columns do not come last"] if custom != sorted(custom) else []
    for name in header:
        found += [] if _PASCAL.fullmatch(name.removeprefix("x_")) else [f"ColumnHandling-A-001: {name}"]
        found += [f"ColumnHandling-A-005: {name} is too long"] if len(name) > 50 else []
    return found


def _of(name: str, row: Row, version: str) -> list[str]:
    column, value = COLUMNS[name], row[name]
    if value is None:
        found = [] if column.nullable else [f"{name} is null"]
    elif not value.strip() or value.strip().lower() in _PLACEHOLDERS:
        found = [f"NullHandling-A-002: {name} is {value!r}"]
    else:
        found = [] if _is_of(column.type, value) else [f"{name} is no {column.type}: {value}"]
        if column.values is not None and value not in column.values:
            found.append(f"{name} must not be {value!r}")
        if column.pattern is not None and not column.pattern.fullmatch(value):
            found.append(f"{name} has not the form it must have: {value!r}")
    if found:
        return found
    return [
        f"{rule.name} does not hold" for rule in column.rules if rule.since <= version and not rule.holds(row)
    ]


def _is_of(type_: str, value: str) -> bool:
    if type_ == DECIMAL:
        return _NUMBER.fullmatch(value) is not None
    if type_ == INSTANT:
        return _MOMENT.fullmatch(value) is not None and datetime.fromisoformat(value) is not None
    return type_ != PAIRS or _is_pairs(value)


def _is_pairs(value: str) -> bool:
    """KeyValueFormat: an object whose keys are there once, and whose values are no objects or lists."""

    def once(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) < len(found):
            raise ValueError("a key is there twice")
        return dict(found)

    try:
        told = json.loads(value, object_pairs_hook=once)
    except ValueError:
        return False
    return isinstance(told, dict) and not any(isinstance(part, dict | list) for part in told.values())


def _one_parent(rows: Sequence[Row], child: str, parent: str, rule: str) -> list[str]:
    known = {(row[child], row[parent]) for row in rows if row.get(child) is not None}
    children = [one for one, _ in known]
    return [f"{rule}: {one} has several {parent}" for one in sorted(set(children)) if children.count(one) > 1]

"""What FOCUS asks of a dataset, as a table: for each column whether it must be there, its type, and its conditions.

Read from the specification's requirements, versions 1.2 and 1.3 (focus.finops.org): every MUST that can be seen in the
data itself. `violations` returns what a dataset breaks.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

Row = Mapping[str, str | None]
Rule = tuple[str, Callable[[Row], bool]]

STRING, DECIMAL, INSTANT, PAIRS = "String", "Decimal", "Date/Time", "Key-Value"
NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UNIT = re.compile(r"(\d+ )?(GB|MB|B|[A-Z][a-z]+s|GB-[A-Z][a-z]+s|Count)")
CATEGORIES = {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}


def is_priced(row: Row) -> bool:
    return row["ChargeCategory"] in {"Usage", "Purchase"} and row["ChargeClass"] != "Correction"


def as_decimal(value: str | None) -> Decimal:
    assert value is not None
    return Decimal(value)


def product_matches(price: str, cost: str) -> Callable[[Row], bool]:
    def rule(row: Row) -> bool:
        if row["ChargeClass"] == "Correction" or not row[price] or not row["PricingQuantity"]:
            return True
        return as_decimal(row[price]) * as_decimal(row["PricingQuantity"]) == as_decimal(row[cost])

    return rule


def before(start: str, end: str) -> Callable[[Row], bool]:
    return lambda row: str(row[start]) < str(row[end])


def null_with(column: str, other: str) -> list[Rule]:
    return [
        (f"{column} is null when {other} is", lambda row: bool(row[other]) or not row[column]),
        (f"{column} is not null when {other} is not", lambda row: not row[other] or bool(row[column])),
    ]


def priced_has(column: str) -> Rule:
    return (f"usage and purchases have {column}", lambda row: not is_priced(row) or bool(row[column]))


@dataclass(frozen=True)
class Rules:
    """Of one column; `nullable` False forbids nulls, `needed` says since which version it must be present."""

    type: str
    nullable: bool = False
    needed: str | None = "1.2"
    values: frozenset[str] | None = None
    more: Sequence[Rule] = ()


def one_of(*values: str) -> frozenset[str]:
    return frozenset(values)


COLUMNS: dict[str, Rules] = {
    "BilledCost": Rules(DECIMAL),
    "BillingAccountId": Rules(STRING),
    "BillingAccountName": Rules(STRING, nullable=True),
    "BillingCurrency": Rules(STRING, values=one_of("USD")),
    "BillingPeriodStart": Rules(
        INSTANT, more=[("billing period has a length", before("BillingPeriodStart", "BillingPeriodEnd"))]
    ),
    "BillingPeriodEnd": Rules(INSTANT),
    "ChargeCategory": Rules(STRING, values=frozenset(CATEGORIES)),
    "ChargeClass": Rules(STRING, nullable=True, values=one_of("Correction")),
    "ChargeDescription": Rules(STRING),
    "ChargeFrequency": Rules(
        STRING,
        needed=None,
        values=one_of("One-Time", "Recurring", "Usage-Based"),
        more=[
            (
                "a purchase is not usage-based",
                lambda row: (row["ChargeCategory"], row["ChargeFrequency"]) != ("Purchase", "Usage-Based"),
            )
        ],
    ),
    "ChargePeriodStart": Rules(
        INSTANT, more=[("charge period has a length", before("ChargePeriodStart", "ChargePeriodEnd"))]
    ),
    "ChargePeriodEnd": Rules(INSTANT),
    "ConsumedQuantity": Rules(
        DECIMAL,
        nullable=True,
        more=[
            ("only usage is consumed", lambda row: row["ChargeCategory"] == "Usage" or not row["ConsumedQuantity"]),
            (
                "usage says what was consumed",
                lambda row: not (row["ChargeCategory"] == "Usage" and is_priced(row)) or bool(row["ConsumedQuantity"]),
            ),
        ],
    ),
    "ConsumedUnit": Rules(STRING, nullable=True, more=null_with("ConsumedUnit", "ConsumedQuantity")),
    "ContractedCost": Rules(
        DECIMAL,
        more=[
            (
                "what is unrelated to usage costs as contracted what is billed",
                lambda row: row["ChargeCategory"] in {"Usage", "Purchase"}
                or as_decimal(row["ContractedCost"]) == as_decimal(row["BilledCost"]),
            )
        ],
    ),
    "EffectiveCost": Rules(
        DECIMAL,
        more=[
            (
                "what is unrelated to usage costs effectively what is billed",
                lambda row: row["ChargeCategory"] in {"Usage", "Purchase"}
                or as_decimal(row["EffectiveCost"]) == as_decimal(row["BilledCost"]),
            )
        ],
    ),
    "HostProviderName": Rules(STRING, needed="1.3"),
    "InvoiceId": Rules(STRING, nullable=True, needed=None),
    "InvoiceIssuerName": Rules(STRING),
    "ListCost": Rules(DECIMAL, more=[("list price times quantity", product_matches("ListUnitPrice", "ListCost"))]),
    "ListUnitPrice": Rules(
        DECIMAL,
        nullable=True,
        more=[
            priced_has("ListUnitPrice"),
            ("no negative price", lambda row: not row["ListUnitPrice"] or as_decimal(row["ListUnitPrice"]) >= 0),
        ],
    ),
    "PricingCategory": Rules(
        STRING,
        nullable=True,
        needed=None,
        values=one_of("Standard", "Dynamic", "Committed", "Other"),
        more=[priced_has("PricingCategory")],
    ),
    "PricingCurrency": Rules(STRING, needed=None, values=one_of("USD")),
    "PricingCurrencyContractedUnitPrice": Rules(DECIMAL, nullable=True, needed=None),
    "PricingCurrencyEffectiveCost": Rules(
        DECIMAL,
        needed=None,
        more=[("the same money", lambda row: row["PricingCurrencyEffectiveCost"] == row["EffectiveCost"])],
    ),
    "PricingCurrencyListUnitPrice": Rules(
        DECIMAL, nullable=True, needed=None, more=[priced_has("PricingCurrencyListUnitPrice")]
    ),
    "PricingQuantity": Rules(DECIMAL, nullable=True, more=[priced_has("PricingQuantity")]),
    "PricingUnit": Rules(
        STRING,
        nullable=True,
        more=[
            *null_with("PricingUnit", "PricingQuantity"),
            ("a unit in the form of units", lambda row: UNIT.fullmatch(row["PricingUnit"] or "Hours") is not None),
        ],
    ),
    "ProviderName": Rules(STRING),
    "PublisherName": Rules(STRING),
    "ResourceId": Rules(STRING, nullable=True),
    "ResourceName": Rules(
        STRING,
        nullable=True,
        more=[("what has an id of a system's has no name", lambda row: row["ResourceName"] is None)],
    ),
    "ResourceType": Rules(STRING, nullable=True, more=null_with("ResourceType", "ResourceId")),
    "ServiceCategory": Rules(STRING, values=one_of("Compute")),
    "ServiceName": Rules(STRING),
    "ServiceProviderName": Rules(STRING, needed="1.3"),
    "ServiceSubcategory": Rules(STRING, needed=None, values=one_of("Other (Compute)")),
    "SkuId": Rules(STRING, nullable=True, more=[priced_has("SkuId")]),
    "SkuMeter": Rules(STRING, nullable=True, more=null_with("SkuMeter", "SkuId")),
    "SkuPriceDetails": Rules(
        PAIRS,
        nullable=True,
        more=[
            ("no details without a price", lambda row: bool(row["SkuPriceId"]) or not row["SkuPriceDetails"]),
            (
                "properties of our own are marked",
                lambda row: all(key.startswith("x_") for key in json.loads(row["SkuPriceDetails"] or "{}")),
            ),
        ],
    ),
    "SkuPriceId": Rules(STRING, nullable=True, more=[priced_has("SkuPriceId")]),
    "SubAccountId": Rules(STRING, nullable=True),
    "SubAccountName": Rules(STRING, nullable=True, more=null_with("SubAccountName", "SubAccountId")),
    "Tags": Rules(PAIRS, nullable=True),
}  # fmt: skip


def violations(header: Sequence[str], rows: Sequence[Row], version: str) -> list[str]:
    """Say what a dataset breaks; nulls are None."""
    found = [
        f"{name} is missing"
        for name, rules in COLUMNS.items()
        if rules.needed is not None and rules.needed <= version and name not in header
    ]
    own = [name.startswith("x_") for name in header]
    found += [
        f"{name} is no column of FOCUS"
        for name in header
        if name not in COLUMNS and not name.startswith("x_")
    ]
    found += [
        f"{name} came later" for name in header if COLUMNS.get(name, Rules(STRING)).needed == "1.3" > version
    ]
    found += ["columns of our own do not come last"] if own != sorted(own) else []
    found += [f"{name} is too long" for name in header if len(name) > 50]
    for number, row in enumerate(rows):
        found += [f"row {number}: {said}" for name in header if name in COLUMNS for said in _of(name, row)]
    return (
        found + _one_parent(rows, "SkuPriceId", "SkuId") + _one_parent(rows, "ServiceName", "ServiceCategory")
    )


def _of(name: str, row: Row) -> list[str]:
    rules, value = COLUMNS[name], row[name]
    if value is None:
        found = [] if rules.nullable else [f"{name} is null"]
    elif not value.strip():
        found = [f"{name} is blank"]
    else:
        found = [] if _is_of(rules.type, value) else [f"{name} is no {rules.type}: {value}"]
        found += (
            [f"{name} must not be {value!r}"]
            if rules.values is not None and value not in rules.values
            else []
        )
    return found or [f"{name}: {said}" for said, holds in rules.more if not holds(row)]


def _is_of(type_: str, value: str) -> bool:
    if type_ == DECIMAL:
        return NUMBER.fullmatch(value) is not None
    if type_ == INSTANT:
        return MOMENT.fullmatch(value) is not None and datetime.fromisoformat(value) is not None
    if type_ == PAIRS:
        pairs: Any = json.loads(value)
        return isinstance(pairs, dict) and not any(isinstance(part, dict | list) for part in pairs.values())
    return True


def _one_parent(rows: Sequence[Row], child: str, parent: str) -> list[str]:
    pairs = {(row[child], row[parent]) for row in rows if row[child] is not None}
    children = [one for one, _ in pairs]
    return [f"{child} {one} has several {parent}" for one in sorted(set(children)) if children.count(one) > 1]

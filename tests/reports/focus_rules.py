"""What FOCUS asks of each column of a Cost and Usage dataset, as data: presence, type, nulls, values, other columns.

In our words, from the specification's versions 1.2 and 1.3 and their requirements models (the repository is
FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec). A rule has the name that it has there, such as ``ListUnitPrice-C-012``; 1.3
puts ``CAU-`` before it. What cannot be seen in a row has no rule here. `focus_check` applies them.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Row = Mapping[str, str | None]
STRING, DECIMAL, INSTANT, PAIRS = "String", "Decimal", "Date/Time", "Key-Value"
OWN_TAG = "tabkeeper/"

# UnitFormat: words of its lists in its capitals; any other noun counts things, and is capitalized.
_DATA = r"(?:[KMGTPE]i?)?[bB]"
_TIME = r"(?:Year|Month|Day|Hour|Minute|Second)"
_COUNT = r"(?!(?:GBs|MBs|Bs)\b)[A-Z][a-z]+"
UNIT = re.compile(
    rf"(?:[1-9]\d* )?(?:{_DATA}|{_COUNT}|Count)(?:-{_TIME}s|/{_TIME}|/[1-9]\d* {_TIME}s)?"
    rf"|(?:[1-9]\d* )?{_TIME}s"
)
CURRENCY = re.compile(r"[A-Z]{3}")

SUBCATEGORIES = {
    "Compute": {
        "Containers", "End User Computing", "Quantum Compute", "Serverless Compute", "Virtual Machines",
        "Other (Compute)",
    },
    "Networking": {
        "Application Networking", "Content Delivery", "Network Connectivity", "Network Infrastructure",
        "Network Routing", "Network Security", "Other (Networking)",
    },
}  # fmt: skip
"""ServiceSubcategory's allowed values, by ServiceCategory, for those that are ours."""

SKU_PROPERTIES = {
    "CoreCount", "DiskMaxIops", "DiskSpace", "DiskType", "GpuCount", "InstanceType", "InstanceSeries", "MemorySize",
    "NetworkMaxIops", "NetworkMaxThroughput", "OperatingSystem", "Redundancy", "StorageClass",
}  # fmt: skip
"""Property keys of SkuPriceDetails that FOCUS defines; others begin with ``x_``."""


@dataclass(frozen=True)
class Rule:
    """What must hold in every row, by its name in the specification; `since` says in which version it is new."""

    name: str
    holds: Callable[[Row], bool]
    since: str = "1.2"


@dataclass(frozen=True)
class Column:
    """Of one column; `present` says when it must be there, and `since` in which version it is new."""

    type: str
    present: str = "always"
    nullable: bool = False
    values: frozenset[str] | None = None
    pattern: re.Pattern[str] | None = None
    since: str = "1.2"
    rules: Sequence[Rule] = ()


def number(row: Row, name: str) -> Decimal:
    return Decimal(row[name] or "0")


def is_charged(row: Row) -> bool:
    """Usage or a purchase, and no correction: what the specification asks most of."""
    return row["ChargeCategory"] in {"Usage", "Purchase"} and row["ChargeClass"] != "Correction"


def one_of(*values: str) -> frozenset[str]:
    return frozenset(values)


def needed(name: str, rule: str) -> Rule:
    return Rule(f"{name}-C-{rule}", lambda row: bool(row[name]) or not is_charged(row))


def no_tax(name: str, rule: str) -> Rule:
    return Rule(f"{name}-C-{rule}", lambda row: row["ChargeCategory"] != "Tax" or not row[name])


def positive(name: str, rule: str) -> Rule:
    return Rule(f"{name}-C-{rule}", lambda row: number(row, name) >= 0)


def null_without(name: str, other: str, rule: str, since: str = "1.2") -> Rule:
    return Rule(f"{name}-C-{rule}", lambda row: bool(row[other]) or not row[name], since)


def set_with(name: str, other: str, rule: str, since: str = "1.2") -> Rule:
    return Rule(f"{name}-C-{rule}", lambda row: not row[other] or bool(row[name]), since)


def product(price: str, cost: str, rule: str, since: str = "1.2") -> Rule:
    """1.2 lets corrections off. 1.3 kept that, and added a rule that does not: we keep to the stricter."""

    def holds(row: Row) -> bool:
        if not row[price] or not row["PricingQuantity"]:
            return True
        if since == "1.2" and row["ChargeClass"] == "Correction":
            return True
        return number(row, price) * number(row, "PricingQuantity") == number(row, cost)

    return Rule(f"{cost}-C-{rule}", holds, since)


def billed(cost: str, price: str, rule: str) -> Rule:
    """Without a price, a charge that is not worked out from others costs what is billed."""
    return Rule(
        f"{cost}-C-{rule}",
        lambda row: (
            bool(row[price])
            or row["ChargeCategory"] == "Tax"
            or number(row, cost) == number(row, "BilledCost")
        ),
    )


def before(start: str, end: str) -> Callable[[Row], bool]:
    return lambda row: str(row[start]) < str(row[end])


def pairs(row: Row, name: str) -> dict[str, Any]:
    found = json.loads(row[name] or "{}")
    return found if isinstance(found, dict) else {}


PRICE_LIST = "service providers publish price lists"
NEGOTIATED = "service providers negotiate prices"
CURRENCIES = "service providers have prices in a currency of their own: units, credits"
MEASURED = "service providers measure usage"
RESOURCES = "service providers bill by provisioned resources, which have types"
RECOMMENDED = "recommended"

COLUMNS: dict[str, Column] = {
    "BilledCost": Column(DECIMAL),
    "BillingAccountId": Column(STRING),
    "BillingAccountName": Column(STRING, nullable=True),
    "BillingCurrency": Column(STRING, pattern=CURRENCY),
    "BillingPeriodEnd": Column(
        INSTANT, rules=[Rule("BillingPeriodEnd-C-004", before("BillingPeriodStart", "BillingPeriodEnd"))]
    ),
    "BillingPeriodStart": Column(INSTANT),
    "ChargeCategory": Column(STRING, values=one_of("Usage", "Purchase", "Tax", "Credit", "Adjustment")),
    "ChargeClass": Column(
        STRING,
        nullable=True,
        values=one_of("Correction"),
        rules=[
            # -C-003 and -C-004: only what corrects a period that was invoiced before is a correction.
            Rule(
                "ChargeClass-C-003",
                lambda row: row["ChargeClass"] is None
                or str(row["ChargePeriodStart"]) < str(row["BillingPeriodStart"]),
            ),
        ],
    ),
    "ChargeDescription": Column(STRING),
    "ChargeFrequency": Column(
        STRING,
        present=RECOMMENDED,
        values=one_of("One-Time", "Recurring", "Usage-Based"),
        rules=[
            Rule(
                "ChargeFrequency-C-004",
                lambda row: (row["ChargeCategory"], row["ChargeFrequency"]) != ("Purchase", "Usage-Based"),
            )
        ],
    ),
    "ChargePeriodEnd": Column(
        INSTANT, rules=[Rule("ChargePeriodEnd-C-004", before("ChargePeriodStart", "ChargePeriodEnd"))]
    ),
    "ChargePeriodStart": Column(INSTANT),
    "ConsumedQuantity": Column(
        DECIMAL,
        present=MEASURED,
        nullable=True,
        rules=[
            Rule("ConsumedQuantity-C-004", lambda row: row["ChargeCategory"] == "Usage" or not row["ConsumedQuantity"]),
            Rule(
                "ConsumedQuantity-C-006",
                lambda row: row["ChargeCategory"] != "Usage"
                or not is_charged(row)
                or bool(row["ConsumedQuantity"]),
            ),
            null_without("ConsumedQuantity", "SkuPriceId", "009", "1.3"),
        ],
    ),
    "ConsumedUnit": Column(
        STRING,
        present=MEASURED,
        nullable=True,
        pattern=UNIT,
        rules=[
            null_without("ConsumedUnit", "ConsumedQuantity", "005"),
            set_with("ConsumedUnit", "ConsumedQuantity", "006"),
        ],
    ),
    "ContractedCost": Column(
        DECIMAL,
        rules=[
            billed("ContractedCost", "ContractedUnitPrice", "008"),
            product("ContractedUnitPrice", "ContractedCost", "009"),
            product("ContractedUnitPrice", "ContractedCost", "011", "1.3"),
        ],
    ),
    "ContractedUnitPrice": Column(
        DECIMAL,
        present=NEGOTIATED,
        nullable=True,
        rules=[
            no_tax("ContractedUnitPrice", "005"),
            needed("ContractedUnitPrice", "006"),
            positive("ContractedUnitPrice", "009"),
            null_without("ContractedUnitPrice", "SkuPriceId", "014", "1.3"),
            set_with("ContractedUnitPrice", "SkuPriceId", "015", "1.3"),
        ],
    ),
    "EffectiveCost": Column(
        DECIMAL,
        rules=[
            Rule(
                "EffectiveCost-C-010",
                lambda row: row["ChargeCategory"] in {"Usage", "Purchase", "Tax"}
                or number(row, "EffectiveCost") == number(row, "BilledCost"),
            )
        ],
    ),
    "HostProviderName": Column(
        STRING,
        nullable=True,
        since="1.3",
        rules=[
            # -C-005 and -C-006: null only where it cannot be known; -C-010: no provider of ours tells who hosts it.
            Rule("HostProviderName-C-006", lambda row: not is_charged(row) or bool(row["HostProviderName"])),
            Rule(
                "HostProviderName-C-010",
                lambda row: row["HostProviderName"] in {None, row["ServiceProviderName"]},
            ),
        ],
    ),
    "InvoiceId": Column(STRING, present=RECOMMENDED, nullable=True),
    "InvoiceIssuerName": Column(STRING),
    "ListCost": Column(
        DECIMAL,
        rules=[
            billed("ListCost", "ListUnitPrice", "008"),
            product("ListUnitPrice", "ListCost", "009"),
            product("ListUnitPrice", "ListCost", "011", "1.3"),
        ],
    ),
    "ListUnitPrice": Column(
        DECIMAL,
        present=PRICE_LIST,
        nullable=True,
        rules=[
            no_tax("ListUnitPrice", "004"),
            needed("ListUnitPrice", "005"),
            positive("ListUnitPrice", "008"),
            null_without("ListUnitPrice", "SkuPriceId", "012", "1.3"),
            set_with("ListUnitPrice", "SkuPriceId", "013", "1.3"),
        ],
    ),
    "PricingCategory": Column(
        STRING,
        present=RECOMMENDED,
        nullable=True,
        values=one_of("Standard", "Dynamic", "Committed", "Other"),
        rules=[
            no_tax("PricingCategory", "003"),
            needed("PricingCategory", "004"),
            null_without("PricingCategory", "SkuPriceId", "012", "1.3"),
        ],
    ),
    "PricingCurrency": Column(STRING, present=CURRENCIES, pattern=CURRENCY),
    "PricingCurrencyContractedUnitPrice": Column(
        DECIMAL,
        present=CURRENCIES,
        nullable=True,
        rules=[
            no_tax("PricingCurrencyContractedUnitPrice", "004"),
            needed("PricingCurrencyContractedUnitPrice", "005"),
            positive("PricingCurrencyContractedUnitPrice", "008"),
            null_without("PricingCurrencyContractedUnitPrice", "SkuPriceId", "011", "1.3"),
            set_with("PricingCurrencyContractedUnitPrice", "SkuPriceId", "012", "1.3"),
        ],
    ),
    "PricingCurrencyEffectiveCost": Column(
        DECIMAL,
        present=CURRENCIES,
        rules=[
            Rule(
                "PricingCurrencyEffectiveCost-C-006",
                lambda row: row["PricingCurrency"] != row["BillingCurrency"]
                or number(row, "PricingCurrencyEffectiveCost") == number(row, "EffectiveCost"),
            )
        ],
    ),
    "PricingCurrencyListUnitPrice": Column(
        DECIMAL,
        present=CURRENCIES,
        nullable=True,
        rules=[
            no_tax("PricingCurrencyListUnitPrice", "004"),
            needed("PricingCurrencyListUnitPrice", "005"),
            positive("PricingCurrencyListUnitPrice", "008"),
            null_without("PricingCurrencyListUnitPrice", "SkuPriceId", "011", "1.3"),
            set_with("PricingCurrencyListUnitPrice", "SkuPriceId", "012", "1.3"),
        ],
    ),
    "PricingQuantity": Column(
        DECIMAL,
        nullable=True,
        rules=[
            no_tax("PricingQuantity", "004"),
            needed("PricingQuantity", "005"),
            null_without("PricingQuantity", "SkuPriceId", "011", "1.3"),
        ],
    ),
    "PricingUnit": Column(
        STRING,
        nullable=True,
        pattern=UNIT,
        rules=[
            null_without("PricingUnit", "PricingQuantity", "005"),
            set_with("PricingUnit", "PricingQuantity", "006"),
        ],
    ),
    "ProviderName": Column(STRING),  # 1.3 calls it deprecated, and asks for it still: CostAndUsage-D-038
    "PublisherName": Column(STRING),  # likewise: CostAndUsage-D-021
    "ResourceId": Column(STRING, present=RESOURCES, nullable=True),
    "ResourceName": Column(
        STRING,
        present=RESOURCES,
        nullable=True,
        rules=[
            null_without("ResourceName", "ResourceId", "004"),
            Rule("ResourceName-C-006", lambda row: not row["ResourceName"] or row["ResourceName"] != row["ResourceId"]),
        ],
    ),
    "ResourceType": Column(
        STRING,
        present=RESOURCES,
        nullable=True,
        rules=[null_without("ResourceType", "ResourceId", "004"), set_with("ResourceType", "ResourceId", "005")],
    ),
    "ServiceCategory": Column(STRING, values=frozenset(SUBCATEGORIES)),
    "ServiceName": Column(STRING),
    "ServiceProviderName": Column(STRING, since="1.3"),
    "ServiceSubcategory": Column(
        STRING,
        present=RECOMMENDED,
        rules=[
            Rule(
                "ServiceSubcategory-C-004",
                lambda row: row["ServiceSubcategory"] in SUBCATEGORIES.get(row["ServiceCategory"] or "", set()),
            )
        ],
    ),
    "SkuId": Column(
        STRING, present=PRICE_LIST, nullable=True, rules=[no_tax("SkuId", "004"), needed("SkuId", "005")]
    ),
    "SkuMeter": Column(
        STRING,
        present=PRICE_LIST,
        nullable=True,
        rules=[null_without("SkuMeter", "SkuId", "004"), set_with("SkuMeter", "SkuId", "005")],
    ),
    "SkuPriceDetails": Column(
        PAIRS,
        present=PRICE_LIST,
        nullable=True,
        rules=[
            null_without("SkuPriceDetails", "SkuPriceId", "004"),
            Rule(
                "SkuPriceDetails-C-017",
                lambda row: all(
                    key.startswith("x_") or key in SKU_PROPERTIES for key in pairs(row, "SkuPriceDetails")
                ),
            ),
        ],
    ),
    "SkuPriceId": Column(
        STRING,
        present=PRICE_LIST,
        nullable=True,
        rules=[no_tax("SkuPriceId", "004"), needed("SkuPriceId", "005")],
    ),
    "SubAccountId": Column(STRING, present="tenants are sub accounts", nullable=True),
    "SubAccountName": Column(
        STRING,
        present="tenants are sub accounts",
        nullable=True,
        rules=[
            null_without("SubAccountName", "SubAccountId", "004"),
            set_with("SubAccountName", "SubAccountId", "005"),
        ],
    ),
    "Tags": Column(
        PAIRS,
        present="leases have tags",
        nullable=True,
        rules=[
            # -C-012 and -C-017: our tags have a prefix, and users' tags do not have it.
            Rule(
                "Tags-C-017",
                lambda row: all(
                    key == "tabkeeper/platform" or not key.startswith(OWN_TAG) for key in pairs(row, "Tags")
                ),
            )
        ],
    ),
}  # fmt: skip

ABSENT = {
    "AvailabilityZone": "providers name none",
    "BillingAccountType": "there is one type of billing account",
    "CapacityReservationId": "providers reserve no capacity",
    "CapacityReservationStatus": "providers reserve no capacity",
    **dict.fromkeys(
        (
            f"CommitmentDiscount{part}"
            for part in ["Category", "Id", "Name", "Quantity", "Status", "Type", "Unit"]
        ),
        "a plan's allowance is part of its price list, not a discount that is bought for a term",
    ),
    "RegionId": "the ledger does not keep where a browser ran (docs/exports.md says so)",
    "RegionName": "likewise",
    "SubAccountType": "there is one type of sub account",
}
"""Columns of 1.2 that the export does not have, and why it need not, or what is missing."""
ABSENT_1_3 = {
    **dict.fromkeys(
        (f"Allocated{part}" for part in ["MethodDetails", "MethodId", "ResourceId", "ResourceName", "Tags"]),
        "a session's cost is one charge of its tenant's: nothing is split",
    ),
    "ContractApplied": "contract commitments are not in the ledger",
}
"""What 1.3 has beyond those."""

"""Booked lines as FOCUS, the FinOps Open Cost and Usage Specification, versions 1.2 and 1.3. Pure.

What the columns mean is the specification's (focus.finops.org); what we put into them is in docs/exports.md. One
line of an entry is one row, so the sum of BilledCost is the sum of the entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal, NamedTuple

from tabkeeper.ledger.cards import ALWAYS
from tabkeeper.ledger.rates import BYTE_KINDS, OWN_PROXY_KIND, SESSION_KIND, TIME_KINDS, Component
from tabkeeper.ledger.types import OWN_TAGS
from tabkeeper.ledger.windows import window_bounds
from tabkeeper.reports.booked import BookedLine
from tabkeeper.reports.columns import Column, FlatTable

FocusVersion = Literal["1.2", "1.3"]

_PLACES, _SCALE = 12, 18
"""Decimals a quantity has at most, and what price and quantity have together, as a column of Parquet has no more. List
cost is price times quantity, exactly."""
_SECOND = timedelta(seconds=1)
_OWN_PROXIES = "own proxies"
"""Stands for whoever sells them: the ledger knows what they cost, not their seller."""

_NAMED = (
    Column("BilledCost", "money"),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd", "instant"),
    Column("BillingPeriodStart", "instant"),
    Column("ChargeCategory"),
    Column("ChargeClass"),
    Column("ChargeDescription"),
    Column("ChargeFrequency"),
    Column("ChargePeriodEnd", "instant"),
    Column("ChargePeriodStart", "instant"),
    Column("ConsumedQuantity", "decimal"),
    Column("ConsumedUnit"),
    Column("ContractedCost", "decimal"),
    Column("ContractedUnitPrice", "decimal"),
    Column("EffectiveCost", "money"),
    Column("HostProviderName"),
    Column("InvoiceId"),
    Column("InvoiceIssuerName"),
    Column("ListCost", "decimal"),
    Column("ListUnitPrice", "decimal"),
    Column("PricingCategory"),
    Column("PricingCurrency"),
    Column("PricingCurrencyContractedUnitPrice", "decimal"),
    Column("PricingCurrencyEffectiveCost", "money"),
    Column("PricingCurrencyListUnitPrice", "decimal"),
    Column("PricingQuantity", "decimal"),
    Column("PricingUnit"),
    Column("ProviderName"),
    Column("PublisherName"),
    Column("ResourceId"),
    Column("ResourceName"),
    Column("ResourceType"),
    Column("ServiceCategory"),
    Column("ServiceName"),
    Column("ServiceProviderName"),
    Column("ServiceSubcategory"),
    Column("SkuId"),
    Column("SkuMeter"),
    Column("SkuPriceDetails"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
    Column("Tags"),
)
_OWN = (
    Column("x_Entry", "integer"),
    Column("x_EntryKind"),
    Column("x_Outcome"),
    Column("x_Platform"),
    Column("x_ProviderSessionId"),
    Column("x_Quality"),
    Column("x_RateCardFrom", "instant"),
    Column("x_RateCardId", "integer"),
)
_SINCE_1_3 = {"HostProviderName", "ServiceProviderName"}

_OF_PRICES = (
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
)
"""Columns of what is used at a price; null where there is none."""

_UNITS = {
    "hour": "Hours",
    "GB": "GB",
    "MB": "MB",
    "GB-second": "GB-Seconds",
    "browser": "Browsers",
    "session": "Sessions",
    "unit": "Units",
    "second of 48 GB": "Seconds",
}
_METERS = {
    "session": "Sessions created",
    "time": "Session time",
    "units": "Session time in units",
    "gb_second": "Memory over time",
    "proxy_bytes": "Proxy traffic",
    "own_proxy_bytes": "Traffic through proxies of one's own",
}


def focus_columns(version: FocusVersion) -> tuple[Column, ...]:
    """Return the columns of a version, ours (``x_``) last."""
    named = _NAMED if version == "1.3" else [column for column in _NAMED if column.name not in _SINCE_1_3]
    return (*named, *_OWN)


def focus_table(lines: Iterable[BookedLine], version: FocusVersion) -> FlatTable:
    """Turn lines into a dataset of a version."""
    columns = focus_columns(version)

    def rows() -> Iterable[list[Any]]:
        for line in lines:
            values = _values(line)
            yield [values[column.name] for column in columns]

    return FlatTable(columns, rows())


def _values(line: BookedLine) -> dict[str, Any]:
    price, sold = line.price, _sold(line)
    own_month = window_bounds("month", "UTC", line.effective_at)
    # A month is invoiced when it is over, so what is corrected after that is a correction of an earlier invoice.
    is_late = line.entry == "adjust" and line.recorded_at >= own_month.end
    month = window_bounds("month", "UTC", line.recorded_at) if is_late else own_month
    start, end = _charge_period(line)
    values: dict[str, Any] = {
        "BilledCost": line.amount,
        "BillingAccountId": sold.account,
        "BillingAccountName": sold.account,
        "BillingCurrency": "USD",
        "BillingPeriodStart": month.start,
        "BillingPeriodEnd": month.end,
        "ChargeClass": "Correction" if is_late else None,
        "ChargeDescription": f"{_meter(line.kind)}, {line.platform} at {line.provider}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": start,
        "ChargePeriodEnd": end,
        "EffectiveCost": line.amount,
        "HostProviderName": sold.seller,
        "InvoiceId": None,
        "InvoiceIssuerName": sold.seller,
        "PricingCurrency": "USD",
        "PricingCurrencyEffectiveCost": line.amount,
        "ProviderName": sold.seller,
        "PublisherName": sold.seller,
        "ResourceId": line.session_id,
        "ResourceName": None,
        "ResourceType": "Browser session",
        "ServiceCategory": sold.category,
        "ServiceName": sold.service,
        "ServiceProviderName": sold.seller,
        "ServiceSubcategory": f"Other ({sold.category})",
        "SubAccountId": line.tenant,
        "SubAccountName": line.tenant,
        "Tags": {**line.tags, f"{OWN_TAGS}platform": line.platform},
        "x_Entry": line.entry_id,
        "x_EntryKind": line.entry,
        "x_Outcome": line.state,
        "x_Platform": line.platform,
        "x_ProviderSessionId": line.provider_session_id,
        "x_Quality": line.quality,
        "x_RateCardFrom": None if line.card.effective_from == ALWAYS else line.card.effective_from,
        "x_RateCardId": line.card_id,
    }
    return values | (_unpriced(line) if price is None else _usage(line, price))


class _Sold(NamedTuple):
    seller: str
    account: str
    service: str
    category: str


class _Sku(NamedTuple):
    id: str
    price_id: str
    details: Mapping[str, str] | None


def _sold(line: BookedLine) -> _Sold:
    """Who invoices it, to which account, and as what: whoever sells browsers does not sell one's own proxies."""
    if line.kind == OWN_PROXY_KIND:
        return _Sold(_OWN_PROXIES, _OWN_PROXIES, "Proxies", "Networking")
    return _Sold(line.vendor, line.provider, "Browser sessions", "Compute")


def _usage(line: BookedLine, price: Component) -> dict[str, Any]:
    quantity = (Decimal(line.billed_qty) / price.per_qty).quantize(_unit(price), ROUND_HALF_EVEN)
    cost = price.unit_price * quantity
    consumed, unit = _consumed(line)
    pricing_unit = _UNITS.get(price.unit, f"{price.unit[:1].upper()}{price.unit[1:]}s")
    sku = _sku(line, pricing_unit)
    return {
        "ChargeCategory": "Usage",
        "ConsumedQuantity": consumed,
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "ContractedUnitPrice": price.unit_price,
        "ListCost": cost,
        "ListUnitPrice": price.unit_price,
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": price.unit_price,
        "PricingCurrencyListUnitPrice": price.unit_price,
        "PricingQuantity": quantity,
        "PricingUnit": pricing_unit,
        "SkuId": sku.id,
        "SkuMeter": _meter(line.kind),
        "SkuPriceDetails": sku.details,
        "SkuPriceId": sku.price_id,
    }


def _unpriced(line: BookedLine) -> dict[str, Any]:
    """What a provider says it billed beyond its quantities: no usage, and on no price list."""
    nothing = dict.fromkeys(_OF_PRICES)
    cost = line.amount.dollars
    return {"ChargeCategory": "Adjustment", "ContractedCost": cost, "ListCost": cost, **nothing}


def _unit(price: Component) -> Decimal:
    """The least quantity that is told at a price."""
    decimals = max(0, -int(price.unit_price.as_tuple().exponent))
    return Decimal(1).scaleb(-max(0, min(_PLACES, _SCALE - decimals)))


def _sku(line: BookedLine, pricing_unit: str) -> _Sku:
    """What is bought, whatever it costs; and at which of its prices, whatever that is at the time."""
    if line.kind == OWN_PROXY_KIND:
        known = f"{_OWN_PROXIES}/{line.kind}/{pricing_unit}"
        return _Sku(known, known, None)
    plan = line.card.plan
    # Plans of one seller differ in price; what differs in more is counted in another unit, as browsers with a GPU are.
    what = f"{line.kind}/{pricing_unit}"
    return _Sku(f"{plan.partition('/')[0]}/{what}", f"{plan}/{what}", {"x_Plan": plan})


def _consumed(line: BookedLine) -> tuple[Decimal, str]:
    if line.kind in TIME_KINDS:
        return Decimal(line.raw_qty).scaleb(-3), "Seconds"
    if line.kind in BYTE_KINDS:
        return Decimal(line.raw_qty), "B"
    return Decimal(line.raw_qty), "Sessions" if line.kind == SESSION_KIND else "Count"


def _meter(kind: str) -> str:
    return _METERS.get(kind, "Difference to what the provider billed" if kind == "provider" else kind)


def _charge_period(line: BookedLine) -> tuple[datetime, datetime]:
    """From the session's hold to its end, in whole seconds, at least one."""
    start = line.effective_at.replace(microsecond=0)
    end = line.ended_at.replace(microsecond=0)
    end += _SECOND if end < line.ended_at else timedelta(0)
    return start, max(end, start + _SECOND)

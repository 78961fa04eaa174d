"""The rules against which exports are held can fail: each sees the one row that breaks it, and none sees a good row."""

import pytest

from tabkeeper.reports.focus import focus_columns

from .focus_check import violations
from .focus_rules import ABSENT, ABSENT_1_3, COLUMNS

USAGE = {
    "BilledCost": "0.36", "BillingAccountId": "hosted", "BillingAccountName": "hosted", "BillingCurrency": "USD",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z", "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "ChargeCategory": "Usage", "ChargeClass": None, "ChargeDescription": "Session time",
    "ChargeFrequency": "Usage-Based",
    "ChargePeriodEnd": "2026-10-05T13:00:00Z", "ChargePeriodStart": "2026-10-05T12:00:00Z",
    "ConsumedQuantity": "3600", "ConsumedUnit": "Seconds", "ContractedCost": "0.36", "ContractedUnitPrice": "0.36",
    "EffectiveCost": "0.36", "HostProviderName": "acme", "InvoiceId": None, "InvoiceIssuerName": "acme",
    "ListCost": "0.36", "ListUnitPrice": "0.36", "PricingCategory": "Standard", "PricingCurrency": "USD",
    "PricingCurrencyContractedUnitPrice": "0.36", "PricingCurrencyEffectiveCost": "0.36",
    "PricingCurrencyListUnitPrice": "0.36", "PricingQuantity": "1", "PricingUnit": "Hours", "ProviderName": "acme",
    "PublisherName": "acme", "ResourceId": "s1", "ResourceName": None, "ResourceType": "Browser session",
    "ServiceCategory": "Compute", "ServiceName": "Browser sessions", "ServiceProviderName": "acme",
    "ServiceSubcategory": "Other (Compute)", "SkuId": "acme/time", "SkuMeter": "Session time",
    "SkuPriceDetails": '{"x_Plan": "acme"}', "SkuPriceId": "acme/time/1", "SubAccountId": "t", "SubAccountName": "t",
    "Tags": '{"job": "1", "tabkeeper/platform": "web"}', "x_Entry": "1",
}  # fmt: skip
PRICES = dict.fromkeys(
    (
        "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "ListUnitPrice", "PricingCategory",
        "PricingCurrencyContractedUnitPrice", "PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "SkuId",
        "SkuMeter", "SkuPriceDetails", "SkuPriceId",
    )
)  # fmt: skip
ADJUSTMENT = USAGE | PRICES | {"ChargeCategory": "Adjustment"}
CORRECTION = USAGE | {
    "ChargeClass": "Correction",
    "BillingPeriodStart": "2026-11-01T00:00:00Z",
    "BillingPeriodEnd": "2026-12-01T00:00:00Z",
}
TAX = ADJUSTMENT | {"ChargeCategory": "Tax"}
UNPRICED = {"SkuId": None, "SkuMeter": None, "SkuPriceId": None, "SkuPriceDetails": None}

BREAKS = [
    (USAGE, {"BillingPeriodEnd": "2026-10-01T00:00:00Z"}, "BillingPeriodEnd-C-004"),
    (USAGE, {"ChargeClass": "Correction"}, "ChargeClass-C-003"),
    (ADJUSTMENT, {"ChargeCategory": "Purchase"}, "ChargeFrequency-C-004"),
    (USAGE, {"ChargePeriodEnd": "2026-10-05T12:00:00Z"}, "ChargePeriodEnd-C-004"),
    (ADJUSTMENT, {"ConsumedQuantity": "1", "ConsumedUnit": "Seconds"}, "ConsumedQuantity-C-004"),
    (USAGE, {"ConsumedQuantity": None, "ConsumedUnit": None}, "ConsumedQuantity-C-006"),
    (CORRECTION, UNPRICED, "ConsumedQuantity-C-009"),
    (USAGE, {"ConsumedQuantity": None}, "ConsumedUnit-C-005"),
    (USAGE, {"ConsumedUnit": None}, "ConsumedUnit-C-006"),
    (ADJUSTMENT, {"ContractedCost": "0.35"}, "ContractedCost-C-008"),
    (USAGE, {"ContractedCost": "0.35"}, "ContractedCost-C-009"),
    (CORRECTION, {"ContractedCost": "0.35"}, "ContractedCost-C-011"),
    (TAX, {"ContractedUnitPrice": "1"}, "ContractedUnitPrice-C-005"),
    (USAGE, {"ContractedUnitPrice": None}, "ContractedUnitPrice-C-006"),
    (USAGE, {"ContractedUnitPrice": "-0.36"}, "ContractedUnitPrice-C-009"),
    (CORRECTION, UNPRICED, "ContractedUnitPrice-C-014"),
    (CORRECTION, {"ContractedUnitPrice": None}, "ContractedUnitPrice-C-015"),
    (ADJUSTMENT, {"EffectiveCost": "0"}, "EffectiveCost-C-010"),
    (USAGE, {"HostProviderName": None}, "HostProviderName-C-006"),
    (USAGE, {"HostProviderName": "cloud"}, "HostProviderName-C-010"),
    (ADJUSTMENT, {"ListCost": "0.35"}, "ListCost-C-008"),
    (USAGE, {"ListCost": "0.35"}, "ListCost-C-009"),
    (CORRECTION, {"ListCost": "0.35"}, "ListCost-C-011"),
    (TAX, {"ListUnitPrice": "1"}, "ListUnitPrice-C-004"),
    (USAGE, {"ListUnitPrice": None}, "ListUnitPrice-C-005"),
    (USAGE, {"ListUnitPrice": "-0.36"}, "ListUnitPrice-C-008"),
    (CORRECTION, UNPRICED, "ListUnitPrice-C-012"),
    (CORRECTION, {"ListUnitPrice": None}, "ListUnitPrice-C-013"),
    (TAX, {"PricingCategory": "Standard"}, "PricingCategory-C-003"),
    (USAGE, {"PricingCategory": None}, "PricingCategory-C-004"),
    (CORRECTION, UNPRICED, "PricingCategory-C-012"),
    (TAX, {"PricingCurrencyContractedUnitPrice": "1"}, "PricingCurrencyContractedUnitPrice-C-004"),
    (USAGE, {"PricingCurrencyContractedUnitPrice": None}, "PricingCurrencyContractedUnitPrice-C-005"),
    (USAGE, {"PricingCurrencyContractedUnitPrice": "-1"}, "PricingCurrencyContractedUnitPrice-C-008"),
    (CORRECTION, UNPRICED, "PricingCurrencyContractedUnitPrice-C-011"),
    (CORRECTION, {"PricingCurrencyContractedUnitPrice": None}, "PricingCurrencyContractedUnitPrice-C-012"),
    (USAGE, {"PricingCurrencyEffectiveCost": "0.4"}, "PricingCurrencyEffectiveCost-C-006"),
    (TAX, {"PricingCurrencyListUnitPrice": "1"}, "PricingCurrencyListUnitPrice-C-004"),
    (USAGE, {"PricingCurrencyListUnitPrice": None}, "PricingCurrencyListUnitPrice-C-005"),
    (USAGE, {"PricingCurrencyListUnitPrice": "-1"}, "PricingCurrencyListUnitPrice-C-008"),
    (CORRECTION, UNPRICED, "PricingCurrencyListUnitPrice-C-011"),
    (CORRECTION, {"PricingCurrencyListUnitPrice": None}, "PricingCurrencyListUnitPrice-C-012"),
    (TAX, {"PricingQuantity": "1", "PricingUnit": "Hours"}, "PricingQuantity-C-004"),
    (USAGE, {"PricingQuantity": None, "PricingUnit": None}, "PricingQuantity-C-005"),
    (CORRECTION, UNPRICED, "PricingQuantity-C-011"),
    (USAGE, {"PricingQuantity": None}, "PricingUnit-C-005"),
    (USAGE, {"PricingUnit": None}, "PricingUnit-C-006"),
    (USAGE, {"ResourceId": None, "ResourceType": None, "ResourceName": "one"}, "ResourceName-C-004"),
    (USAGE, {"ResourceName": "s1"}, "ResourceName-C-006"),
    (USAGE, {"ResourceId": None}, "ResourceType-C-004"),
    (USAGE, {"ResourceType": None}, "ResourceType-C-005"),
    (USAGE, {"ServiceSubcategory": "Other (Networking)"}, "ServiceSubcategory-C-004"),
    (TAX, {"SkuId": "acme/tax", "SkuMeter": "Tax"}, "SkuId-C-004"),
    (USAGE, {"SkuId": None, "SkuMeter": None}, "SkuId-C-005"),
    (USAGE, {"SkuId": None}, "SkuMeter-C-004"),
    (USAGE, {"SkuMeter": None}, "SkuMeter-C-005"),
    (ADJUSTMENT, {"SkuPriceDetails": '{"x_Plan": "acme"}'}, "SkuPriceDetails-C-004"),
    (USAGE, {"SkuPriceDetails": '{"Plan": "acme"}'}, "SkuPriceDetails-C-017"),
    (TAX, {"SkuPriceId": "acme/tax/1"}, "SkuPriceId-C-004"),
    (USAGE, {"SkuPriceId": None, "SkuPriceDetails": None}, "SkuPriceId-C-005"),
    (USAGE, {"SubAccountId": None}, "SubAccountName-C-004"),
    (USAGE, {"SubAccountName": None}, "SubAccountName-C-005"),
    (USAGE, {"Tags": '{"tabkeeper/mine": "1"}'}, "Tags-C-017"),
]


def header(version):
    return [
        name
        for name in USAGE
        if name.startswith("x_") or (name in COLUMNS and COLUMNS[name].since <= version)
    ]


def broken(row, version):
    return " ".join(violations(header(version), [row], version))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_good_rows_break_nothing(version):
    assert violations(header(version), [USAGE, ADJUSTMENT, CORRECTION, TAX], version) == []


def test_each_rule_sees_what_breaks_it_in_the_versions_that_have_it():
    since = {rule.name: rule.since for column in COLUMNS.values() for rule in column.rules}
    since |= {"HostProviderName-C-006": "1.3", "HostProviderName-C-010": "1.3"}
    assert {name for _, _, name in BREAKS} == set(since), "every rule has its breach"
    for row, change, name in BREAKS:
        assert f"{name} " in broken(row | change, "1.3"), name
        assert (f"{name} " in broken(row | change, "1.2")) == (since[name] == "1.2"), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"BilledCost": None}, "BilledCost is null"),
        ({"BilledCost": "1,5"}, "BilledCost is no Decimal"),
        ({"BilledCost": "+1.5"}, "BilledCost is no Decimal"),
        ({"BilledCost": "$1"}, "BilledCost is no Decimal"),
        ({"ListCost": "1E+3"}, "ListCost is no Decimal"),
        ({"ChargePeriodEnd": "2026-11-01"}, "ChargePeriodEnd is no Date/Time"),
        ({"ChargePeriodEnd": "2026-11-01T00:00:00+01:00"}, "ChargePeriodEnd is no Date/Time"),
        ({"Tags": '{"job": ["1"]}'}, "Tags is no Key-Value"),
        ({"Tags": '{"job": "1", "job": "2"}'}, "Tags is no Key-Value"),
        ({"Tags": "job=1"}, "Tags is no Key-Value"),
        ({"BillingCurrency": "usd"}, "BillingCurrency has not the form"),
        ({"PricingUnit": "hours"}, "PricingUnit has not the form"),
        ({"PricingUnit": "GBs"}, "PricingUnit has not the form"),
        ({"PricingUnit": "GB-Second"}, "PricingUnit has not the form"),
        ({"PricingUnit": "Seconds of 48 GB"}, "PricingUnit has not the form"),
        ({"ChargeCategory": "Consumption"}, "ChargeCategory must not be"),
        ({"ServiceCategory": "Browsers"}, "ServiceCategory must not be"),
        ({"ServiceProviderName": None}, "ServiceProviderName is null"),
        ({"ResourceType": " "}, "NullHandling-A-002: ResourceType"),
        ({"InvoiceId": "Not Applicable"}, "NullHandling-A-002: InvoiceId"),
    ],
)
def test_a_value_of_another_form_is_seen(change, said):
    assert said in broken(USAGE | change, "1.3")


@pytest.mark.parametrize(
    "unit", ["Hours", "GB", "MB", "B", "GB-Seconds", "Sessions", "1000 Tokens", "GB/Hour", "Units/3 Months"]
)
def test_a_unit_of_the_specification_is_none(unit):
    assert broken(USAGE | {"PricingUnit": unit}, "1.3") == ""


def test_columns_that_are_missing_or_of_another_version_or_out_of_order_are_seen():
    names = header("1.3")
    for name, column in COLUMNS.items():
        missing = [one for one in names if one != name]
        said = f"{name} is missing" in " ".join(violations(missing, [], "1.3"))
        assert said == (column.present != "recommended"), name
    assert "HostProviderName is no column" in " ".join(violations(names, [], "1.2"))
    for custom, said in (("Mine", "A-010"), ("x_mine", "A-001"), (f"x_{'A' * 50}", "A-005")):
        assert said in " ".join(violations([*names, custom], [], "1.3"))
    assert "A-013" in " ".join(violations(["x_Entry", *names[:-1]], [], "1.3"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SkuId": "acme/session"}, "SkuPriceId-C-008"),
        ({"SkuPriceDetails": '{"x_Plan": "other"}'}, "SkuPriceDetails-C-007"),
        ({"SkuMeter": "Sessions created"}, "SkuMeter-C-006"),
        ({"ServiceCategory": "Networking", "ServiceSubcategory": "Other (Networking)"}, "ServiceName-C-005"),
        ({"ServiceSubcategory": "Serverless Compute"}, "ServiceName-C-008"),
    ],
)
def test_what_has_two_parents_is_seen(change, said):
    assert said in " ".join(violations(header("1.3"), [USAGE, USAGE | change], "1.3"))


def test_every_column_of_the_specification_is_exported_or_it_is_said_why_not():
    for version, absent, number in (("1.2", ABSENT, 57), ("1.3", ABSENT | ABSENT_1_3, 65)):
        exported = {column.name for column in focus_columns(version) if not column.name.startswith("x_")}
        assert exported == {name for name, column in COLUMNS.items() if column.since <= version}
        assert not exported & set(absent)
        assert len(exported | set(absent)) == number

"""A second opinion on FOCUS: the FinOps Foundation's own validator and requirements models, run on our files.

It needs Python 3.12, so it lives in an environment of its own (docs/exports.md says how): its program is what
``TABKEEPER_FOCUS_VALIDATOR`` names. Runs with ``TABKEEPER_PROOF=1``.
"""

import csv
import io
import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.conftest import PROOF

from tabkeeper.reports.columns import csv_lines
from tabkeeper.reports.focus import focus_table

from .focus_rules import ABSENT, ABSENT_1_3
from .test_exports import booked, books

__all__ = ["books"]

VALIDATOR = os.environ.get("TABKEEPER_FOCUS_VALIDATOR")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(
        not PROOF or VALIDATOR is None, reason="needs TABKEEPER_PROOF=1 and TABKEEPER_FOCUS_VALIDATOR"
    ),
]
SUPPORTED = (
    "ACCOUNT_NAMING_SUPPORTED", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED", "SUB_ACCOUNT_SUPPORTED", "TAGGING_SUPPORTED", "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED", "VIRTUAL_CURRENCY_SUPPORTED",
)  # fmt: skip
"""What applies to our data, in the models' words; the columns of what does not are in `focus_rules.ABSENT`."""
MISTAKEN = {
    # Without the condition that the text has: "when the charge is associated with an invoice".
    "InvoiceId-C-005-C",
    # "MUST NOT be null when SkuPriceId is not null" has the condition that SkuPriceId is null.
    "PricingCurrencyContractedUnitPrice-C-012-C",
}
"""Requirements whose check in the models says something else than their text, which our own rules hold to."""
FAILED = re.compile(r"^❌ (?:CAU-)?(\S+): FAIL .*?msg=(.*)$", re.MULTILINE)


@pytest.mark.parametrize(("version", "passes"), [("1.2", 270), ("1.3", 390)])
async def test_the_foundation_s_validator_finds_no_breach_and_would_see_one(books, tmp_path, version, passes):
    rows = list(csv.reader(io.StringIO("".join(csv_lines(focus_table(booked(books), version))))))
    absent = sorted(ABSENT | (ABSENT_1_3 if version == "1.3" else {}))
    # It applies requirements to columns that need not be there, and then fails for want of them: they are there, empty.
    header, data = [*absent, *rows[0]], [[*[""] * len(absent), *row] for row in rows[1:]]
    failed, passed = validate(tmp_path, version, header, data)
    assert failed <= MISTAKEN
    assert passed > passes
    breaches = {"BillingAccountId-C-001-M": "", "InvoiceIssuerName-C-003-M": "", "ConsumedUnit-C-006-C": ""}
    breaches |= {"ListCost-C-011-C": "7"} if version == "1.3" else {}
    usage = next(row for row in data if row[header.index("ChargeCategory")] == "Usage")
    for name, value in breaches.items():
        usage[header.index(name.partition("-")[0])] = value
    failed, _ = validate(tmp_path, version, header, data)
    assert failed >= set(breaches)


def validate(folder: Path, version: str, header: list[str], rows: list[list[str]]) -> tuple[set[str], int]:
    """Return the requirements that are not met, without those that fail only because others do, and how many are."""
    python = Path(VALIDATOR).with_name("python")
    asked = [str(python), "-c", "import focus_validator; print(focus_validator.__path__[0])"]
    package = Path(
        subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout.strip()
    )
    models = sorted((package / "rules").glob(f"model-{version}*.json"))
    if not models:
        pytest.skip(
            f"focus-validator has no model of {version}: put the specification's release file into its rules"
        )
    file = folder / "focus.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([header, *rows])
    # It looks for its list of currencies in the folder where it is run.
    link = folder / "focus_validator"
    if not link.exists():
        link.symlink_to(package)
    done = subprocess.run(
        [
            VALIDATOR, "--data-file", str(file), "--validate-version", models[-1].stem.removeprefix("model-"),
            "--block-download", "--focus-dataset", "CostAndUsage", "--show-violations",
            "--applicability-criteria", ",".join(SUPPORTED),
        ],
        capture_output=True, text=True, check=False, timeout=900, cwd=folder,
    )  # fmt: skip
    found = re.search(r"Pass: (\d+)", done.stdout)
    assert found is not None, done.stderr[-2000:]
    failed = {
        name
        for name, said in FAILED.findall(done.stdout)
        if "failed child rules" not in said
        and not name.startswith(tuple(f"{one}-" for one in [*ABSENT, *ABSENT_1_3]))
    }
    return failed, int(found[1])

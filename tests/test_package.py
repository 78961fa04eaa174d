"""What users install: the public names, the wheel's contents, and the documents that go with them."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import tabkeeper
from tabkeeper.ledger.rates import Component, RateCard, accrued, worst_case
from tabkeeper.money import Money

ROOT = Path(__file__).parent.parent


def test_public_names_are_sorted_and_exist() -> None:
    assert tabkeeper.__all__ == sorted(tabkeeper.__all__)
    assert len(set(tabkeeper.__all__)) == len(tabkeeper.__all__)
    for name in tabkeeper.__all__:
        assert hasattr(tabkeeper, name), name


def test_the_public_names_are_exactly_these() -> None:
    """Adding a name is a promise, removing one breaks users: both are decided here, by hand."""
    assert tabkeeper.__all__ == [
        "BlockedError", "BudgetExceededError", "BudgetSettings", "ConfigError", "Lease", "LeaseLostError",
        "LeaseRequest", "LedgerError", "LedgerSettings", "LedgerUnavailableError", "Money", "NoProxyError",
        "PlatformSettings", "PoolClosedError", "PoolConfig", "PoolError", "PoolSettings",
        "PoolStats", "ProfileSettings", "ProviderError", "ProviderSettings", "Proxy", "ProxySettings", "QueueFullError",
        "QueueTimeoutError",
        "RateSettings", "SecuritySettings", "SessionCreationError", "SessionPool", "SessionTimeoutError",
        "StickyProxies", "TabkeeperError", "Target", "TenantSettings", "load_config",
    ]  # fmt: skip


def test_the_version_is_one_and_the_same_everywhere() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tabkeeper", "--version"], capture_output=True, text=True, check=False
    )
    assert told.stdout.strip() == f"tabkeeper {tabkeeper.__version__}", told.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|[ab]\d+|rc\d+)?", tabkeeper.__version__)


def test_the_command_is_an_entry_point() -> None:
    (script,) = entry_points(group="console_scripts", name="tabkeeper")
    assert callable(script.load())


WITHOUT_EXTRAS = """
import asyncio, sys
for name in sys.argv[2:]:
    sys.modules[name] = None
import tabkeeper, tabkeeper.cli

async def main():
    async with tabkeeper.SessionPool.from_file(sys.argv[1]) as pool:
        print(pool.stats().sessions)

asyncio.run(main())
"""


def test_a_pool_opens_where_no_extra_is_installed(tmp_path: Path) -> None:
    config = tmp_path / "tabkeeper.toml"
    config.write_text(
        f'ledger.url = "sqlite:///{tmp_path}/books.db"\n[providers.local]\nkind = "local"\n'
        '[platforms.web]\nproviders = ["local"]\n',
        encoding="utf-8",
    )
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        re.split(r"[^A-Za-z0-9_-]", need)[0].replace("-", "_")
        for needs in about["optional-dependencies"].values()
        for need in needs
    }
    assert {"fastapi", "psycopg", "pyarrow", "starlette", "websockets"} <= extras
    modules = sorted(extras - {"opentelemetry_api"} | {"opentelemetry"})
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, str(config), *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the wheel without network and return the names of its files."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.fail("hatchling is missing; run scripts/setup")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_the_wheel_ships_migrations_prices_and_types(wheel: set[str]) -> None:
    versions = (ROOT / "src/tabkeeper/alembic/versions").glob("[0-9]*.py")
    wanted = {f"tabkeeper/alembic/versions/{file.name}" for file in versions}
    assert wanted
    wanted |= {"tabkeeper/alembic/env.py", "tabkeeper/ledger/rates.toml", "tabkeeper/py.typed"}
    assert wanted <= wheel


def test_the_wheel_ships_every_file_of_the_package_and_nothing_else(wheel: set[str]) -> None:
    source = ROOT / "src"
    ours = {
        str(file.relative_to(source))
        for file in (source / "tabkeeper").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in wheel if not name.split("/")[0].endswith(".dist-info")} == ours
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


@pytest.mark.parametrize(
    "maker",
    [
        ["scripts/gen_config_docs.py"],
        ["scripts/gen_provider_docs.py"],
        ["scripts/doc_plots.py"],
        ["-m", "benchmarks.policy.plot"],
    ],
    ids=" ".join,
)
def test_the_generated_documents_are_up_to_date(maker: list[str]) -> None:
    command = [sys.executable, *maker, "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_worked_example_of_the_concepts_is_true() -> None:
    card = RateCard(
        plan="example",
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        components=(
            Component(kind="session", unit="session", unit_price=Decimal("0.01")),
            Component(
                kind="time", unit="hour", unit_price=Decimal("0.12"), per_qty=3_600_000, increment_qty=60_000
            ),
        ),
    )
    text = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    ages = [0, 40, 70, 130, 150]
    first, idle, second, nothing = (
        accrued(card, end) - (accrued(card, start) if start else Money(0))
        for start, end in itertools.pairwise(ages)
    )
    assert f"| 0-40 | first lease | the fee and the first minute | {first} |" in text
    assert f"| 40-70 | nobody | the second minute, at second 60 | {idle} idle |" in text
    assert f"| 70-130 | second lease | the third minute, at second 120 | {second} |" in text
    assert nothing == Money(0)
    assert f"= **{accrued(card, 150)}**" in text
    hold = worst_case(card, 10 * 60 + 5 * 60 + 10)
    assert f"= {hold}.**" in text
    assert f"the other {hold - accrued(card, 150)} are free again" in text


def test_links_between_the_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_documents_name_only_commands_that_exist() -> None:
    from typer.main import get_command

    from tabkeeper.cli.app import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(r"(?m)(?:^|`)tabkeeper ([a-z]+)", page.read_text(encoding="utf-8")):
            assert name in commands, f"{page.name} names `tabkeeper {name}`"


def test_make_proof_finds_every_file_that_counts_higher_for_it() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "import runpy; print(*runpy.run_path('scripts/proof.py')['proof_files']())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    takes_it = re.compile(r"TABKEEPER_PROOF|import .*\bPROOF\b")
    wanted = {
        str(f.relative_to(ROOT)) for f in ROOT.glob("tests/**/test_*.py") if takes_it.search(f.read_text())
    }
    assert len(wanted) > 20
    assert wanted <= set(listed)

"""The Python of the documentation runs as it stands; its tables name all there is; its links lead somewhere."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tabkeeper
from tabkeeper import Lease, PoolConfig, PoolStats, SessionPool, errors
from tabkeeper.config import load_config, parse_config
from tabkeeper.config.provider import KEY_VARIABLES
from tabkeeper.ledger.prices import Prices
from tabkeeper.providers import make_provider
from tabkeeper.reports.render_csv import COLUMNS
from tabkeeper.reports.report import BudgetFigures, CostReport, Usage

DOCS = Path(__file__).parents[1] / "docs"
PAGE = "data:text/html,<title>Example Domain</title>"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    """The page's Python, with a page that needs no network."""
    found = re.findall(r"^```python\n(.*?)^```", text(name), re.MULTILINE | re.DOTALL)
    return [block.replace("https://example.com", PAGE) for block in found]


def config(folder: Path) -> PoolConfig:
    return parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/books.db"},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "0.12"}}},
            "platforms": {"web": {}},
        }
    )


def environment() -> dict[str, str]:
    return {
        k: v for k, v in os.environ.items() if not k.startswith("TABKEEPER_") or k == "TABKEEPER_CHROMIUM"
    }


@pytest.mark.browser
def test_the_api_s_program_runs_as_pasted(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(blocks("api.md")[0], encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "Example Domain\n"), ended.stderr


@pytest.mark.browser
async def test_every_piece_of_the_api_s_code_runs_with_an_open_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *pieces = blocks("api.md")
    assert len(pieces) == 10
    # The piece that ends the pool comes last.
    pieces.sort(key=lambda piece: "pool.close()" in piece)
    async with SessionPool(config(tmp_path)) as pool:
        for piece in pieces:
            scope: dict[str, object] = {"pool": pool, "asyncio": asyncio}
            exec("async def run():\n" + textwrap.indent(piece, "    "), scope)
            await scope["run"]()
            assert pool.stats().leased == 0, f"a lease was left open by:\n{piece}"
        assert pool.stats().leases >= 6
    said = capsys.readouterr().out
    assert said.count("Example Domain") == 2
    assert "True\nTrue\n" in said
    assert "this month: $" in said


def test_sticky_sessions_are_five_lines(tmp_path: Path) -> None:
    program = blocks("proxies.md")[0]
    assert len([line for line in program.splitlines() if line]) == 5
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.stdout.startswith("10.0.0."), ended.stderr


@pytest.mark.browser
@pytest.mark.kill
def test_sigterm_ends_the_program_of_the_operations_page_in_order(tmp_path: Path) -> None:
    (program,) = blocks("operations.md")
    begin = """
import asyncio, contextlib, signal
from tabkeeper import SessionPool

async def serve(pool):
    async with pool.get_session("web") as session:
        await session.new_page()
        print("ready", flush=True)
        await asyncio.Event().wait()

"""
    (tmp_path / "program.py").write_text(begin + program, encoding="utf-8")
    (tmp_path / "tabkeeper.toml").write_text("[platforms.web]\n", encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors_told = process.communicate(timeout=60)
    assert process.returncode == 0, errors_told
    assert "Traceback" not in errors_told
    listed = subprocess.run(
        [sys.executable, "-m", "tabkeeper", "sessions", "list", "--closed", "5"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert len(listed.splitlines()) == 2, "a heading and one session"
    assert "shutdown" in listed


def table_names(page: str) -> set[str]:
    """What stands in backquotes in the first column of a page's tables."""
    first = re.findall(r"^\| (.+?) \|", text(page), re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`(?:await )?(\w+)", cell)}


def members(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_the_api_s_tables_name_every_argument_every_member_and_every_common_error() -> None:
    named = table_names("api.md")
    arguments = set(inspect.signature(SessionPool.get_session).parameters) - {"self"}
    assert arguments <= named
    assert members(Lease) - {"end_of_block"} <= named
    assert set(PoolStats.model_fields) <= named
    exported = {name for name in tabkeeper.__all__ if name.endswith("Error")}
    assert exported - {"TabkeeperError", "PoolError", "LedgerError"} <= named
    assert {name for name in named if name.endswith("Error")} <= set(dir(errors))


def test_the_reports_page_names_every_field_of_json_and_csv() -> None:
    words = set(re.findall(r"`(\w+)`", text("reports.md")))
    for model in (CostReport, Usage, BudgetFigures):
        assert set(model.model_fields) <= words, model
    assert set(COLUMNS) <= words
    assert "left" in words


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    ours = re.compile(r"https://github.com/tabkeeper/tabkeeper/(?:blob|tree)/main/")
    places = [
        DOCS.parent / ours.sub("", link) if ours.match(link) else page.parent / link
        for link in links
        if ours.match(link) or not link.startswith("https://")
    ]
    assert not [str(place) for place in places if not place.exists()]


def test_every_page_is_in_the_index() -> None:
    index = text("index.md")
    assert not [
        page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index
    ]


def test_the_first_lease_is_the_readme_s_which_is_run() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n.*?^```", text("first-lease.md"), re.MULTILINE | re.DOTALL)
    assert program in readme


def test_every_page_has_its_place_on_the_site() -> None:
    # Dead links and anchors inside the site are found by building it, which `make lint` does.
    site = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    placed = re.findall(r": ([\w/-]+\.md)$", site, re.MULTILINE)
    assert sorted(placed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md"))


@pytest.mark.parametrize("kind", KEY_VARIABLES)
def test_the_page_of_a_provider_begins_with_a_configuration_that_is_complete(
    kind: str, tmp_path: Path
) -> None:
    page = text(f"providers/{kind.replace('_', '-')}.md")
    block = re.search(r"^( *)```toml\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    file = tmp_path / "tabkeeper.toml"
    file.write_text(textwrap.dedent(block[2]), encoding="utf-8")
    settings = load_config(file, {KEY_VARIABLES[kind]: "a-key"})
    (name,) = settings.providers
    assert settings.providers[name].kind == kind
    (platform,) = settings.platforms.values()
    assert list(platform.providers) == [name]
    assert Prices(settings.providers).current(name, datetime.now(UTC)).components
    make_provider(name, settings.providers[name])
    assert f"`tabkeeper emulate {kind}`" in page

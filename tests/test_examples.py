"""Every example, and the Python of the README, run as a user would run them: as programs, with a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE = "data:text/html,<title>Example Domain</title>"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

SAYS = {
    "first_lease.py": ["Hello from a leased browser", "the same session, reused", "cost of the day: $0.00"],
    "budget.py": [
        "session 1: paid for, $0.02",
        "session 2: paid for, $0.02",
        'session 3: refused. Budget "daily" has',
        "cost of the day: $0.04",
    ],
    "priorities.py": ["urgent", "soon", "first", "second", "last"],
    "many_tasks.py": ["20 pages read", "sessions at once: 3 of 3", "leases: 20, of which"],
    "block_resources.py": ["full: 100 kB", "lean: 0 kB"],
    "stay_logged_in.py": [
        "first visit: nobody",
        "second visit: ada",
        "another tenant: nobody",
        "profiles: 2, healthy: 2",
    ],
    "sticky.py": [
        "1000 requests of one key, proxies: 1",
        "another proxy after a failure: True",
        "the same after a restart: True",
    ],
    "routing.py": [
        "news at plain: Welcome",
        "shop at plain: Access denied",
        "shop at plain: Access denied",
        "shop at stealthy: Welcome",
        "shop asks stealthy > plain; a lease costs about {'stealthy': '0.01', 'plain': '0.00'}",
        "news asks plain > stealthy",
    ],
    "crawl.py": ["18 pages, 8 items, 0 failed", "'price'", "committed: True"],
    "report.py": ["leases that reused a session: 1 of 4", "acme", "globex", "budget daily: $0.03"],
}


def run(arguments: list[str], folder: Path) -> str:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("TABKEEPER_") or k == "TABKEEPER_CHROMIUM"
    }
    ended = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout


def test_every_example_is_tried_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_the_example_runs_and_says_what_it_should(name: str, tmp_path: Path):
    said = run([str(EXAMPLES / name)], tmp_path)
    place = 0
    for words in SAYS[name]:
        place = said.find(words, place)
        assert place >= 0, f"{words!r} is missing, or too early, in:\n{said}"
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


@pytest.mark.parametrize("name", SAYS)
def test_an_example_fits_on_a_page(name: str):
    assert len((EXAMPLES / name).read_text().splitlines()) < 50


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )


def test_the_readme_s_first_program_runs_as_pasted(tmp_path: Path):
    (tmp_path / "program.py").write_text(blocks("python")[0].replace("https://example.com", PAGE))
    assert run(["program.py"], tmp_path).splitlines() == ["Example Domain", "cost of the day: $0.00"]


def test_the_readme_s_second_program_runs_with_its_configuration(tmp_path: Path):
    (tmp_path / "tabkeeper.toml").write_text(blocks("toml")[0])
    (tmp_path / "program.py").write_text(blocks("python")[1].replace("https://example.com", PAGE))
    assert re.fullmatch(r"Example Domain for \$0\.01\d+\n", run(["program.py"], tmp_path))
    assert "$0.01" in run(["-m", "tabkeeper", "report", "day"], tmp_path)
    assert "every invariant holds" in run(["-m", "tabkeeper", "verify"], tmp_path)


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert not [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]

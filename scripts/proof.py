"""Run the long proofs at full count and keep what they showed, with date, commit and machine.

A proof is any test in a file that counts by PROOF (TABKEEPER_PROOF=1) or that kills processes. More arguments go to
pytest.
The results stand in ``benchmarks/results/proof-<date>-<commit>.json`` and, for people, ``.md``.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIGNS = ("PROOF", "mark.proof", "mark.kill")
PACKAGES = (
    "tabkeeper",
    "sqlalchemy",
    "sqlmodel",
    "playwright",
    "psycopg",
    "pydantic",
    "hypothesis",
    "pytest",
)
LONGEST_SECONDS = 4 * 3600
"""A single proof may take this long before it counts as stuck."""


def proof_files() -> list[str]:
    """Return the test files that hold proofs."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [f for f in files if any(sign in f.read_text(encoding="utf-8") for sign in SIGNS)]
    return [str(f.relative_to(ROOT)) for f in found]


def run_tests(files: Sequence[str], extra: Sequence[str], junit: Path) -> int:
    """Run pytest at full count and return its exit code."""
    command = [sys.executable, "-m", "pytest", "-n", os.environ.get("WORKERS", "2"), "--dist", "loadgroup"]
    command += ["-o", f"timeout={LONGEST_SECONDS}", f"--junit-xml={junit}", *files, *extra]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TABKEEPER_PROOF": "1"}, check=False
    ).returncode


def read_tests(junit: Path) -> list[dict[str, Any]]:
    """Return name, outcome, seconds and recorded properties of every test in a JUnit report."""
    tests = []
    for case in ET.parse(junit).iter("testcase"):
        if not case.get("name"):
            continue  # how pytest notes that it was broken off
        outcomes = [tag for tag in ("failure", "error", "skipped") if case.find(tag) is not None]
        tests.append(
            {
                "name": f"{case.get('classname', '')}::{case.get('name', '')}",
                "outcome": outcomes[0] if outcomes else "passed",
                "seconds": round(float(case.get("time", "0")), 2),
                "counts": {p.get("name", ""): p.get("value", "") for p in case.iter("property")},
            }
        )
    return sorted(tests, key=lambda test: test["name"])


def surroundings() -> dict[str, Any]:
    """Describe commit, machine and versions; names of hosts and users stay out."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _output("git", "rev-parse", "HEAD") or "unknown",
        "uncommitted_changes": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "machine": {
            "system": f"{platform.system()} on {platform.machine()}",
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "browser": _browser(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the results as a page."""
    machine, versions = result["machine"], result["versions"]
    lines = [
        f"# Proofs of {result['date'][:10]}",
        "",
        (
            f"Commit `{result['commit'][:12]}`{' with uncommitted changes' if result['uncommitted_changes'] else ''}, "
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}."
        ),
        "",
        ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
        f"**{', '.join(f'{n} {outcome}' for outcome, n in result['totals'].items())}** in {result['seconds']:.0f} s.",
        "",
        "| test | outcome | seconds | counts |",
        "|---|---|---:|---|",
    ]
    for test in result["tests"]:
        counts = ", ".join(f"{key} {value}" for key, value in test["counts"].items())
        name = test["name"].replace("|", "\\|")
        lines.append(f"| {name} | {test['outcome']} | {test['seconds']:.1f} | {counts} |")
    return "\n".join(lines) + "\n"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _browser() -> str:
    from tabkeeper.config import ProviderSettings
    from tabkeeper.errors import ConfigError
    from tabkeeper.providers.chromium import find_browser
    from tabkeeper.providers.chromium import version as browser_version

    try:
        return browser_version(find_browser("local", ProviderSettings(kind="local")))
    except ConfigError:
        return "none"


def main(extra: Sequence[str]) -> int:
    """Run the proofs and write their results; the exit code is pytest's."""
    started = datetime.now(UTC)
    result = surroundings()
    with tempfile.TemporaryDirectory(prefix="tabkeeper-proof-") as folder:
        junit = Path(folder) / "junit.xml"
        code = run_tests(proof_files(), extra, junit)
        tests = read_tests(junit) if junit.exists() else []
    result["exit_code"] = code
    result["seconds"] = round((datetime.now(UTC) - started).total_seconds(), 1)
    result["totals"] = dict(sorted(Counter(test["outcome"] for test in tests).items()))
    result["tests"] = tests
    RESULTS.mkdir(parents=True, exist_ok=True)
    stem = RESULTS / f"proof-{result['date'][:10]}-{result['commit'][:7]}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(as_text(result), encoding="utf-8")
    print(f"wrote {stem.relative_to(ROOT)}.json and .md")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

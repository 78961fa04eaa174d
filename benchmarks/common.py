"""What every benchmark needs: the machine's description, percentiles, a place for results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "tabkeeper",
    "sqlalchemy",
    "sqlmodel",
    "playwright",
    "psycopg",
    "psycopg-pool",
    "crawlee",
    "pydantic",
    "uvicorn",
    "uvloop",
    "websockets",
)


def machine() -> dict[str, Any]:
    """Describe where and with what a figure was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": versions,
        # Where a file lies is a matter of this machine.
        "command": "python -m benchmarks " + " ".join(Path(one).name for one in sys.argv[1:]),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the sorted `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def micros(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest of some durations, in microseconds."""
    return {
        "p50_us": round(percentile(seconds, 0.50) * 1e6, 1),
        "p95_us": round(percentile(seconds, 0.95) * 1e6, 1),
        "p99_us": round(percentile(seconds, 0.99) * 1e6, 1),
        "max_us": round(max(seconds) * 1e6, 1),
        "n": len(seconds),
    }


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write one benchmark's figures, with the machine's description, to `results/`."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(
        json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n", encoding="utf-8"
    )
    return target

"""An owner of browsers that comes to a bad end: python owner.py STATE_DIR MODE ISOLATION.

Starts a provider, creates two sessions, tells what it has in one line of JSON, and then does what MODE says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from tabkeeper.config import ProviderSettings
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.lifeline import Lifeline
from tabkeeper.providers.local import LocalProvider


async def main() -> None:
    state_dir, mode, isolation = sys.argv[1:]
    if mode == "no-watchdog":
        Lifeline.ensure = lambda self: None
        Lifeline.watch = lambda self, pid: None
    provider = LocalProvider(
        "local", ProviderSettings(kind="local", isolation=isolation), state_dir=Path(state_dir)
    )
    await provider.start(lambda session_id, reason: None)
    names = ["a"] if mode == "no-watchdog" else ["a", "b"]
    sessions = [
        await provider.create(SessionSpec(session_id=n, platform="web", max_seconds=60)) for n in names
    ]
    child = None
    if mode == "fork":
        child = os.fork()
        if child == 0:  # holds copies of everything we have open
            time.sleep(60)
            os._exit(0)
    lifeline, run = provider._processes._lifeline, provider._processes._run
    facts = {
        "browser": sessions[0].pid,
        "browser_started": sessions[0].pid_started,
        "watchdog": lifeline.pid,
        "run_dir": str(run.path),
        "child": child,
    }
    print(json.dumps(facts), flush=True)
    if mode == "return":
        return
    if mode == "raise":
        raise RuntimeError("an owner that did not see this coming")
    if mode == "aclose":
        await provider.aclose()
        return
    await asyncio.Event().wait()


# A shell that starts us in the background makes us ignore Ctrl-C, and Python respects that.
signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())

"""Is anything left running? Remembers every process that the demo starts, and looks for them when it is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import psutil


@dataclass(slots=True)
class Leftovers:
    """The processes below this one, by process id and start time."""

    marker: str
    """A word on the command line of every browser of this demo."""
    seen: dict[int, float] = field(default_factory=dict)
    browsers: int = 0
    """Browser processes seen, helpers of browsers included."""

    def look(self) -> None:
        """Remember what runs now."""
        for process in psutil.Process().children(recursive=True):
            try:
                started = process.create_time()
                if self.seen.get(process.pid) != started:
                    self.seen[process.pid] = started
                    self.browsers += "chrom" in process.name().lower()
            except psutil.Error:
                continue  # it ended while being looked at

    def running(self) -> list[str]:
        """Describe what still runs of all that was ever seen, and any other browser with the marker."""
        found = {}
        for process in psutil.process_iter():
            try:
                known = self.seen.get(process.pid) == process.create_time()
                if process.status() != psutil.STATUS_ZOMBIE and (known or self._marked(process)):
                    found[process.pid] = f"{process.name()} (pid {process.pid})"
            except psutil.Error:
                continue
        return list(found.values())

    def _marked(self, process: psutil.Process) -> bool:
        return any(self.marker in word for word in process.cmdline())

    async def wait_until_gone(self, seconds: float = 5.0) -> list[str]:
        """Return what still runs after at most `seconds`; the kernel needs a moment to end what was told to end."""
        left = self.running()
        deadline = asyncio.get_running_loop().time() + seconds
        while left and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
            left = self.running()
        return left

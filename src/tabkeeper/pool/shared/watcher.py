"""Which members of a shared board are gone: no new sign of life for too long, or a process that ended on this machine.

Durations are this process's own, on its monotonic clock, so no clock that is set anew makes anybody look dead. Whoever
was held up itself has seen nothing meanwhile; who had lost the database begins to watch anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from tabkeeper.clock import Instant
from tabkeeper.liveness import lives


class Watcher:
    """One process's watch over the others.

    Args:
        heartbeat: seconds without a new sign of life after which a member is taken for dead.
    """

    def __init__(self, heartbeat: float) -> None:
        self._heartbeat = heartbeat
        self._seen: dict[int, tuple[int | None, float]] = {}
        self._looked_at: Instant | None = None
        self._watched = 0.0
        """Seconds for which this process has watched: of a pause in which it was held up, only as long as it meant."""

    def restart(self) -> None:
        """Forget what was seen."""
        self._seen.clear()

    def look(
        self,
        beats: Mapping[int, int | None],
        who: Mapping[int, tuple[str, int, int]],
        host: str,
        now: Instant,
    ) -> list[tuple[int, bool]]:
        """Return the members that are gone, and whether that is certain.

        Args:
            beats: how often each of the others has said that it lives.
            who: host, process id and start of each.
            host: this process's.
            now: on its monotonic clock.
        """
        if self._looked_at is not None:
            self._watched += min(now - self._looked_at, self._heartbeat / 4)
        self._looked_at = now
        gone = []
        seen: dict[int, tuple[int | None, float]] = {}
        for home, count in beats.items():
            where, pid, started = who[home]
            if where == host and not lives(pid, started):
                gone.append((home, True))
                continue
            known = self._seen.get(home)
            seen[home] = known if known is not None and known[0] == count else (count, self._watched)
            if self._watched - seen[home][1] >= self._heartbeat:
                gone.append((home, False))
        self._seen = seen
        return gone

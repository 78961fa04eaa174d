"""What is left to do on one site of a run: pages in line, pages to be tried again, whether it may be visited now.

It reads no clock and touches no session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from itertools import islice

from tabkeeper.clock import Instant
from tabkeeper.sites.distributor import Terms, Waiting
from tabkeeper.sites.progress import Count
from tabkeeper.sites.registry import Site
from tabkeeper.sites.runs import Gain, RunPage
from tabkeeper.sites.standing import SiteCount

_FIRST_REST, _LONGEST_REST = 0.25, 5.0
"""Seconds for which a site is left alone after a failure there; they double with each in a row."""
_LONGEST_BLOCK = 120.0
"""Seconds that the end of a cool-down is waited for; what takes longer is left to another day."""
_HOPES = 4
"""Looks in a row for a proxy after which a site is left alone."""


class SiteWork:
    """One site of one run.

    Args:
        site: its domain and settings.
        patience: failures in a row after which it is left alone.
    """

    def __init__(self, site: Site, patience: int) -> None:
        self.site = site
        self.name = site.domain
        self.given_up = ""
        """Why nothing more is done there in this run; empty if it is not so."""
        self.taking = 0
        """Sessions on their way to it."""
        self._patience = patience
        self._fresh: deque[RunPage] = deque()
        self._again: dict[int, RunPage] = {}
        self._running = 0
        self._in_row = 0
        self._hopes = 0
        self._rests_until: Instant = 0.0
        self._done = self._failed = self._items = self._retries = 0
        self._seconds = 0.0
        self._received = 0

    # ── pages ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, count: SiteCount) -> None:
        """Go on from what earlier processes did."""
        self._done, self._items = count.done, count.items
        self._seconds, self._received = count.seconds, count.received

    def add(self, page: RunPage) -> None:
        """Put a page in line."""
        if page.attempts:
            self._again[page.n] = page
        else:
            self._fresh.append(page)

    def waiting(self, most: int) -> Iterable[Waiting]:
        """Return what matters to `most` free sessions: the oldest pages in line, and all that are tried again."""
        for page in self._again.values():
            yield Waiting(id=page.n, site=self.name, avoid=page.avoid)
        for page in islice(self._fresh, most):
            yield Waiting(id=page.n, site=self.name)

    def begin_visit(self, n: int) -> RunPage:
        """Take a page out of the line."""
        self._running += 1
        page = self._again.pop(n, None)
        if page is None:
            page = next(one for one in self._fresh if one.n == n)
            self._fresh.remove(page)
        return page

    def end_visit(self) -> None:
        """A session is done with a page, whatever came of it."""
        self._running -= 1

    def page_done(self, gain: Gain) -> None:
        """Count a page that is done."""
        self._in_row = 0
        self._rests_until = 0.0
        self._done += 1
        self._items += len(gain.items)
        self._seconds += gain.seconds
        self._received += gain.received

    def page_failed(self, page: RunPage, error: str, now: Instant, *, final: bool, rest: bool) -> None:
        """Count a failure; the page gets back into line unless it is `final`."""
        self._in_row += 1
        if final:
            self._failed += 1
        else:
            self._retries += 1
            self._again[page.n] = page
        if rest:
            self.rest_until(now + min(_LONGEST_REST, _FIRST_REST * 2 ** min(self._in_row - 1, 10)))
        if self._in_row >= self._patience:
            self.given_up = f"{self._in_row} visits in a row failed; last: {error}"

    # ── whether it may be visited ──────────────────────────────────────────────────────────────────────────────────

    def rest_until(self, until: Instant) -> None:
        """Leave the site alone for a while."""
        self._rests_until = max(self._rests_until, until)

    def no_proxy(self, error: str, block_ends: Instant | None, now: Instant) -> None:
        """No proxy may visit it now: forget what pages avoid, wait for the end of a block that is near, or give up."""
        if any(page.avoid for page in self._again.values()):
            for page in self._again.values():
                page.avoid = frozenset()
            return
        if block_ends is not None and block_ends - now <= _LONGEST_BLOCK:
            self.rest_until(block_ends + 0.1)
            return
        self._hopes += 1
        self.rest_until(now + self._hopes)
        if self._hopes >= _HOPES:
            self.given_up = error

    def has_session(self) -> None:
        """A session was found for it."""
        self._hopes = 0

    def is_live(self, now: Instant) -> bool:
        """Say whether pages of it may be visited now."""
        return not self.given_up and now >= self._rests_until and bool(self._fresh or self._again)

    @property
    def wants_session(self) -> bool:
        """Whether a page waits for which there is room, and no session on its way."""
        waiting = len(self._fresh) + len(self._again) - self.taking
        return waiting > 0 and self.site.settings.max_sessions - self._running - self.taking > 0

    @property
    def avoided(self) -> frozenset[str]:
        """What a session taken for it must not be, or go through."""
        if self._fresh or not self._again:
            return frozenset()
        return self._again[min(self._again)].avoid

    @property
    def left(self) -> int:
        """Pages that this process will still try."""
        return self._running + (0 if self.given_up else len(self._fresh) + len(self._again))

    def terms(self, blocked: Collection[str]) -> Terms:
        """Return what the distributor needs of it.

        What a page takes is told roughly, in powers of two, so that sites that are much alike count as alike.
        """
        pages = max(1, self._done)
        return Terms(
            room=max(0, self.site.settings.max_sessions - self._running),
            blocked=frozenset(blocked),
            kinds=frozenset(self.site.settings.proxy_types),
            page_ms=_roughly(int(self._seconds * 1000) // pages),
            page_bytes=_roughly(self._received // pages),
        )

    def count(self) -> Count:
        """Return how far it has come."""
        return Count(
            done=self._done,
            pending=self._running + len(self._fresh) + len(self._again),
            failed=self._failed,
            items=self._items,
            retries=self._retries,
            sessions=self._running,
            note=self.given_up,
        )


def _roughly(value: int) -> int:
    return 0 if value <= 0 else 1 << (value - 1).bit_length()

"""The board of many processes: one log in PostgreSQL, and in each process a copy of the board that follows it.

What a process tells becomes an entry of the log, ordered and dated by the database in one short statement. Every copy
applies the entries in that order and plans after each; all come to the same decisions, and each process carries out
those that concern its own requests and sessions (docs/decisions/0015). Nothing but the database is ever waited for
while the log is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tabkeeper.clock import FleetClock, Instant
from tabkeeper.errors import ConfigError, LedgerUnavailableError
from tabkeeper.ledger.boardlog import AlreadyToldError, BoardLog, Line, new_nonce
from tabkeeper.ledger.processes import Identity
from tabkeeper.pool import snapshot
from tabkeeper.pool.model import NEVER, Action, Check, Close, Create, Grant, Refuse, Request, Session, State
from tabkeeper.pool.plan import wake_at, why_waiting
from tabkeeper.pool.replica import Entry, Event, Moved, entry_from, to_text, whose
from tabkeeper.pool.teller import Hooks, Teller
from tabkeeper.pool.view import View
from tabkeeper.pool.watcher import Watcher

log = logging.getLogger(__name__)

JUMP = 5.0
"""Seconds by which the database's clock may differ from this process's own idea of it before it is corrected."""
SLOW_POLL = 1.0
"""Seconds between two looks at the log, should notifications not arrive."""
_TURN = 0.15
"""Seconds by which each further process is slower to notice that something is due, so that one of them tells it."""
_PATIENCE = 8.0
"""Seconds that leaving may take; the others notice in any case."""
_PULSE = 0.25
"""Seconds between two looks for requests that nobody answers."""
_SILENCE = 1.0
"""Seconds past its deadline after which a request is answered here, should the board not have answered it."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between attempts to reach the database; the last is repeated."""


@dataclass(slots=True)
class _Batch:
    """What is being told."""

    nonce: str
    events: list[Event]
    last: int
    """The number of the last thing told in it."""
    expect: int | None = None


class PostgresBoard(Teller):
    """See `Board` and the module.

    Args:
        view: the copy that the pool reads.
        clock: kept in time with the database by this board.
        log: where entries are written.
        who: this process.
        planner: what this process decides by; processes of one board must have the same.
        prefix: how ids of sessions begin.
        heartbeat: seconds without a sign of life after which a process is taken for dead.
        snapshot_every: entries between two snapshots, at least.
        keep_entries: entries that are kept beyond what a snapshot needs, for people.
    """

    def __init__(
        self,
        view: View,
        clock: FleetClock,
        line: BoardLog,
        hooks: Hooks,
        *,
        who: Identity,
        planner: str,
        prefix: str,
        heartbeat: float,
        snapshot_every: int = 1000,
        keep_entries: int = 2000,
    ) -> None:
        super().__init__(view, clock, prefix)
        self._draining = False
        self.fenced_times = 0
        self.reloads = 0
        self._fleet = clock
        self._log = line
        self._hooks = hooks
        self._who = who
        self._planner = planner
        self._heartbeat = heartbeat
        self._every = snapshot_every
        self._keep = keep_entries
        self._outbox: list[Event] = []
        self._told = self._done = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._batch: _Batch | None = None
        self._lines: dict[int, Line] = {}
        """Entries that came before their turn."""
        self._known_end = 0
        self._tick: int | None = None
        self._wake = asyncio.Event()
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: Instant = NEVER
        self._failures = 0
        self._watcher = Watcher(heartbeat)
        self._beat_at = 0.0
        self._looked = asyncio.Event()
        self._saved_at = 0
        self._leaving = self._must_reload = False
        self._replayed = 0
        """Entries up to this one are applied for the second time."""

    def _tell(self, *event: Any) -> None:
        self._outbox.append(list(event))
        self._told += 1
        self._wake.set()

    @property
    def draining(self) -> bool:
        """See `Board.draining`."""
        return self._draining

    def drain(self) -> None:
        """See `Board.drain`."""
        self._draining = True
        self._tell("leave")

    def poke(self) -> None:
        """See `Board.poke`."""
        self._tick = self.replica.seq
        self._wake.set()

    async def settled(self) -> None:
        """See `Board.settled`."""
        if self._done < self._told and not self._stopped:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._told, future))
            await future

    # ── opening and closing ────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Join the processes that share the board, or be the first of them.

        Raises:
            LedgerUnavailableError: the database cannot be reached.
            ConfigError: processes that decide by other rules run this board.
        """
        await self._join()
        self._tasks = [
            asyncio.create_task(self._run(), name="tabkeeper board"),
            asyncio.create_task(self._listen(), name="tabkeeper board's ear"),
            asyncio.create_task(self._pulse(), name="tabkeeper board's pulse"),
        ]

    @property
    def leads(self) -> bool:
        """See `Board.leads`."""
        return self._log.leads

    @property
    def alone(self) -> bool:
        """See `Board.alone`."""
        return all(home == self.home or one.leaving for home, one in self.replica.members.items())

    def mine(self) -> list[Session]:
        """See `Board.mine`."""
        return [session for session in self.view.sessions.values() if session.home == self.home]

    def waiting(self) -> list[Request]:
        """See `Board.waiting`."""
        return list(self.replica.here.values())

    def stop(self) -> None:
        """See `Board.stop`."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def aclose(self) -> None:
        """Leave: what this process still has goes to the others; then close the connections."""
        self._leaving = True
        try:
            if self._tasks and not self._stopped:
                with contextlib.suppress(TimeoutError, LedgerUnavailableError):
                    async with asyncio.timeout(_PATIENCE):
                        await self._say_goodbye()
                        await self._log.depart([self.home])
        finally:
            self.stop()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._log.aclose()

    async def _say_goodbye(self) -> None:
        """Leave; if nobody is there to go on with what idles here, it is closed first."""
        # Nothing may be left to a process that has died and was not missed yet: who would end it?
        self._looked.clear()
        self._beat_at = 0.0
        self._wake.set()
        await self._looked.wait()
        while self.home in self.replica.members:
            self._tell("left")
            await self.settled()
            while self.home in self.replica.members and self.mine():  # noqa: ASYNC110
                await asyncio.sleep(_TURN)

    async def _join(self) -> None:
        """Load the state of the board, or found it; then become a member."""
        await self._log.begin()
        await self._wait_for_strangers()
        async with self._log.joining():
            roll = await self._log.roll()
            others = [one.home for one in roll]
            found = await self._log.snapshot(self._planner) if others else None
            member = [self._who.id, self._who.host, self._who.pid, self._who.pid_started_at]
            if found is None:
                # Nobody else is there, so nothing on the board is anybody's; what runs, the ledger's rows tell.
                end, _ = await self._log.beat(0)
                self.replica.found(end)
                await self._log.depart(others)
            else:
                snapshot.load(self.replica, found[1])
            nonce = new_nonce()
            line = await self._append_join(nonce, member)
            if found is None:
                self._take_line(line)
                await self._log.save(
                    line.seq, self._planner, snapshot.write(self.replica), keep_entries=self._keep
                )
                self._saved_at = line.seq
            else:
                self._saved_at = found[0]
                await self._catch_up(line.seq)
            self.home = line.seq
            self.replica.belong(self.home)
            await self._log.arrive(self.home, self._who.id, self._who.host, self._planner)
        self._watcher.restart()

    async def _wait_for_strangers(self) -> None:
        """See to it that nobody alive runs the board by other rules.

        Raises:
            ConfigError: somebody does.
        """
        seen = {one.home: one for one in await self._log.roll() if one.planner != self._planner}
        began = self._fleet.raw()
        while seen and self._fleet.raw() - began < self._heartbeat:
            await asyncio.sleep(min(SLOW_POLL, self._heartbeat / 4))
            now = {one.home: one for one in await self._log.roll()}
            seen = {home: one for home, one in seen.items() if home in now}
            alive = [one for home, one in seen.items() if now[home].beats != one.beats]
            if alive:
                what = (
                    "version of Tabkeeper"
                    if alive[0].planner.partition(":")[0] != self._planner.partition(":")[0]
                    else "configuration (limits, platforms, providers or prices)"
                )
                raise ConfigError(
                    f"{len(alive)} running process{'es' if len(alive) > 1 else ''} of this shared pool, one on "
                    f"{alive[0].host.partition('/')[0]}, have another {what}; give all the same, or end those "
                    "first, or let this one be a pool of its own with pool.name"
                )
        await self._log.depart(list(seen))

    async def _append_join(self, nonce: str, member: list[Any]) -> Line:
        sent = self._fleet.raw()
        line = await self._log.append(home=0, nonce=nonce, events=to_text([["join", *member]]))
        assert line is not None
        self._fleet.heard(line.at / 1_000_000, sent, self._fleet.raw())
        return line

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        while not self._stopped:
            try:
                await self._turn()
                self._failures = 0
            except LedgerUnavailableError as error:
                pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
                if not self._failures:
                    log.warning("the shared board cannot be reached; leases that run go on: %s", error)
                self._failures += 1
                self._watcher.restart()
                await asyncio.sleep(pause)
                self._wake.set()
            except Exception:
                log.exception("the shared board met an error it does not know; its state is loaded anew")
                await asyncio.sleep(_PAUSES[-1])
                self._batch_again()
                await self._try_reload()

    async def _turn(self) -> None:
        """Tell what is to be told, read what others told, and say now and then that this process lives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._beat_at - self._fleet.raw())):
                await self._wake.wait()
        self._wake.clear()
        if self._failures:
            await self._find_batch()
        if self._batch is not None or self._outbox or self._tick is not None:
            await self._append()
        if self._known_end > self.replica.seq:
            await self._catch_up(self._known_end)
        if self._must_reload:
            await self._reload()
        if self.home not in self.replica.members and not self._leaving:
            await self._rejoin()
        if self._fleet.raw() >= self._beat_at:
            self._beat_at = self._fleet.raw() + min(SLOW_POLL, self._heartbeat / 4)
            await self._beat()
        if self.replica.seq - self._saved_at >= self._every + 2 * len(self.view.sessions):
            await self._save()
        if self._outbox or self._tick is not None:
            self._wake.set()

    async def _append(self) -> None:
        if self._batch is None:
            events, self._outbox = self._outbox, []
            expect = None if events else self._tick
            self._tick = None
            if not events and expect != self.replica.seq:
                return  # somebody has planned since
            self._batch = _Batch(new_nonce(), events, self._told, expect)
        batch = self._batch
        replica = self.replica
        sent = self._fleet.raw()
        estimate = self._clock.monotonic()
        try:
            line = await self._log.append(
                home=self.home,
                nonce=batch.nonce,
                events=to_text(batch.events),
                seen_seq=replica.seq,
                seen_sum=replica.sum,
                expect=batch.expect,
                least=int((estimate - JUMP) * 1_000_000),
                most=int((estimate + JUMP) * 1_000_000),
            )
        except AlreadyToldError:
            await self._find_batch()
            if self._batch is batch:  # it was, and is behind us since this copy was loaded anew
                self._batch, self._done = None, batch.last
                self._settle()
            return
        if line is None:  # a tick that is no longer needed
            self._batch = None
            return
        self._fleet.heard(line.at / 1_000_000, sent, self._fleet.raw())
        self._take_line(line)

    async def _find_batch(self) -> None:
        """Learn whether what was being told when the connection broke is in the log: then it is not told again."""
        end, _ = await self._log.beat(self.home)
        await self._catch_up(end)

    def _batch_again(self) -> None:
        """Give up on a batch that could not be told, but not on what it tells."""
        if self._batch is not None:
            self._outbox[:0] = self._batch.events
            self._batch = None

    async def _catch_up(self, end: int) -> None:
        while (after := self.replica.seq) < end:
            lines = await self._log.tail(after)
            # Meanwhile notifications may have brought some of them.
            if not lines or lines[0].seq != after + 1:
                # The entries have been dropped: this copy is too old to follow.
                await self._reload()
                return
            for line in lines:
                self._take_line(line)

    # ── entries ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_line(self, line: Line) -> None:
        """Apply an entry, and those that waited for it; or keep it until its turn comes."""
        self._known_end = max(self._known_end, line.seq)
        if line.seq > self.replica.seq:
            self._lines[line.seq] = line
        while (due := self._lines.pop(self.replica.seq + 1, None)) is not None:
            self._apply(entry_from({name: getattr(due, name) for name in Line.__slots__}))
        if self._lines:
            self._wake.set()

    def _apply(self, entry: Entry) -> None:
        replica = self.replica
        if entry.seq <= self._replayed:
            replica.apply(entry)  # what followed from it was done, or is made up for by `_reload`
            return
        if not replica.agrees(entry):
            self._disagree(entry)
        was_member = self.home in replica.members
        self._fleet.at_least(entry.at)
        actions = replica.apply(entry)
        batch = self._batch
        if batch is not None and entry.nonce == batch.nonce:
            self._batch = None
            self._done = batch.last
        if was_member and self.home not in replica.members:
            self._leave(replica.moved)
            return
        self._follow(replica.moved)
        own = [action for action in actions if whose(action) == self.home]
        for action in own:
            if isinstance(action, Grant | Refuse):
                replica.here.pop(action.request.id, None)
        if own and self.home:
            self._hooks.carry_out(own)
        self._settle()
        self._set_timer()

    def _leave(self, moved: Iterable[Moved]) -> None:
        """This process is no longer one of them."""
        self._settle()
        if self._draining:
            self._follow(moved)
            return
        self._wake.set()
        self.fenced_times += 1
        log.error("this process was taken for dead by the others; what it had leased is no longer its own")
        self._hooks.fenced()

    def _follow(self, moved: Iterable[Moved]) -> None:
        for move in moved:
            if move.old == self.home:
                self._hooks.gave(move.session)
            elif move.new == self.home and move.old not in self.replica.members:
                self._hooks.got(move.session)

    def _settle(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._done:
            future = self._waiting.pop(0)[1]
            if not future.done():
                future.set_result(None)

    def _disagree(self, entry: Entry) -> None:
        log.error(
            "this process's copy of the shared board differs from that of process %d at entry %d; it is loaded anew",
            entry.home,
            entry.seen_seq,
        )
        self._known_end = max(self._known_end, entry.seq)
        self._must_reload = True
        self._wake.set()

    # ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _set_timer(self) -> None:
        self._look_at(wake_at(self.view))

    def _look_at(self, at: Instant) -> None:
        if at < self._timer_at and not self._stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            members = sorted(self.replica.members)
            rank = members.index(self.home) if self.home in members else len(members)
            delay = max(0.0, at - self._clock.monotonic()) + 0.002 + min(rank * _TURN, 2.0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, NEVER
        if wake_at(self.view) <= self._clock.monotonic():
            self.poke()
        else:
            self._set_timer()

    async def _pulse(self) -> None:
        while not self._stopped:
            await asyncio.sleep(_PULSE)
            self._refuse_late()

    def _refuse_late(self) -> None:
        """Answer those whose time is up while the database is away, or does not answer: they wait no longer."""
        until = self._clock.monotonic() - (0.0 if self._failures else _SILENCE)
        late = [one for one in self.replica.here.values() if one.deadline <= until]
        for request in late:
            position = 0
            why = "the database of the shared pool is away"
            if request.id in self.view.requests:
                why += f"; before, {why_waiting(self.view, request, until)}"
            self._hooks.carry_out([Refuse(request, position, why)])

    # ── who lives ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _beat(self) -> None:
        end, beats = await self._log.beat(self.home)
        self._known_end = max(self._known_end, end)
        await self._catch_up(end)
        members = self.replica.members
        dead = self._watcher.look(
            {home: beats.get(home) for home in members if home != self.home},
            {home: (one.host, one.pid, one.pid_started_at) for home, one in members.items()},
            self._who.host,
            self._fleet.raw(),
        )
        for home, sure in dead:
            log.warning("process %d of the shared pool is gone; what it had is taken over", home)
            self._tell("bury", home, sure)
        struck = [home for home in beats if home not in members]
        if struck:
            await self._log.depart(struck)
        self._looked.set()

    async def _rejoin(self) -> None:
        """Come back after having been taken for dead."""
        waiting = [one for one in self.replica.here.values() if one.waiting]
        self._outbox.clear()
        self._batch = None
        self.home = 0  # what it had, and what it was granted, is told once more while it catches up
        self.replica.belong(0)
        await self._join()
        self._done = self._told
        self._settle()
        for request in waiting:
            if request.lane.home is not None:
                request.lane = request.lane._replace(home=self.home)
            self.request(request)

    # ── snapshots ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _save(self) -> None:
        seq = self._saved_at = self.replica.seq
        if min(self.replica.members, default=0) != self.home:
            return  # one of us is enough
        await self._log.save(seq, self._planner, snapshot.write(self.replica), keep_entries=self._keep)

    async def _try_reload(self) -> None:
        try:
            await self._reload()
        except LedgerUnavailableError as error:
            log.warning("the shared board cannot be loaded yet: %s", error)

    async def _reload(self) -> None:
        """Load the state anew, and go on from there; what this process no longer has, it lets go."""
        found = await self._log.snapshot(self._planner)
        if found is None:
            raise LedgerUnavailableError("the board has no snapshot that this process can read")
        lines: list[Line] = []
        read = found[0]
        while read < self.replica.seq or read == found[0]:
            more = await self._log.tail(read)
            if not more:
                break
            lines += more
            read = more[-1].seq
        if read < self.replica.seq:
            raise LedgerUnavailableError("entries of the board's log are missing")
        # From here on nothing is awaited, so nothing else can happen to this copy.
        self.reloads += 1
        self._must_reload = False
        known = {(one.id, one.uses): one for one in self.mine()}
        self._replayed = self.replica.seq
        sessions, requests = dict(self.view.sessions), {**self.view.requests, **self.replica.here}
        snapshot.load(self.replica, found[1], sessions={}, requests={})
        self._lines.clear()
        for line in lines:
            if line.seq <= self._replayed:
                self._take_line(line)
        # Now that all is as it should be, once more with the objects that others hold on to.
        snapshot.load(self.replica, snapshot.write(self.replica), sessions=sessions, requests=requests)
        self.replica.sums.clear()  # what others said before they loaded theirs anew says nothing
        for session in known.values():
            if session.home != self.home or session.state is State.CLOSED:
                self._hooks.gave(session)
        new = [session for session in self.mine() if (session.id, session.uses) not in known]
        self._hooks.carry_out([action for session in new for action in _to_do(session)])
        for line in lines:
            self._take_line(line)

    # ── listening ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        while not self._stopped:
            try:
                async with contextlib.aclosing(self._log.listen(SLOW_POLL)) as news:
                    async for told in news:
                        if isinstance(told, Line):
                            self._hear(told)
                        elif told is not None:
                            self._known_end = max(self._known_end, told)
                            self._wake.set()
            except LedgerUnavailableError as error:
                log.debug("the board's notifications do not arrive: %s", error)
            except Exception:
                log.exception(
                    "the board's notifications met an error that is not known; it is asked now and then"
                )
            await asyncio.sleep(_PAUSES[-1])

    def _hear(self, line: Line) -> None:
        try:
            self._take_line(line)
        except Exception:
            log.exception("an entry of the shared board could not be applied; its state is loaded anew")
            self._must_reload = True
            self._wake.set()


def _to_do(session: Session) -> list[Action]:
    """What has to be done about a session that this process has, and did not know of."""
    match session.state:
        case State.CREATING:
            return [Create(session)]
        case State.LEASED if session.covers is not None:
            return [Grant(session.covers, session, session.uses)]
        case State.UNHEALTHY:
            return [Check(session)]
        case State.DRAINING | State.LOST:
            return [Close(session)]
    return []

"""The shared board: its log, its snapshots, and the processes that read it."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import UniqueConstraint

from tabkeeper.ledger.models.base import Table, instant, number, text_key, words


class BoardHeadRow(Table, table=True):
    """The end of a shared board's log; updating it is the lock that puts entries in order."""

    __tablename__: ClassVar[Any] = "board_head"
    board: str = text_key()
    seq: int = number()
    at: int = instant()
    shift: int = number()
    """Microseconds by which the board's time differs from the database's clock since that was set anew."""


class BoardEntryRow(Table, table=True):
    """What a process told a shared board at one instant; `events` is JSON."""

    __tablename__: ClassVar[Any] = "board_entry"
    __table_args__: ClassVar[Any] = (UniqueConstraint("board", "nonce"),)
    board: str = text_key()
    seq: int = number(None, key=True)
    at: int = instant()
    home: int = number()
    nonce: str = words()
    seen_seq: int = number()
    seen_sum: int = number()
    events: str = words()


class BoardSnapshotRow(Table, table=True):
    """The whole state of a shared board after an entry, as JSON."""

    __tablename__: ClassVar[Any] = "board_snapshot"
    board: str = text_key()
    seq: int = number(None, key=True)
    planner: str = words()
    document: str = words()


class BoardMemberRow(Table, table=True):
    """A process that takes part in a shared board; `beats` grows while it lives."""

    __tablename__: ClassVar[Any] = "board_member"
    board: str = text_key()
    home: int = number(None, key=True)
    process_id: str = words()
    host: str = words()
    planner: str = words()
    beats: int = number()
    joined_at: int = instant()


class BoardSuccessorRow(Table, table=True):
    """A process of another version or configuration that waits until those that run a board have left."""

    __tablename__: ClassVar[Any] = "board_successor"
    board: str = text_key()
    process_id: str = text_key()
    host: str = words()
    planner: str = words()
    seen_at: int = instant()
    """By the database's clock."""


class BoardBequestRow(Table, table=True):
    """An idle session that the last process of a board left to whoever takes it over; `facts` is JSON."""

    __tablename__: ClassVar[Any] = "board_bequest"
    board: str = text_key()
    session_id: str = text_key()
    facts: str = words()

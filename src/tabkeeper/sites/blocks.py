"""Which proxies a site refuses, and until when: the value, and its rows in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.proxies.rows import Statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A proxy that is not used for a site for a while."""

    site: str
    proxy: str
    """The proxy's id."""
    blocked_at: datetime
    until: datetime
    message: str
    """What the site, or the browser, said."""


def read_blocks(tx: Statements, now: datetime) -> list[Block]:
    """Return the blocks whose cool-down is not over, by site and proxy."""
    rows = tx.rows(
        "SELECT site, proxy, blocked_at, until, message FROM site_block WHERE until > :now ORDER BY site, proxy",
        now=micros(now),
    )
    return [
        Block(
            site=row.site,
            proxy=row.proxy,
            blocked_at=moment(row.blocked_at),
            until=moment(row.until),
            message=row.message,
        )
        for row in rows
    ]


def write_blocks(tx: Statements, blocks: Iterable[Block], gone: Iterable[tuple[str, str]]) -> None:
    """Write blocks, and forget those that are `gone`: (site, proxy)."""
    for site, proxy in gone:
        tx.run("DELETE FROM site_block WHERE site = :site AND proxy = :proxy", site=site, proxy=proxy)
    for block in blocks:
        tx.run(
            "INSERT INTO site_block (site, proxy, blocked_at, until, message) "
            "VALUES (:site, :proxy, :blocked_at, :until, :message) ON CONFLICT (site, proxy) DO UPDATE "
            "SET blocked_at = excluded.blocked_at, until = excluded.until, message = excluded.message",
            site=block.site,
            proxy=block.proxy,
            blocked_at=micros(block.blocked_at),
            until=micros(block.until),
            message=block.message,
        )


def drop_old(tx: Statements, now: datetime) -> int:
    """Forget blocks whose cool-down is over; returns how many."""
    return tx.run("DELETE FROM site_block WHERE until <= :now", now=micros(now))

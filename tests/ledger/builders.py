"""What the ledger's tests are made of: a configuration, requests and usages that default everything."""

import contextlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tabkeeper.config import parse_config
from tabkeeper.ledger.engines import parse_url
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, LeaseUsage, SessionUsage, StateChange

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
# One nano-dollar's worth of arithmetic to check by head: a dollar an hour, whole minutes, one minute at least.
PER_MINUTE = {"per_hour": "0.60", "increment": "1m", "minimum": "1m"}


def config(url, *, budgets=(), auto_upgrade=True, **providers):
    """A pool with a paid provider `bb` at one cent a minute, a free `local` one, and `budgets`."""
    known = {
        "local": {"kind": "local"},
        "bb": {"kind": "cdp", "url": "ws://unused.invalid", "rates": PER_MINUTE},
    }
    data = {
        "ledger": {"url": url, "auto_upgrade": auto_upgrade},
        "providers": {**known, **providers},
        "platforms": {"web": {"providers": ["bb"]}, "maps": {"providers": ["bb"]}},
        "budgets": list(budgets),
    }
    return parse_config(data)


@contextlib.asynccontextmanager
async def opened(url, *, clock=None, check=True, inline=False, observe=False, **rest):
    """An open ledger that is found sound when it is left."""
    ledger = await Ledger.open(config(url, **rest), clock=clock, inline=inline, observe=observe)
    try:
        yield ledger
        if check:
            assert await ledger.verify() == []
    finally:
        await ledger.aclose()


def ask(session_id="s", **change):
    """Ten minutes of `bb` for `web`: ten cents at worst."""
    values = {"platform": "web", "provider": "bb", "tenant": "default", "max_seconds": 600}
    return HoldRequest(session_id=session_id, **{**values, **change})


def used(seconds=60, **change):
    return SessionUsage(seconds=seconds, **change)


def lease(session_id="s", number=1, start=0.0, end=60.0, **change):
    """One use of a session, from one age of it to another."""
    at = change.pop("at", NOON)
    values = {
        "lease_id": f"{session_id}/{number}",
        "session_id": session_id,
        "use_number": number,
        "platform": "web",
        "provider": "bb",
        "tenant": "default",
        "priority": 0,
        "requested_at": at,
        "granted_at": at + timedelta(seconds=start),
        "released_at": at + timedelta(seconds=end),
        "waited": 0.25,
        "start_age": start,
        "end_age": end,
        "is_new": number == 1,
        "outcome": "ok",
    }
    return LeaseUsage(**{**values, **change})


def moved(session_id="s", old="creating", new="idle", at=NOON):
    return StateChange(session_id=session_id, at=at, old=old, new=new, reason="test")


def query(url, sql, **values):
    """Look into the database behind the ledger's back."""
    with _raw(url) as connection:
        return [tuple(row) for row in connection.execute(text(sql), values).all()]


def tamper(url, *statements):
    """Change the database behind the ledger's back."""
    with _raw(url) as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()


@contextlib.contextmanager
def _raw(url):
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()

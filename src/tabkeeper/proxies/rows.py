"""The statements behind `store` and `alone`: proxies, their records and bindings in and out. They decide nothing."""

from __future__ import annotations

from typing import Any, Protocol

PROXY = "id, server, credentials_env, credentials_sealed, kind, geo, weight, price_per_gb"


class Statements(Protocol):
    """One open transaction: SQL with ``:names``, understood by both databases."""

    def run(self, sql: str, /, **values: Any) -> int:
        """Run a statement and return how many rows it changed."""

    def row(self, sql: str, /, **values: Any) -> Any | None:
        """Return the first row, or None."""

    def rows(self, sql: str, /, **values: Any) -> list[Any]:
        """Return all rows."""


def add_proxy(tx: Statements, **values: Any) -> bool:
    """Store a proxy, or bring a retired one back; False if one of that id is in use."""
    columns = [*PROXY.split(", "), "created_at"]
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    query = (
        f"INSERT INTO proxy ({', '.join(columns)}) VALUES ({', '.join(':' + name for name in columns)}) "  # noqa: S608
        f"ON CONFLICT (id) DO UPDATE SET {changes}, retired_at = NULL WHERE proxy.retired_at IS NOT NULL"
    )
    return tx.run(query, **values) == 1


def retire_proxy(tx: Statements, proxy_id: str, now: int) -> bool:
    """Retire a proxy and forget its credentials; False if there is none in use."""
    tx.run("DELETE FROM proxy_state WHERE proxy = :id", id=proxy_id)
    return (
        tx.run(
            "UPDATE proxy SET retired_at = :now, credentials_sealed = NULL, credentials_env = '' "
            "WHERE id = :id AND retired_at IS NULL",
            id=proxy_id,
            now=now,
        )
        == 1
    )


def live_proxies(tx: Statements) -> list[Any]:
    """Return the rows of proxies in use."""
    return tx.rows(f"SELECT {PROXY} FROM proxy WHERE retired_at IS NULL ORDER BY id")  # noqa: S608 - ours


def states(tx: Statements) -> dict[str, Any]:
    """Return the records, by proxy."""
    query = (
        "SELECT proxy, succeeded, failed, in_row, recent, latency_us, last_error, resume_at FROM proxy_state"
    )
    return {row.proxy: row for row in tx.rows(query)}


def put_state(tx: Statements, **values: Any) -> None:
    """Write the record of a proxy."""
    names = ("succeeded", "failed", "in_row", "recent", "latency_us", "last_error", "resume_at")
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    query = (
        f"INSERT INTO proxy_state (proxy, {', '.join(names)}) "  # noqa: S608 - ours
        f"VALUES (:proxy, {', '.join(':' + name for name in names)}) ON CONFLICT (proxy) DO UPDATE SET {changes}"
    )
    tx.run(query, **values)


def bindings(tx: Statements, now: int) -> list[Any]:
    """Return the bindings whose time is not up."""
    return tx.rows(
        "SELECT key, proxy, created_at, expires_at, used_at, uses, failovers FROM proxy_binding "
        "WHERE expires_at > :now",
        now=now,
    )


def put_binding(tx: Statements, *, now: int, **values: Any) -> None:
    """Write a binding. One of the same key that another process made first stays, until its time is up or it moves."""
    tx.run(
        "INSERT INTO proxy_binding (key, proxy, created_at, expires_at, used_at, uses, failovers) "
        "VALUES (:key, :proxy, :created_at, :expires_at, :used_at, :uses, :failovers) "
        "ON CONFLICT (key) DO UPDATE SET proxy = excluded.proxy, created_at = excluded.created_at, "
        "expires_at = excluded.expires_at, used_at = excluded.used_at, uses = excluded.uses, "
        "failovers = excluded.failovers "
        "WHERE proxy_binding.expires_at <= :now OR proxy_binding.created_at >= excluded.created_at",
        now=now,
        **values,
    )


def count_uses(tx: Statements, *, key: str, proxy: str, used_at: int, uses: int, **_: Any) -> None:
    """Note that a binding was used; what another process made of it meanwhile stays."""
    tx.run(
        "UPDATE proxy_binding SET used_at = :used_at, uses = :uses WHERE key = :key AND proxy = :proxy",
        key=key,
        proxy=proxy,
        used_at=used_at,
        uses=uses,
    )


def drop_binding(tx: Statements, key: str) -> None:
    """Forget a binding."""
    tx.run("DELETE FROM proxy_binding WHERE key = :key", key=key)


def drop_expired(tx: Statements, now: int) -> int:
    """Forget bindings whose time is up; returns how many."""
    return tx.run("DELETE FROM proxy_binding WHERE expires_at <= :now", now=now)

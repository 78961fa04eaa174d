"""Proxies, how they fared, sticky bindings, and the sites that block one."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import Index

from tabkeeper.ledger.models.base import Table, instant, maybe_words, number, text_key, words


class ProxyRow(Table, table=True):
    """A proxy that `tabkeeper proxies add` stored; those of the configuration have no row."""

    __tablename__: ClassVar[Any] = "proxy"
    id: str = text_key()
    server: str = words()
    """Its address without credentials."""
    credentials_env: str = words("")
    """Environment variable that holds ``user:password``; empty if there is none."""
    credentials_sealed: str | None = maybe_words()
    """User name and password, sealed by the vault; forgotten when it is retired."""
    kind: str = words()
    geo: str = words("")
    weight: int = number(1)
    price_per_gb: str | None = maybe_words()
    """Dollars for 10^9 bytes, as decimal text."""
    created_at: int = instant()
    retired_at: int | None = instant(optional=True)


class ProxyStateRow(Table, table=True):
    """How a proxy did, wherever it is described."""

    __tablename__: ClassVar[Any] = "proxy_state"
    proxy: str = text_key()
    succeeded: int = number()
    failed: int = number()
    in_row: int = number()
    """Failures in a row."""
    recent: str = words("")
    """The last outcomes, oldest first: 1 worked, 0 failed."""
    latency_us: int | None = instant(optional=True)
    last_error: str = words("")
    resume_at: int = number()


class ProxyBindingRow(Table, table=True):
    """Which proxy a session key has."""

    __tablename__: ClassVar[Any] = "proxy_binding"
    __table_args__: ClassVar[Any] = (Index("ix_proxy_binding_expires_at", "expires_at"),)
    key: str = text_key()
    proxy: str = words()
    created_at: int = instant()
    expires_at: int = instant()
    used_at: int = instant()
    uses: int = number()
    failovers: int = number()


class SiteBlockRow(Table, table=True):
    """A proxy that a site refuses, and until when it is not used there."""

    __tablename__: ClassVar[Any] = "site_block"
    site: str = text_key()
    proxy: str = text_key()
    blocked_at: int = instant()
    until: int = instant()
    message: str = words("")

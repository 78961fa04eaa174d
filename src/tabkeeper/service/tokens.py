"""Who calls: tokens, kept as hashes only, and what each of them may do."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from tabkeeper.config import Scope

PREFIX = "tk_"
ALL_SCOPES: frozenset[Scope] = frozenset({"read", "lease", "direct", "manage"})


def new_token() -> str:
    """Make a token, with 256 bits of chance: nobody guesses it, so a plain hash of it can be kept openly."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return what is kept of a token.

    >>> hash_token("tk_x")
    'sha256:06211793b472a8c0c3c58aa84bf69a3aa408be1c7c5ffc8fb41492c9f1b7167d'
    """
    return "sha256:" + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who was let in."""

    name: str
    scopes: frozenset[Scope] = ALL_SCOPES
    tenants: tuple[str, ...] = ()
    """For whom they may act; empty for everybody."""
    stored: str = ""
    """Id of their token in the ledger, by which it can be revoked; empty if it is in the configuration."""

    def may_act_for(self, tenant: str) -> bool:
        """Whether a lease of this tenant is theirs to take, to see and to end."""
        return not self.tenants or tenant in self.tenants

    @property
    def tenant(self) -> str:
        """Who is charged if they do not say."""
        return self.tenants[0] if self.tenants else "default"


ANYBODY = Caller(name="anybody")
"""Whoever reaches a service that runs without tokens."""

"""Who calls: tokens, kept as hashes only, and what each of them may do."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from tabkeeper.config import Scope, ServiceSettings

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

    def may_act_for(self, tenant: str) -> bool:
        """Whether a lease of this tenant is theirs to take, to see and to end."""
        return not self.tenants or tenant in self.tenants

    @property
    def tenant(self) -> str:
        """Who is charged if they do not say."""
        return self.tenants[0] if self.tenants else "default"


ANYBODY = Caller(name="anybody")
"""Whoever reaches a service that runs without tokens."""


@dataclass(slots=True)
class Keyring:
    """Finds callers by their tokens. Its repr shows no hash."""

    _callers: dict[str, Caller] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: ServiceSettings) -> Keyring:
        """Make one of the configuration."""
        ring = cls()
        if settings.token is not None:
            ring.add(hash_token(settings.token.get_secret_value()), Caller(name="main"))
        for one in settings.tokens:
            hashed = one.hash or hash_token(one.token.get_secret_value() if one.token else "")
            ring.add(hashed, Caller(name=one.name, scopes=frozenset(one.scopes), tenants=one.tenants))
        return ring

    def add(self, hashed: str, caller: Caller) -> None:
        """Let somebody in from now on."""
        self._callers[hashed] = caller

    def __len__(self) -> int:
        return len(self._callers)

    def find(self, token: str) -> Caller | None:
        """Return whose token it is. What time this takes tells of hashes at most, and those lead nowhere."""
        return self._callers.get(hash_token(token))

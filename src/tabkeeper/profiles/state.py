"""What a profile consists of, as plain data, and its one written form. Nothing here is encrypted or stored yet."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from tabkeeper.errors import SealedError
from tabkeeper.profiles.trust import Record

_FORM = 1


class ProfileKey(NamedTuple):
    """Whose profile, of which site, behind which proxy."""

    tenant: str
    site: str
    """A domain in the form of `tabkeeper.config.check_domain`."""
    proxy: str = ""
    """The proxy's identity; empty for a direct connection."""

    def __str__(self) -> str:
        behind = f" behind proxy {self.proxy!r}" if self.proxy else ""
        return f"{self.site} of tenant {self.tenant!r}{behind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserState:
    """What makes a browser look like the same visitor. Its repr shows no cookie."""

    storage: dict[str, Any] = field(repr=False)
    """Cookies, localStorage and, where Playwright can, IndexedDB: Playwright's ``storage_state``."""
    user_agent: str | None = None
    viewport: dict[str, int] | None = None

    def context_options(self) -> dict[str, Any]:
        """Return what `Browser.new_context` takes to restore it."""
        options: dict[str, Any] = {"storage_state": self.storage}
        if self.user_agent is not None:
            options["user_agent"] = self.user_agent
        if self.viewport is not None:
            options["viewport"] = self.viewport
        return options

    def cookies_by_domain(self) -> dict[str, int]:
        """Count cookies by domain."""
        return dict(Counter(str(cookie.get("domain", "?")) for cookie in self.storage.get("cookies", [])))

    def origins(self) -> list[str]:
        """Name the origins that have storage."""
        return [str(origin.get("origin", "?")) for origin in self.storage.get("origins", [])]

    def to_text(self, key: ProfileKey) -> str:
        """Write it down, with the key it belongs to, so that it opens for no other."""
        return json.dumps(
            {
                "form": _FORM,
                "key": list(key),
                "storage": self.storage,
                "user_agent": self.user_agent,
                "viewport": self.viewport,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_text(cls, text: str, key: ProfileKey | None = None) -> BrowserState:
        """Read what `to_text` wrote; `key` None accepts anybody's, for imports.

        Raises:
            SealedError: it was written for another key, or in a form that this version does not know.
        """
        try:
            found = json.loads(text)
            form, owner = found["form"], ProfileKey(*found["key"])
            state = cls(storage=found["storage"], user_agent=found["user_agent"], viewport=found["viewport"])
        except (ValueError, TypeError, KeyError):
            raise SealedError("a profile's saved state cannot be read") from None
        if form != _FORM or not isinstance(state.storage, dict):
            raise SealedError("a profile was saved by another version of Tabkeeper; upgrade, or retire it")
        if key is not None and owner != key:
            raise SealedError(f"what is stored as the profile of {key} was saved for another one")
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a saved profile besides its state."""

    id: str
    key: ProfileKey
    created_at: datetime
    saved_at: datetime
    succeeded_at: datetime | None
    failures: int
    """In a row."""
    uses: int
    retired_at: datetime | None = None
    retired_why: str = ""

    def record(self, now: datetime) -> Record:
        """Return what its trust is worked out from."""
        return Record(
            age=now - self.created_at,
            failures=self.failures,
            uses=self.uses,
            since_success=None if self.succeeded_at is None else now - self.succeeded_at,
        )

"""Reads what vendors' answers have in common: ids that go into paths, and instants."""

from __future__ import annotations

import re
from datetime import datetime

from tabkeeper.errors import ProviderRequestError


def checked_id(provider: str, session_id: str) -> str:
    """Return an id that is safe in a path; nothing else was ever given out."""
    if not re.fullmatch(r"[\w-]{1,128}", session_id, re.ASCII):
        raise ProviderRequestError(provider, f"{session_id!r} is no session id")
    return session_id


def moment(text: object) -> datetime | None:
    """Read RFC 3339; None for what is absent or odd: no session is lost for a time."""
    try:
        read = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return read if read is not None and read.tzinfo is not None else None

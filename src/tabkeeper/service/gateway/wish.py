"""What a client wants, read from the address that it connects to: the words of the query, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args
from urllib.parse import parse_qsl

from tabkeeper.config import PoolConfig, ResourceKind, nearest, parse_duration
from tabkeeper.service.desk import Order
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.tokens import Caller

WORDS = {
    "platform": "what kind of work it is",
    "priority": "a whole number; higher is served first",
    "tenant": "who is charged",
    "timeout": "how long it waits in the queue, such as 30s",
    "grace": "how long the lease outlives a connection that breaks, such as 30s",
    "max_duration": "how long the lease lasts at most, such as 5m",
    "max_cost": "what it may cost at most, such as 0.05",
    "profile": "domain of the site whose saved logins the first context begins with",
    "identity": "whose account is logged in",
    "session_id": "the session of an earlier lease",
    "sticky": "leases of one key go through one proxy",
    "failed_proxies": "ids of proxies not to go through, with commas between",
    "block": "what pages must not load: image, font, media, stylesheet, trackers, with commas between",
    "lease": "the token of a lease to come back to",
    "token": "who calls, where no header can be sent",
}
"""What an address may say, and what it means. ``tag.NAME=value`` adds a tag to the usage log."""

_LONGEST = 4096


def read_query(query: bytes) -> dict[str, str]:
    """Return the words of a query.

    Raises:
        ProblemError: it is too long, is no text, or says a word that is unknown, or says one twice.
    """
    if len(query) > _LONGEST:
        raise ProblemError(
            "bad-request", f"the address may have {_LONGEST} characters after the question mark"
        )
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise ProblemError("bad-request", "the address cannot be read") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in WORDS and not name.startswith("tag."):
            known = nearest(name, WORDS)
            raise ProblemError("invalid", f"an address for the gateway does not know {name!r}{known}")
        if name in found:
            raise ProblemError("invalid", f"{name} is said twice")
        found[name] = value
    return found


def order_of(words: dict[str, str], caller: Caller, config: PoolConfig) -> Order:
    """Return what the desk is asked for.

    Raises:
        ProblemError: a value cannot be read, or no platform is named and there are several.
    """
    return Order(
        platform=_platform(words, config),
        tenant=words.get("tenant") or caller.tenant,
        priority=_whole(words, "priority"),
        timeout=_duration(words, "timeout"),
        grace=_duration(words, "grace"),
        max_duration=_duration(words, "max_duration"),
        max_cost=words.get("max_cost"),
        profile=words.get("profile"),
        identity=words.get("identity"),
        session_id=words.get("session_id"),
        sticky=words.get("sticky"),
        block=_kinds(words),
        failed_proxies=tuple(one for one in words.get("failed_proxies", "").split(",") if one),
        tags={name.removeprefix("tag."): value for name, value in words.items() if name.startswith("tag.")},
    )


def _platform(words: dict[str, str], config: PoolConfig) -> str:
    said = words.get("platform") or config.gateway.platform
    if said is None and len(config.platforms) == 1:
        said = next(iter(config.platforms))
    if said is None:
        raise ProblemError(
            "invalid",
            "say which platform, as in ?platform=web; for clients that drop the query (Puppeteer's browserURL), use "
            "their WebSocket address or set gateway.platform",
        )
    if said not in config.platforms:
        raise ProblemError("invalid", f"there is no platform {said!r}{nearest(said, config.platforms)}")
    return said


def _kinds(words: dict[str, str]) -> tuple[ResourceKind, ...] | None:
    said = words.get("block")
    if said is None:
        return None
    names = {one.strip() for one in said.split(",")} - {""}
    known: tuple[ResourceKind, ...] = get_args(ResourceKind)
    for name in sorted(names - set(known)):
        raise ProblemError("invalid", f"block: there is no kind {name!r}{nearest(name, list(known))}")
    return tuple(one for one in known if one in names)


def _whole(words: dict[str, str], name: str) -> int:
    said = words.get(name, "0")
    try:
        return int(said)
    except ValueError:
        raise ProblemError("invalid", f"{name} is a whole number, not {said!r}") from None


def _duration(words: dict[str, str], name: str) -> timedelta | None:
    said = words.get(name)
    if said is None:
        return None
    try:
        return parse_duration(float(said) if said.replace(".", "", 1).isdigit() else said)
    except (ValueError, OverflowError) as error:
        raise ProblemError("invalid", f"{name}: {error}") from None

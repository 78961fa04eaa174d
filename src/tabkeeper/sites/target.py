"""What a visitor's function is given, and how what it yields is understood: items, and pages to visit next."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

from pydantic import BaseModel

from tabkeeper.sites.registry import SiteRegistry

Parse = Callable[[Any, "Target"], Any]
"""``async def parse(page, target)``, which yields items and addresses, or returns them."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The page that is being visited."""

    url: str
    """Its address; after redirects the browser's page may have another."""
    site: str
    """Its site's domain."""
    status: int
    """The HTTP status with which it came."""
    depth: int
    """Steps from a start page."""
    attempt: int
    """1 at first."""
    run: str
    """The run's id."""
    proxy: str = ""
    """Id of the proxy that it is visited through; empty if there is none."""


@dataclass(slots=True)
class Found:
    """What a page gave."""

    items: list[str] = field(default_factory=list)
    """As JSON."""
    pages: list[tuple[str, str]] = field(default_factory=list)
    """Addresses to visit, and the site of each."""
    elsewhere: int = 0
    """Addresses that are of no site of the run."""


def address(url: str, base: str = "") -> str:
    """Return an address in the one form by which pages are told from each other; empty if it is none of a page.

    >>> address("../b?x=1#top", "HTTP://Shop.example:80/a/")
    'http://shop.example/b?x=1'
    """
    try:
        parts = urlsplit(urldefrag(urljoin(base, url.strip())).url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is not None and port != _PORTS[parts.scheme]:
        host = f"{host}:{port}"
    return urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))


async def collect(parse: Parse, page: Any, target: Target, sites: SiteRegistry) -> Found:
    """Call a visitor's function and take what it yields, or returns: text is an address, anything else an item.

    Raises:
        TypeError: it is no such function, or yields what is neither.
        Exception: whatever it raises.
    """
    found = Found()
    given = parse(page, target)
    if isinstance(given, AsyncIterable):
        async for one in given:
            _take(one, target, sites, found)
        return found
    if not inspect.isawaitable(given):
        raise TypeError(f"{_name(parse)} is no async function: write it as 'async def parse(page, target)'")
    result = await given
    if result is None:
        return found
    many = isinstance(result, Iterable) and not isinstance(result, str | Mapping | BaseModel)
    for one in result if many else [result]:
        _take(one, target, sites, found)
    return found


def _take(one: object, target: Target, sites: SiteRegistry, found: Found) -> None:
    if not isinstance(one, str):
        found.items.append(as_json(one))
        return
    url = address(one, target.url)
    site = sites.of(url) if url else None
    if site is None:
        found.elsewhere += 1
    else:
        found.pages.append((url, site.domain))


def as_json(item: object) -> str:
    """Write an item on one line; instants, decimals and the like as their text.

    Raises:
        TypeError: it is no item.
    """
    if isinstance(item, BaseModel):
        return item.model_dump_json()
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        item = dataclasses.asdict(item)
    if not isinstance(item, Mapping):
        raise TypeError(
            f"{type(item).__name__} {str(item)[:80]!r} is neither an item (a dict, a dataclass, a pydantic model) nor "
            "the address of a page (text)"
        )
    return json.dumps(dict(item), ensure_ascii=False, default=str)


def _name(parse: Parse) -> str:
    return str(getattr(parse, "__qualname__", parse))

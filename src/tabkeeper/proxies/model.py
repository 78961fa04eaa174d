"""A proxy as plain data: where it is, what kind it is, what its traffic costs. Its password is never shown.

Nothing here decides; `health` says how well a proxy does and `strategies` which one is next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from urllib.parse import quote, unquote, urlsplit

from tabkeeper.money import Money

_PORTS: Mapping[str, int] = {"http": 80, "https": 443, "socks5": 1080}
_GB = 1_000_000_000


class ProxyKind(StrEnum):
    """Whose address a site sees."""

    DATACENTER = "datacenter"
    RESIDENTIAL = "residential"
    ISP = "isp"
    MOBILE = "mobile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy. `str` and `repr` leave out its user name and password; `url` has them."""

    id: str
    """Its name in the configuration, in lists, in the ledger's tags."""
    scheme: str
    """http, https or socks5: how it is spoken to."""
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    kind: ProxyKind = ProxyKind.DATACENTER
    geo: str = ""
    """Where it is, in words of your own, such as "us" or "de-berlin"; compared in lower case."""
    weight: int = 1
    """Share among others under the strategy ``weighted``."""
    price_per_gb: Decimal | None = None
    """Dollars for 10^9 bytes; None if nobody said."""

    def __str__(self) -> str:
        return f"{self.id} ({self.server})"

    @property
    def server(self) -> str:
        """Its address without user name and password: ``http://host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def has_credentials(self) -> bool:
        """Whether it asks who you are."""
        return bool(self.username or self.password)

    @property
    def url(self) -> str:
        """Its whole address, credentials included, as httpx, requests and curl take it. A secret: do not log it."""
        if not self.has_credentials:
            return self.server
        who = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"
        return self.server.replace("://", f"://{who}@", 1)

    def cost(self, received: int) -> Money | None:
        """Return what `received` bytes cost, rounded up to the nano-dollar; None without a price."""
        if self.price_per_gb is None:
            return None
        nanos = self.price_per_gb * received  # dollars per 10^9 bytes are nano-dollars per byte
        return Money(int(nanos.to_integral_value(ROUND_CEILING)))


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says."""

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def parse_address(url: str) -> Address:
    """Read ``scheme://user:password@host:port``.

    Raises:
        ValueError: it is no address of a proxy. The message repeats nothing of it but the scheme: it may hold a
            password.

    >>> parse_address("socks5://me:secret@proxy.example:1080").host
    'proxy.example'
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ValueError("it is not an address; write it like http://user:password@host:8080") from None
    scheme = {"socks5h": "socks5"}.get(parts.scheme, parts.scheme)
    if scheme not in _PORTS or not parts.hostname:
        known = ", ".join(f"{name}://" for name in _PORTS)
        raise ValueError(f"it begins with {known} and names a host, such as http://user:password@host:8080")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("it ends with the port; write it like http://user:password@host:8080")
    return Address(
        scheme,
        parts.hostname,
        port if port is not None else _PORTS[scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def proxy_from_url(url: str, *, id: str | None = None) -> Proxy:  # noqa: A002 - it is called id everywhere
    """Make a proxy of an address alone. Without `id` it gets one made of the address, the same each time.

    Raises:
        ValueError: it is no address of a proxy.
    """
    at = parse_address(url)
    bare = Proxy(id="", scheme=at.scheme, host=at.host, port=at.port)
    told = f"{at.username}@{bare.server}"
    return Proxy(
        id=id or f"{at.host}-{at.port}-{hashlib.sha256(told.encode()).hexdigest()[:6]}",
        scheme=at.scheme,
        host=at.host,
        port=at.port,
        username=at.username,
        password=at.password,
    )

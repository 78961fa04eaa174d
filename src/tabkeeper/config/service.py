"""What a user can set of the service: ``[service]``, and who may call it, ``[[service.tokens]]``."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from tabkeeper.config.values import AnyDuration, Duration, Name, Settings

Scope = Literal["read", "lease", "direct", "manage"]
"""read: figures, reports, events; lease: sessions for work; direct: providers' own addresses; manage: end sessions."""

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def _check_long(token: SecretStr | None) -> None:
    if token is not None and len(token.get_secret_value()) < 20:
        raise ValueError("token: at least 20 characters; `tabkeeper tokens create` makes a good one")


class TokenSettings(Settings):
    """One token: who may call the service, for what; `tabkeeper tokens create --for-config` prints such a section."""

    name: Name = Field(description="Whose it is; shown in logs and in the queue.")
    hash: str | None = Field(
        None, description='"sha256:" and 64 digits, as `tabkeeper tokens create --for-config` prints.'
    )
    token: SecretStr | None = Field(
        None, description='Instead of its hash, the token itself, by reference: "env:CI_TOKEN".'
    )
    scopes: tuple[Scope, ...] = Field(
        ("lease",),
        min_length=1,
        description="read: figures, reports, events. lease: sessions for work. direct: may also be told a provider's "
        "own address of a session, which can hold your key. manage: may also end sessions.",
    )
    tenants: tuple[Name, ...] = Field(
        (),
        description="It may only ask for these tenants, the first if it does not say, and sees none but their leases; "
        "all if empty.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.hash is None) == (self.token is None):
            raise ValueError("set either hash or token; `tabkeeper tokens create --for-config` prints a hash")
        if self.hash is not None and not _HASH.fullmatch(self.hash):
            raise ValueError('hash: write it as "sha256:" and 64 hexadecimal digits')
        _check_long(self.token)
        return self


class ServiceSettings(Settings):
    """The HTTP service that `tabkeeper serve` runs."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on. The default is reached from this machine only."
    )
    port: int = Field(8020, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None, description='One token that may do everything, by reference: "env:TABKEEPER_TOKEN".'
    )
    tokens: tuple[TokenSettings, ...] = ()
    hosts: tuple[str, ...] = Field(
        (),
        description="Names by which it is reached, beside localhost and IP addresses; a request for another name is "
        "refused (DNS rebinding).",
    )
    origins: tuple[str, ...] = Field(
        (),
        description='Web pages of other origins that may call it, such as "https://ops.example.com"; else none may.',
    )
    path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description='Where a reverse proxy shows it, such as "/tabkeeper"; addresses that it tells begin with it. It '
        "answers with and without, so the proxy may take it away or not.",
    )
    forwarders: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or networks of reverse proxies whose X-Forwarded-Proto is believed: it says whether "
        "the addresses that are told begin with https and wss.",
    )
    lease_ttl: Duration = Field(
        timedelta(seconds=60),
        description="A lease over HTTP that is neither connected nor heard of for this long is taken back.",
    )
    grace: AnyDuration = Field(
        timedelta(seconds=10),
        description="How long a lease outlives the connection of its client, so that it can come back.",
    )
    max_wait: Duration = Field(
        timedelta(seconds=60),
        description="Longest time that one HTTP request waits for a lease; the lease may wait longer.",
    )
    max_body: int = Field(65536, ge=1024, description="Bytes that a request's body may have.")
    header_timeout: Duration = Field(
        timedelta(seconds=10), description="A connection must have sent its request by then."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_long(self.token)
        for i, host in enumerate(self.hosts):
            if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
                raise ValueError(
                    f'hosts.{i}: write {host!r} like "ops.example.com", with no scheme, port or path'
                )
        names = [token.name for token in self.tokens]
        for i, name in enumerate(names):
            if names.index(name) != i:
                raise ValueError(f"tokens.{i}.name: {name!r} is used twice")
        for i, origin in enumerate(self.origins):
            if not re.fullmatch(r"https?://[a-z0-9.\[\]:-]+", origin):
                raise ValueError(
                    f'origins.{i}: write {origin!r} like "https://ops.example.com", with no path and no slash'
                )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether it listens on an address that only this machine reaches."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

"""What an adapter of a vendor says of its API: how a key is sent, and each call. Its settings are checked here.

What all of them do with these calls, so that nothing leaks, is `hosted.HostedProvider`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import ClassVar

import httpx
from pydantic import SecretStr

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import ConfigError, ProviderAuthError, ProviderError, ProviderPaymentError
from tabkeeper.providers.base import Capabilities, Check, RemoteSession, SessionSpec
from tabkeeper.providers.http import Api, Refusal

SKEW = timedelta(seconds=5)
"""`check` warns of clocks that are further apart."""


class Vendor(ABC):
    """A hosted service's API; see `HostedProvider` for the arguments."""

    name: str
    capabilities: Capabilities
    default_url: ClassVar[str]
    reserved: ClassVar[frozenset[str]]
    """Keys of the create call that are ours: `options` must not hold them."""
    regions: ClassVar[Collection[str]] = ()

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        if settings.api_key is None:
            raise ConfigError(f"providers.{name}.api_key: a {settings.kind} provider needs one")
        if taken := sorted(self.reserved & settings.options.keys()):
            raise ConfigError(f"providers.{name}.options.{taken[0]}: tabkeeper sets this itself; remove it")
        if settings.region is not None and not self.capabilities.regions:
            raise ConfigError(
                f"providers.{name}.region: {settings.kind} offers no choice of regions; remove it"
            )
        if settings.region is not None and self.regions and settings.region not in self.regions:
            raise ConfigError(f"providers.{name}.region: must be one of {', '.join(self.regions)}")
        self.name = name
        self._settings = settings
        self._sleep = sleep
        self._clock = clock or SystemClock()
        self._api = Api(
            name,
            settings.base_url or self._url_of(settings.region),
            headers=self._headers(settings.api_key),
            query=self._query(settings.api_key),
            judge=self._judge,
            transport=transport,
            sleep=sleep,
            clock=self._clock,
            rng=rng,
        )

    @abstractmethod
    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        """How the key is sent."""

    def _query(self, key: SecretStr) -> Mapping[str, SecretStr]:  # noqa: ARG002 - for subclasses
        """How the key is sent, where it is part of the address."""
        return {}

    def _url_of(self, region: str | None) -> str:  # noqa: ARG002 - for subclasses
        """Return where the service is, for those with an address per region."""
        return self.default_url

    @abstractmethod
    async def _create(self, spec: SessionSpec) -> RemoteSession:
        """Send the create call; see `Provider.create`."""

    @abstractmethod
    async def _get(self, provider_session_id: str) -> RemoteSession:
        """Ask for one session; `ProviderNotFoundError` if the provider does not know it."""

    @abstractmethod
    async def _running(self) -> Sequence[RemoteSession]:
        """List running sessions that carry any label of ours; `connect_url` is empty where the list omits it."""

    async def _search(self, label: str) -> RemoteSession | None:
        """Look for a session by its label; where the provider remembers what is over, also among those."""
        return next((one for one in await self._running() if one.label == label), None)

    @abstractmethod
    async def _release(self, provider_session_id: str) -> bool:
        """Send the release call; False if the answer leaves open whether the session is over."""

    @abstractmethod
    async def _look(self) -> Check:
        """Ask something that costs nothing, for `check`."""

    def _judge(self, refusal: Refusal) -> ProviderError | None:  # noqa: ARG002 - for subclasses
        """Give an answer a meaning of its own; None for the common one."""
        return None

    def _id_of(self, label: str) -> str | None:  # noqa: ARG002 - for subclasses
        """Return the id of the session with this label, where we choose ids; None where the provider does."""
        return None

    # -- looking at the account ----------------------------------------------------------------------------------

    async def check(self) -> Sequence[Check]:
        """See `Provider.check`."""
        return [*await self._account(), *self._clocks()]

    async def _account(self) -> Sequence[Check]:
        try:
            return [await self._look()]
        except ProviderAuthError as error:
            advice = f"see that providers.{self.name}.api_key is a key of this service and still valid"
            return [Check(name="account", ok=False, detail=str(error), advice=advice)]
        except ProviderPaymentError as error:
            return [Check(name="account", ok=False, detail=str(error), advice="top the account up")]
        except ProviderError as error:
            return [Check(name="account", ok=False, detail=str(error))]

    @property
    def skew(self) -> timedelta | None:
        """How far the provider's clock is ahead of ours, at least; None before it has said the time."""
        return self._api.skew

    def _clocks(self) -> Sequence[Check]:
        if self.skew is None or abs(self.skew) <= SKEW:
            return []
        apart = abs(self.skew.total_seconds())
        where = "behind" if self.skew > timedelta(0) else "ahead of"
        return [
            Check(
                name="clock",
                ok=True,
                detail=f"this machine is {apart:.0f} s {where} the provider's clock",
                advice="let this machine keep time with NTP: budgets and bills go by the clock",
            )
        ]

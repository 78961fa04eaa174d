"""The ways from a lease to the browser under it: our own connection, a client's, and a person's view of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tabkeeper.config import PoolConfig
from tabkeeper.errors import LeaseLostError, SessionInUseError
from tabkeeper.pool.browser import SessionBrowser
from tabkeeper.pool.holding import Holding
from tabkeeper.pool.passage import Passage
from tabkeeper.pool.profiled import Profiled
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.providers.base import Provider
from tabkeeper.providers.live_view import live_view


class Reach:
    """Opens the ways, and notes what a client of somebody else's may have left behind."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        sessions: Sessions,
        profiled: Profiled,
    ) -> None:
        self._config = config
        self._providers = providers
        self._sessions = sessions
        self._profiled = profiled

    def browser_of(self, holding: Holding) -> SessionBrowser:
        """Return the session's connection.

        Raises:
            LeaseLostError: the session is closed.
        """
        running = self._sessions.running.get(holding.session.id)
        if running is None or running.browser is None:
            raise LeaseLostError(holding.session.id, holding.session.lane.platform, "the session is closed")
        return running.browser

    def connect_url_of(self, holding: Holding) -> str:
        """Return where a CDP client connects; the session is not kept after this lease."""
        # What a client of the caller's own leaves behind cannot be cleaned with certainty.
        running = self.running_of(holding)
        running.exposed = True
        assert running.remote is not None
        return running.remote.connect_url

    def passage_of(self, holding: Holding) -> Passage:
        """Return the way to its browser for who watches over it.

        Raises:
            SessionInUseError: its proxy has a password that the client could not give; or it has a profile, and
                others of its identity use the browser at the same time.
        """
        running = self.running_of(holding)
        browser = running.browser
        assert running.remote is not None
        assert browser is not None
        provider = self._providers[holding.session.provider]
        proxy = running.proxy
        if proxy is not None and proxy.username and provider.capabilities.proxy_by_context:
            raise SessionInUseError(
                f"session {holding.session.id} goes through proxy {proxy.id!r}, whose password only contexts "
                "of ours can be given: use a proxy without one for clients of your own, or a hosted provider"
            )
        lane = holding.session.lane
        is_shared = lane.identity is not None and self._config.platforms[lane.platform].identity == "shared"
        if is_shared and holding.profile is not None:
            raise SessionInUseError(
                f"session {holding.session.id} is shared by all of its identity, so no client can have the profile "
                f"{holding.profile.site!r} in its first context: leave out profile, or use session.context()"
            )
        running.relayed = True
        browser.home_used = browser.home_used or (holding.profile is None and not is_shared)

        def vouch() -> None:
            if running.holding is holding:
                running.relayed = False

        async def restore() -> None:
            running.relayed = True
            await self._profiled.restore(holding, browser)

        async def leave() -> None:
            await self._profiled.leave(holding)

        async def remember(origins: Collection[str]) -> None:
            await self._profiled.remember(holding, browser, origins)

        return Passage(
            connect_url=running.remote.connect_url,
            meter=browser.meter,
            outlives_connections=provider.capabilities.outlives_connections
            or self._config.providers[holding.session.provider].keep_alive,
            is_home=lane.identity is not None and not is_shared,
            is_shared=is_shared,
            has_profile=holding.profile is not None,
            restore=restore,
            remember=remember,
            leave=leave,
            vouch=vouch,
        )

    async def live_view_of(self, holding: Holding) -> str:
        """Return where a person can watch; the session is not kept after this lease."""
        provider = self._providers[holding.session.provider]
        remote = self.running_of(holding).remote
        assert remote is not None
        url = await live_view(provider, remote.provider_session_id)
        # Who watches would also see what the next lease does.
        self.running_of(holding).exposed = True
        return url

    def running_of(self, holding: Holding) -> Running:
        """Return what runs under a lease.

        Raises:
            LeaseLostError: the lease is over.
        """
        running = self._sessions.running.get(holding.session.id)
        if holding.over or running is None or running.remote is None:
            raise LeaseLostError(holding.session.id, holding.session.lane.platform, "the lease is over")
        return running

    def bytes_of(self, holding: Holding) -> int:
        """Return how many bytes the session has received during the lease."""
        if holding.received is not None:
            return holding.received
        running = self._sessions.running.get(holding.session.id)
        if running is None or running.browser is None:
            return 0
        return running.browser.meter.received - holding.bytes_before

"""From what a caller of `get_session` said to a request that can wait: checked, dated, and put into its lane."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig, check_domain, parse_duration
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.types import OWN_TAGS
from tabkeeper.money import Money
from tabkeeper.pool.board import Board
from tabkeeper.pool.model import SERVING, Lane, Request
from tabkeeper.pool.proxied import Proxied
from tabkeeper.profiles.state import ProfileKey
from tabkeeper.proxies.model import Proxy
from tabkeeper.vault import keyed_hash


@dataclass(slots=True, kw_only=True)
class Ask:
    """What a caller of `get_session` said, and where."""

    platform: str
    priority: int
    timeout: float | timedelta | None
    tenant: str
    tags: Mapping[str, str]
    max_duration: float | timedelta | None
    max_cost: Money | None
    place: str
    profile: str | None = None
    identity: str | None = field(default=None, repr=False)
    """As the caller said it: only its keyed hash goes any further."""
    session_id: str | None = None
    sticky: str | None = None
    failed_proxies: Collection[str] = ()


class Asking:
    """Makes the requests of one pool.

    Args:
        config, clock, board, proxied: the pool's.
        require_key: raises `ConfigError` unless profiles can be stored.
        bound: platforms whose sessions only the process that made them can use.
    """

    def __init__(
        self,
        config: PoolConfig,
        *,
        clock: Clock,
        board: Board,
        proxied: Proxied,
        require_key: Callable[[], None],
        bound: Collection[str],
    ) -> None:
        self._config = config
        self._clock = clock
        self._board = board
        self._proxied = proxied
        self._require_key = require_key
        self._bound = bound
        key = config.security.identity_key
        self._identity_key = secrets.token_hex(32) if key is None else key.get_secret_value()

    def _home(self, platform: str) -> int | None:
        """The one process that can use a lane's sessions, on a shared board; None if all can."""
        return (self._board.home or None) if platform in self._bound else None

    def request_from(self, ask: Ask) -> Request:
        """Return a request that waits from now on.

        Raises:
            ConfigError, TypeError, ValueError, NoProxyError, MissingKeyError: it cannot be asked for.
        """
        if not isinstance(ask.platform, str):
            raise TypeError(f"platform is a name under [platforms], not {ask.platform!r}")
        if type(ask.priority) is not int:
            raise TypeError(f"priority is an integer, not {ask.priority!r}")
        if not ask.tenant:
            raise ValueError("tenant is a name, and must not be empty")
        if any(str(tag).startswith(OWN_TAGS) for tag in ask.tags):
            raise ValueError(
                f"names of tags must not begin with {OWN_TAGS!r}: those are Tabkeeper's in exports"
            )
        settings = self._config.platforms.get(ask.platform)
        if settings is None:
            near = difflib.get_close_matches(ask.platform, self._config.platforms, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"there is no platform {ask.platform!r}{hint}; add [platforms.{ask.platform}]")
        low, high = self._config.pool.priorities
        if not low <= ask.priority <= high:
            raise ValueError(f"priority {ask.priority} is outside {low}..{high} (pool.priorities)")
        rules = self._board.view.rules.platforms[ask.platform]
        lease_seconds = rules.lease_timeout
        if ask.max_duration is not None:
            lease_seconds = parse_duration(ask.max_duration).total_seconds()
            if not 0 < lease_seconds <= rules.lease_timeout:
                raise ValueError(
                    f"max_duration must be above 0 and at most {rules.lease_timeout:g} s "
                    f"(raise platforms.{ask.platform}.lease_timeout to allow more)"
                )
        patience = settings.queue_timeout or self._config.pool.queue_timeout
        seconds = (
            patience.total_seconds() if ask.timeout is None else parse_duration(ask.timeout).total_seconds()
        )
        now = self._clock.monotonic()
        if ask.max_cost is not None and not isinstance(ask.max_cost, Money):
            raise TypeError('max_cost must be Money or text such as "0.05"')
        if ask.identity is not None and not isinstance(ask.identity, str):
            raise TypeError("identity is text, such as an account's name")
        if ask.identity == "":
            raise ValueError("identity must not be empty; leave it out if there is none")
        if ask.profile is not None:
            check_domain(ask.profile)
            self._require_key()
        owner = ask.tenant if ask.tenant in self._board.view.rules.owning_tenants else None
        return Request(
            id=self._board.next_id(),
            lane=self._lane_of(ask, owner),
            tenant=ask.tenant,
            priority=ask.priority,
            arrived_at=now,
            deadline=now + seconds,
            lease_seconds=lease_seconds,
            wants=ask.session_id or "",
        )

    def _lane_of(self, ask: Ask, owner: str | None) -> Lane:
        if ask.identity is not None:
            self._proxy_of(ask, owner)
            hashed = keyed_hash(self._identity_key, ask.tenant, ask.platform, ask.identity)
            return Lane(ask.platform, ask.tenant, hashed, home=self._home(ask.platform))
        known = self._board.view.sessions.get(ask.session_id or "")
        held = ask.sticky is not None or bool(ask.failed_proxies)
        if (
            known is not None
            and not held
            and known.lane[:2] == (ask.platform, ask.tenant)
            and known.state in SERVING
            and known.lane.home in {None, self._board.home}
        ):
            return known.lane  # the session's id is as good as the identity that it is of
        return Lane(ask.platform, owner, proxy=self._proxy_of(ask, owner), home=self._home(ask.platform))

    def _proxy_of(self, ask: Ask, owner: str | None) -> str | None:
        idle: list[str] = []
        if ask.failed_proxies and ask.sticky is None:
            lanes = (session.lane for session in self._board.view.idle.values())
            idle = [
                one.proxy
                for one in lanes
                if one.proxy
                and one == Lane(ask.platform, owner, proxy=one.proxy, home=self._home(ask.platform))
            ]
        return self._proxied.hold_to(
            ask.platform,
            ask.tenant,
            sticky=ask.sticky,
            failed=ask.failed_proxies,
            identity=ask.identity is not None,
            idle=idle,
        )


def profile_of(ask: Ask, proxy: Proxy | None) -> ProfileKey | None:
    """Name the saved state that a lease asks for: what was saved behind one proxy is not shown behind another."""
    if ask.profile is None:
        return None
    return ProfileKey(ask.tenant, check_domain(ask.profile), "" if proxy is None else proxy.id)

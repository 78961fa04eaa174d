"""Writes sessions at chosen instants through the real ledger, in virtual time."""

import itertools
from dataclasses import dataclass, field
from datetime import timedelta

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, LeaseUsage, SessionUsage

HOSTED = {"kind": "cdp", "url": "ws://127.0.0.1:9"}


@dataclass
class Story:
    """Writes sessions at chosen instants."""

    ledger: Ledger
    clock: VirtualClock
    ids: itertools.count = field(default_factory=itertools.count)

    def at(self, when):
        self.clock.jump((when - self.clock.now()).total_seconds())

    async def session(
        self, when, *, seconds=90.0, leases=((0.0, 30.0),), platform="web", provider="hosted", tenant="default",
        lease_tenants=None, outcome="ok", state="closed", orphan=False, settled=True,
    ):  # fmt: skip
        """Hold, lease and settle one session; leases are (start age, end age)."""
        self.at(when)
        session_id = f"s{next(self.ids):05d}"
        ask = HoldRequest(
            session_id=session_id, platform=platform, provider=provider, tenant=tenant, max_seconds=max(seconds, 600)
        )  # fmt: skip
        await self.ledger.hold(ask)
        await self.ledger.activate(session_id, provider_session_id=f"p-{session_id}")
        for number, (start, end) in enumerate(leases):
            granted = when + timedelta(seconds=start)
            self.ledger.record_lease(
                LeaseUsage(
                    lease_id=f"{session_id}-{number}", session_id=session_id, use_number=number + 1, platform=platform,
                    provider=provider, tenant=lease_tenants[number] if lease_tenants else tenant, priority=0,
                    requested_at=granted - timedelta(seconds=0.25), granted_at=granted,
                    released_at=when + timedelta(seconds=end), waited=0.25, start_age=start, end_age=end,
                    is_new=number == 0, outcome=outcome, bytes_received=1000,
                )
            )  # fmt: skip
        if not settled:
            return session_id
        self.at(when + timedelta(seconds=seconds))
        if orphan:
            await self.ledger.settle_orphan(session_id, reason="owner died")
        else:
            await self.ledger.settle(session_id, SessionUsage(seconds=seconds), reason="done", state=state)
        return session_id


def config(url="sqlite://", **more):
    rates = {"per_session": "0.001", "per_hour": "0.36", "increment": "60s"}
    return parse_config(
        {
            "ledger": {"url": url},
            "providers": {
                "local": {"kind": "local"},
                "hosted": {**HOSTED, "rates": rates},
                "other": {**HOSTED, "rates": {"per_hour": "0.10"}},
            },
            **more,
        }
    )

"""What a user can set of profiles: ``[profiles]`` and, for one site, ``[profiles.sites."example.com"]``."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from tabkeeper.config.values import Domain, Duration, Settings


class TrustSettings(Settings):
    """How the trust in a saved profile, 0 to 100, is worked out. For one site: unset values are those of [profiles]."""

    start: float = Field(100.0, ge=0, le=100, description="Trust of a profile against which nothing speaks.")
    fresh_for: Duration = Field(timedelta(minutes=60), description="Up to this age nothing is taken off.")
    age_penalty: float = Field(0.5, ge=0, description="Points off for each minute of age past fresh_for.")
    failure_penalty: float = Field(15.0, ge=0, description="Points off for each failure in a row.")
    recent: Duration = Field(timedelta(minutes=5), description="A success this short ago earns recent_bonus.")
    recent_bonus: float = Field(20.0, ge=0, description="Points for a recent success.")
    free_uses: int = Field(50, ge=0, description="Up to this many uses nothing is taken off.")
    use_penalty: float = Field(1.0, ge=0, description="Points off for each use past free_uses.")
    healthy: float = Field(70.0, ge=0, le=100, description="From this trust on a profile is healthy.")
    degraded: float = Field(
        40.0, ge=0, le=100, description="From this trust on it is degraded; below, retired."
    )
    max_age: Duration = Field(
        timedelta(hours=2), description="At this age it is retired, whatever its trust."
    )
    max_failures: int = Field(
        3, ge=1, description="After this many failures in a row it is retired, whatever its trust."
    )
    worn_uses: int = Field(
        100, ge=1, description="From this many uses on it is retired at its first failure instead."
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.degraded > self.healthy:
            raise ValueError(f"degraded: at most healthy ({self.healthy:g}), or no profile is ever degraded")
        return self


class ProfileSettings(TrustSettings):
    """Saved browser state, by site. They need a key under [security]."""

    max_bytes: int = Field(
        5_000_000, ge=1000, description="State larger than this is not saved (a warning says so)."
    )
    sites: dict[Domain, TrustSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_sites(self) -> Self:
        for site in self.sites:
            self.trust_for(site)
        return self

    def trust_for(self, site: str) -> TrustSettings:
        """Return what holds for one site: its own values, and for the rest those of all.

        Raises:
            ValueError: together they make no sense.
        """
        own = self.sites.get(site)
        mine = {name: getattr(self, name) for name in TrustSettings.model_fields}
        if own is not None:
            mine |= {name: getattr(own, name) for name in own.model_fields_set}
        return TrustSettings(**mine)

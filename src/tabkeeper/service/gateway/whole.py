"""Clients of the gateway get a browser each: CDP shows a client the whole browser, other tenants' pages included."""

from __future__ import annotations

from tabkeeper.config import PoolConfig


def whole_browsers(config: PoolConfig) -> PoolConfig:
    """Return the configuration with a process for each local session, where `isolation` was not said otherwise."""
    return config.model_copy(
        update={
            "providers": {
                name: one.model_copy(update={"isolation": "process"})
                if one.kind == "local" and "isolation" not in one.model_fields_set
                else one
                for name, one in config.providers.items()
            }
        }
    )

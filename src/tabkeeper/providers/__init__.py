"""Who runs the browsers: one adapter per kind of provider, all answering the `Provider` protocol.

Adapters decide nothing and know no ledger; `make_provider` is the way in.
"""

from __future__ import annotations

from typing import assert_never

from tabkeeper.config import ProviderSettings
from tabkeeper.providers.base import Provider


def make_provider(name: str, settings: ProviderSettings) -> Provider:
    """Return the adapter for one section ``[providers.<name>]``; nothing is started yet.

    Raises:
        ConfigError: the settings cannot be used.
    """
    # Adapters are imported on demand: who uses one kind does not pay for the packages of the others.
    match settings.kind:
        case "local":
            from tabkeeper.providers.local import LocalProvider

            return LocalProvider(name, settings)
        case "cdp":
            from tabkeeper.providers.cdp import CdpProvider

            return CdpProvider(name, settings)
        case "anchor":
            from tabkeeper.providers.anchor import AnchorProvider

            return AnchorProvider(name, settings)
        case "browser_use":
            from tabkeeper.providers.browser_use import BrowserUseProvider

            return BrowserUseProvider(name, settings)
        case "browserbase":
            from tabkeeper.providers.browserbase import BrowserbaseProvider

            return BrowserbaseProvider(name, settings)
        case "hyperbrowser":
            from tabkeeper.providers.hyperbrowser import HyperbrowserProvider

            return HyperbrowserProvider(name, settings)
        case "kernel":
            from tabkeeper.providers.kernel import KernelProvider

            return KernelProvider(name, settings)
        case "steel":
            from tabkeeper.providers.steel import SteelProvider

            return SteelProvider(name, settings)
        case "browserless":
            from tabkeeper.providers.browserless import BrowserlessProvider

            return BrowserlessProvider(name, settings)
        case _:
            assert_never(settings.kind)


__all__ = ["Provider", "make_provider"]

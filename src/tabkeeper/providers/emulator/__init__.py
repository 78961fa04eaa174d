"""Stand-ins of hosted providers: their HTTP API in front of real local Chromium, for tests and for a first look.

An emulator keeps a provider's promises (paths, fields, errors, states, timers, limits, what it would bill) and breaks
them on demand. It needs ``pip install 'tabkeeper[emulate]'``; `tabkeeper emulate` runs one by itself.

    async with serving(BrowserbaseEmulator()) as emulator:
        emulator.misbehave("release", "status", status=500, times=3)
        ...  # any client, its base address set to emulator.url
"""

from __future__ import annotations

from tabkeeper.providers.emulator.anchor import AnchorEmulator
from tabkeeper.providers.emulator.browser_use import BrowserUseEmulator
from tabkeeper.providers.emulator.browserbase import BrowserbaseEmulator
from tabkeeper.providers.emulator.browserless import BrowserlessEmulator
from tabkeeper.providers.emulator.core import Bill, Emulator, Limits
from tabkeeper.providers.emulator.faults import Deed, Fault
from tabkeeper.providers.emulator.hyperbrowser import HyperbrowserEmulator
from tabkeeper.providers.emulator.kernel import KernelEmulator
from tabkeeper.providers.emulator.server import serving
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase
from tabkeeper.providers.emulator.steel import SteelEmulator

KINDS: dict[str, type[Emulator]] = {
    "anchor": AnchorEmulator,
    "browser_use": BrowserUseEmulator,
    "browserbase": BrowserbaseEmulator,
    "browserless": BrowserlessEmulator,
    "hyperbrowser": HyperbrowserEmulator,
    "kernel": KernelEmulator,
    "steel": SteelEmulator,
}
"""What can be emulated, by the provider's kind in the configuration."""

__all__ = [
    "KINDS",
    "AnchorEmulator",
    "Bill",
    "BrowserUseEmulator",
    "BrowserbaseEmulator",
    "BrowserlessEmulator",
    "Deed",
    "EmulatedSession",
    "Emulator",
    "Fault",
    "HyperbrowserEmulator",
    "KernelEmulator",
    "Limits",
    "Phase",
    "SteelEmulator",
    "serving",
]

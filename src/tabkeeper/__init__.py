"""Tabkeeper: a cost-aware pool of browser sessions with a budget ledger that cannot be overspent."""

__version__ = "0.1.0"

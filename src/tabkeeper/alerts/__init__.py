"""Who is told, and how: rules that raise alerts, the outbox that delivers them, and the channels they take.

An alert is a row before it is a message, so it survives a crash and is raised once for a crossing, however many
processes see it.
"""

from __future__ import annotations

from tabkeeper.alerts.alert import Alert

__all__ = ["Alert"]

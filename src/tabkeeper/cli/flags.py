"""How options that take no value look in help: as themselves, without the name of a type.

Newer versions of Typer write `<bool>` behind every flag, which reads as if something had to follow it.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class _Command(TyperCommand):
    """A command whose flags stand alone."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See `TyperCommand`."""
        return _bare(super().get_params(ctx))


class _Group(TyperGroup):
    """A group of commands whose flags stand alone."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See `TyperGroup`."""
        return _bare(super().get_params(ctx))


def show_flags_bare(app: typer.Typer) -> None:
    """Change the help of all commands and groups registered so far."""
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        group.cls = _Group
        if group.typer_instance is not None:
            show_flags_bare(group.typer_instance)


def _bare(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters

"""`tabkeeper`: puts the commands together, and turns every error into one line and an honest exit code.

0 means done, 1 means that something is wrong with what was looked at, 2 means that the request itself cannot be
carried out: a wrong option, a mistake in the configuration, a database or a browser that is not there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Annotated

import typer

from tabkeeper import __version__
from tabkeeper.cli.alerts import alerts_app
from tabkeeper.cli.db import db_app
from tabkeeper.cli.doctor import doctor
from tabkeeper.cli.emulate import emulate
from tabkeeper.cli.explain import explain_app
from tabkeeper.cli.export import export_app
from tabkeeper.cli.flags import show_flags_bare
from tabkeeper.cli.init import init
from tabkeeper.cli.metrics import metrics
from tabkeeper.cli.profiles import profiles_app
from tabkeeper.cli.providers import providers_app
from tabkeeper.cli.proxies import proxies_app
from tabkeeper.cli.reconcile import reconcile
from tabkeeper.cli.run import run as run_sites
from tabkeeper.cli.runs import runs_app
from tabkeeper.cli.serve import serve
from tabkeeper.cli.sessions import cleanup, sessions_app
from tabkeeper.cli.sites import sites_app
from tabkeeper.cli.status import status
from tabkeeper.cli.tokens import tokens_app
from tabkeeper.cli.verify import verify
from tabkeeper.errors import (
    ConfigError,
    LedgerUnavailableError,
    ProviderUnavailableError,
    SchemaVersionError,
    TabkeeperError,
)

CANNOT_START = (ConfigError, LedgerUnavailableError, SchemaVersionError, ProviderUnavailableError)
"""Errors of the request or its surroundings rather than of the outcome: exit code 2."""

# Base of all errors in how a command was called. Typer exports only its children, and where the base lives changed.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="tabkeeper",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps: `tabkeeper init`, `tabkeeper doctor`, `tabkeeper demo`.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tabkeeper {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A cost-aware pool of browser sessions with a budget ledger that cannot be overspent."""


def _register() -> None:
    app.command()(init)
    app.command()(doctor)
    _register_if_present("tabkeeper.cli.demo", command="demo")
    app.command()(serve)
    app.command("run")(run_sites)
    app.add_typer(runs_app, name="runs")
    app.command()(status)
    app.command()(metrics)
    _register_if_present("tabkeeper.cli.report", report="report_app", budget="budget_app", rates="rates_app")
    app.add_typer(export_app, name="export")
    app.add_typer(sessions_app, name="sessions")
    app.add_typer(explain_app, name="explain")
    app.add_typer(tokens_app, name="tokens")
    app.add_typer(profiles_app, name="profiles")
    app.add_typer(proxies_app, name="proxies")
    app.add_typer(sites_app, name="sites")
    app.command()(cleanup)
    app.add_typer(providers_app, name="providers")
    app.command()(verify)
    app.command()(reconcile)
    app.command()(emulate)
    app.add_typer(alerts_app, name="alerts")
    app.add_typer(db_app, name="db")


def _register_if_present(module: str, *, command: str | None = None, **groups: str) -> None:
    if importlib.util.find_spec(module) is None:
        return
    found = importlib.import_module(module)
    if command is not None:
        app.command(command)(getattr(found, command))
    for name, attribute in groups.items():
        app.add_typer(getattr(found, attribute), name=name)


_register()
show_flags_bare(app)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are told on standard error, in one line each."""
    try:
        result = app(args=arguments, prog_name="tabkeeper", standalone_mode=False)
    except _USAGE_ERROR as error:
        return _misused(error)
    except CANNOT_START as error:
        return _tell(error, 2)
    except TabkeeperError as error:
        return _tell(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        return _tell("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output went away (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _misused(error: Exception) -> int:
    """Say what was wrong with how a command was called, and where its help is."""
    said = getattr(error, "format_message", error.__str__)()
    # A group without its command: Typer has printed the help already, or gives it as the message.
    if type(error).__name__ == "NoArgsIsHelpError":
        if said.strip():
            typer.echo(said)
        return 2
    command = getattr(getattr(error, "ctx", None), "command_path", "tabkeeper")
    return _tell(f"{_one_line(said).rstrip('.')}; see {command} --help", 2)


def _tell(error: object, code: int) -> int:
    typer.echo(f"tabkeeper: {_one_line(str(error))}", err=True)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Run the command line of this process; the console script `tabkeeper`.

    Functions that the configuration names may be in the folder where it is called, as with ``python -m``. But that
    folder comes last: a file in it that is named like one of our parts must not take its place.
    """
    if "" not in sys.path:
        sys.path.append("")
    sys.exit(run(sys.argv[1:]))

"""`tabkeeper db`: the ledger's schema, for those who want to upgrade it by hand."""

from __future__ import annotations

import asyncio

import typer

from tabkeeper import vault
from tabkeeper.cli.options import ConfigOption, JsonOption, print_json, read_config
from tabkeeper.cli.records import must_exist, reading, revision, shown, working
from tabkeeper.config import PoolConfig
from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import read_engine, write_engine
from tabkeeper.ledger.sealed import reseal
from tabkeeper.reports.render_parts import counted

db_app = typer.Typer(no_args_is_help=True, help="Create, upgrade and check the ledger's database.")


@db_app.command()
def upgrade(config: ConfigOption = None) -> None:
    """Create the schema, or bring it to the version this Tabkeeper expects; safe to repeat and while pools run.

    For instance:

      tabkeeper db upgrade -c /etc/tabkeeper.toml
    """
    settings = read_config(config)
    engine = write_engine(settings.ledger.url)
    try:
        schema.ensure(engine, auto_upgrade=True)
    finally:
        engine.dispose()
    typer.echo(f"{shown(settings)} is at revision {schema.HEAD}")


@db_app.command("new-key")
def new_key() -> None:
    """Print a new key for `security.keys`. It is shown once and kept nowhere.

    For instance:

      export TABKEEPER_KEY=$(tabkeeper db new-key)
    """
    typer.echo(vault.new_key())


@db_app.command("rotate-keys")
def rotate_keys(config: ConfigOption = None) -> None:
    """Encrypt everything that is stored encrypted with the first of `security.keys`; then the others can go.

    Put the new key first and leave the old one behind it, in every pool's configuration; restart the pools; run this;
    remove the old key. Safe to repeat and while pools run.

    For instance:

      tabkeeper db rotate-keys -c /etc/tabkeeper.toml
    """
    settings = read_config(config)
    keys = vault.Vault([key.get_secret_value() for key in settings.security.keys])
    keys.require("what is encrypted can be encrypted again")
    done = asyncio.run(_rotate(settings, keys))
    typer.echo(f"{counted(done, 'stored secret')} in {shown(settings)} now use the first key")


async def _rotate(settings: PoolConfig, keys: vault.Vault) -> int:
    async with working(settings) as ledger:
        return await ledger.transact(lambda tx: reseal(tx, keys.reseal))


@db_app.command()
def current(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show which revision the database has and which one this Tabkeeper expects.

    For instance:

      tabkeeper db current

      tabkeeper db current --json | jq '.revision == .expected'
    """
    settings = read_config(config)
    must_exist(settings)
    engine = read_engine(settings.ledger.url)
    try:
        found = revision(engine)
    finally:
        engine.dispose()
    if as_json:
        print_json({"url": shown(settings), "revision": found, "expected": schema.HEAD})
    else:
        typer.echo(f"{shown(settings)}: {found or 'no schema yet'} (this version expects {schema.HEAD})")


@db_app.command()
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Compare the database with what this Tabkeeper expects; exit code 1 if anything differs.

    For instance:

      tabkeeper db check

      tabkeeper db check --json | jq '.differences[]'
    """
    settings = read_config(config)
    with reading(settings) as engine:
        found = schema.differences(engine)
    if as_json:
        print_json({"url": shown(settings), "revision": schema.HEAD, "differences": found})
    else:
        for difference in found:
            typer.echo(f"differs: {difference}")
        typer.echo(f"{shown(settings)}: {counted(len(found), 'difference') if found else 'as expected'}")
    if found:
        raise typer.Exit(1)

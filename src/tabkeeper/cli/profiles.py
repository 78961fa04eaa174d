"""`tabkeeper profiles`: look at saved browser state, retire it, carry it to another machine.

Cookies are shown only to who asks for them by name of the option; a file leaves encrypted unless told otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from tabkeeper import vault
from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.records import working
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, check_domain
from tabkeeper.errors import ConfigError, SealedError
from tabkeeper.profiles.state import BrowserState, Profile, ProfileKey
from tabkeeper.profiles.store import ProfileStore

T = TypeVar("T")

profiles_app = typer.Typer(no_args_is_help=True, help="Saved cookies and storage: list, show, retire, move.")

SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="The site's domain, such as example.com.")]
TenantOption = Annotated[str, typer.Option("--tenant", help="Whose profile.")]
ProxyOption = Annotated[str, typer.Option("--proxy", help="Behind which proxy; none by default.")]
PassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase-env",
        metavar="NAME",
        help="Environment variable that holds the passphrase; without it you are asked.",
    ),
]
_FORM = "tabkeeper-profile"


@profiles_app.command("list")
def list_(
    config: ConfigOption = None,
    *,
    retired: Annotated[
        bool, typer.Option("--retired", help="Show also those retired in the last days.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List profiles with their trust: who, where, how old, how often used.

    For instance:

      tabkeeper profiles list

      tabkeeper profiles list --retired --json
    """

    async def work(store: ProfileStore) -> list[dict[str, Any]]:
        return [_facts(store, profile) for profile in await store.all(retired=retired)]

    found = _with_store(read_config(config), work)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no profiles")
        return
    table = Table(box=None, pad_edge=False)
    for column in (
        "site",
        "tenant",
        "proxy",
        "state",
        "trust",
        "age (min)",
        "uses",
        "failures",
        "why retired",
    ):
        table.add_column(column, justify="right" if column in _RIGHT else "left")
    for row in found:
        table.add_row(
            row["site"],
            row["tenant"],
            row["proxy"],
            row["grade"],
            f"{row['trust']:.0f}",
            f"{row['age_minutes']:.0f}",
            str(row["uses"]),
            str(row["failures"]),
            row["retired_why"],
        )
    console().print(table)


_RIGHT = {"trust", "age (min)", "uses", "failures"}


@profiles_app.command()
def show(
    site: SiteArgument,
    config: ConfigOption = None,
    *,
    tenant: TenantOption = "default",
    proxy: ProxyOption = "",
    cookies: Annotated[
        bool, typer.Option("--cookies", help="Print cookies and storage in clear. They log in as you.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one profile: its trust, and for which domains and origins it has something; no contents.

    For instance:

      tabkeeper profiles show example.com

      tabkeeper profiles show example.com --tenant acme --cookies --json
    """

    async def work(store: ProfileStore) -> dict[str, Any]:
        profile, state = await _existing(store, _key(site, tenant, proxy))
        told: dict[str, Any] = {
            **_facts(store, profile),
            "user_agent": state.user_agent,
            "viewport": state.viewport,
            "cookies_by_domain": state.cookies_by_domain(),
            "origins": state.origins(),
        }
        return told | {"storage": state.storage} if cookies else told

    found = _with_store(read_config(config), work)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        typer.echo(f"{name.replace('_', ' ')}: {'-' if shown in (None, '') else shown}")


@profiles_app.command()
def retire(
    site: SiteArgument,
    config: ConfigOption = None,
    *,
    tenant: TenantOption = "default",
    proxy: ProxyOption = "",
) -> None:
    """Retire a profile: its cookies and storage are forgotten, and the next lease begins afresh.

    For instance:

      tabkeeper profiles retire example.com --tenant acme
    """
    key = _key(site, tenant, proxy)
    if not _with_store(read_config(config), lambda store: store.retire(key)):
        raise ConfigError(f"there is no profile of {key}; `tabkeeper profiles list` shows them")
    typer.echo(f"the profile of {key} is retired")


@profiles_app.command("export")
def export_(
    site: SiteArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not exist yet.")],
    config: ConfigOption = None,
    *,
    tenant: TenantOption = "default",
    proxy: ProxyOption = "",
    passphrase_env: PassphraseOption = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Do not encrypt the file: whoever reads it is logged in as you.")
    ] = False,
) -> None:
    """Write a profile to a file, encrypted with a passphrase and readable by you alone.

    For instance:

      tabkeeper profiles export example.com example.profile

      tabkeeper profiles export example.com example.profile --passphrase-env PROFILE_PASSPHRASE
    """
    key = _key(site, tenant, proxy)
    settings = read_config(config)
    _, state = _with_store(settings, lambda store: _existing(store, key))
    body: dict[str, Any] = {"form": _FORM, "site": key.site}
    if plain:
        body["state"] = state.to_text(key)
    else:
        body["salt"] = vault.new_salt()
        phrase = _passphrase(passphrase_env, confirm=True)
        body["sealed"] = vault.passphrase_vault(phrase, body["salt"]).seal(state.to_text(key))
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(body, out)
    typer.echo(f"the profile of {key} is in {file}{', NOT encrypted' if plain else ', encrypted'}")


@profiles_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `profiles export` wrote.")],
    config: ConfigOption = None,
    *,
    site: Annotated[
        str | None, typer.Option("--site", help="For this site; the file's own if unset.")
    ] = None,
    tenant: TenantOption = "default",
    proxy: ProxyOption = "",
    passphrase_env: PassphraseOption = None,
) -> None:
    """Store a profile from a file, as new; one that is there already is retired.

    For instance:

      tabkeeper profiles import example.profile --tenant acme
    """
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        body = None
    if not isinstance(body, dict) or body.get("form") != _FORM:
        raise ConfigError(f"{file} is not a file that `tabkeeper profiles export` wrote")
    if "sealed" in body:
        phrase = _passphrase(passphrase_env, confirm=False)
        try:
            text = vault.passphrase_vault(phrase, str(body.get("salt", ""))).open(str(body["sealed"]))
        except (SealedError, ValueError):
            raise ConfigError(f"{file} does not open with this passphrase") from None
    else:
        text = str(body.get("state"))
    try:
        state = BrowserState.from_text(text)
    except SealedError as error:
        raise ConfigError(f"{file}: {error}") from None
    key = _key(site or str(body.get("site")), tenant, proxy)
    _with_store(read_config(config), lambda store: store.put(key, state))
    typer.echo(f"the profile of {key} is stored")


def _key(site: str, tenant: str, proxy: str) -> ProfileKey:
    try:
        return ProfileKey(tenant, check_domain(site), proxy)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _facts(store: ProfileStore, profile: Profile) -> dict[str, Any]:
    verdict = store.judge(profile)
    record = profile.record(SystemClock().now())
    return {
        "site": profile.key.site,
        "tenant": profile.key.tenant,
        "proxy": profile.key.proxy,
        "grade": str(verdict.grade),
        "trust": verdict.score,
        "age_minutes": record.age.total_seconds() / 60,
        "uses": profile.uses,
        "failures": profile.failures,
        "created_at": profile.created_at,
        "saved_at": profile.saved_at,
        "succeeded_at": profile.succeeded_at,
        "retired_at": profile.retired_at,
        "retired_why": profile.retired_why or verdict.why,
    }


async def _existing(store: ProfileStore, key: ProfileKey) -> tuple[Profile, BrowserState]:
    found = await store.read(key)
    if found is None:
        raise ConfigError(f"there is no profile of {key}; `tabkeeper profiles list` shows them")
    return found


def _passphrase(variable: str | None, *, confirm: bool) -> str:
    if variable is None:
        return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=confirm))
    if not os.environ.get(variable):
        raise ConfigError(f"--passphrase-env: the environment variable {variable} is not set, or empty")
    return os.environ[variable]


def _with_store(settings: PoolConfig, work: Callable[[ProfileStore], Awaitable[T]]) -> T:
    keys = vault.Vault([key.get_secret_value() for key in settings.security.keys])

    async def run() -> T:
        async with working(settings) as ledger:
            return await work(ProfileStore(ledger, keys, SystemClock(), settings.all_profiles))

    return asyncio.run(run())

"""What the database's own file holds of a session's address: nothing without a key, nothing readable with one."""

import asyncio
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text

from tabkeeper.cli.app import run
from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider
from tabkeeper.vault import Vault, new_key

ADDRESS = "ws://fake.invalid/local-1"


def pool_on(url: str, *keys: str) -> SessionPool:
    config = parse_config(
        {"ledger": {"url": url}, "platforms": {"web": {}}, "security": {"keys": list(keys)}}
    )
    return SessionPool(
        config, providers={"local": FakeProvider("local", SystemClock(), latency=(0, 0))}, rng=Random(1)
    )


async def stored(pool: SessionPool) -> list[str | None]:
    await pool._ledger.flush()
    with pool._ledger.reader.connect() as db:
        return list(db.execute(text("SELECT connect_sealed FROM session")).scalars())


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_running_session_s_address_is_stored_sealed_and_forgotten_at_its_end(sqlite_url, tmp_path):
    key = new_key()
    async with pool_on(sqlite_url, key) as pool:
        lease = await pool.get_session("web")
        [sealed] = await stored(pool)
        assert sealed is not None
        assert Vault([key]).open(sealed) == ADDRESS
        raw = everything_in(tmp_path)
        assert sealed.encode() in raw, "this look would miss what it looks for"
        assert key.encode() not in raw
        assert ADDRESS.encode() not in raw
        await lease.release()
        await pool.close_session(lease.session_id)
        assert await stored(pool) == [None]


async def test_without_a_key_no_address_is_stored(sqlite_url):
    async with pool_on(sqlite_url) as pool:
        await pool.get_session("web")
        assert await stored(pool) == [None]
        await pool.close(grace=0)


async def test_rotation_seals_everything_with_the_first_key(sqlite_url, tmp_path, monkeypatch, capsys):
    old, new = new_key(), new_key()
    monkeypatch.setenv("OLD_KEY", old)
    monkeypatch.setenv("NEW_KEY", new)
    settings = tmp_path / "tabkeeper.toml"
    settings.write_text(
        f'[ledger]\nurl = "{sqlite_url}"\n[security]\nkeys = ["env:NEW_KEY", "env:OLD_KEY"]\n[platforms.web]\n'
    )
    async with pool_on(sqlite_url, old) as pool:
        lease = await pool.get_session("web")
        await stored(pool)
        assert await asyncio.to_thread(run, ["db", "rotate-keys", "-c", str(settings)]) == 0
        assert "1 stored secret" in capsys.readouterr().out
        [sealed] = await stored(pool)
        assert sealed is not None
        assert Vault([new]).open(sealed) == ADDRESS
        await lease.release()


def test_rotation_without_a_key_says_what_to_do(sqlite_url, tmp_path, capsys):
    settings = tmp_path / "tabkeeper.toml"
    settings.write_text(f'[ledger]\nurl = "{sqlite_url}"\n')
    assert run(["db", "rotate-keys", "-c", str(settings)]) == 2
    assert "tabkeeper db new-key" in capsys.readouterr().err
    assert run(["db", "new-key"]) == 0
    Vault([capsys.readouterr().out.strip()])


@pytest.mark.postgres
async def test_addresses_are_sealed_on_postgresql_too(postgres_url):
    key = new_key()
    async with pool_on(postgres_url, key) as pool:
        lease = await pool.get_session("web")
        [sealed] = await stored(pool)
        assert sealed is not None
        assert Vault([key]).open(sealed) == ADDRESS
        await lease.release()

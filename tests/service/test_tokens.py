"""`tabkeeper tokens`: made, listed, revoked; and what a token that was revoked still opens, which is nothing."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tabkeeper.cli.app import run
from tabkeeper.config import ServiceSettings
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.engines import read_engine
from tabkeeper.ledger.tokens import StoredToken, add, revoke, stored
from tabkeeper.service.keyring import FRESH_SECONDS, Keyring
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.tokens import hash_token
from tabkeeper.testing import run_virtual

from .world import MAIN, TOKENS, house


@dataclass
class Watch:
    """A clock that stands still until it is moved."""

    at: float = 0.0

    def now(self):
        return datetime.now(UTC) + timedelta(seconds=self.at)

    def monotonic(self):
        return self.at


async def test_a_token_is_good_at_once_and_a_second_after_it_is_revoked_no_more(
    ledger_url, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    section = f'[[service.tokens]]\nname = "old"\nhash = "{hash_token(MAIN)}"\n'
    (tmp_path / "tabkeeper.toml").write_text(f'[ledger]\nurl = "{ledger_url}"\n{section}')

    async def tell(*words):
        code = await asyncio.to_thread(run, ["tokens", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    engine, reads, clock = read_engine(ledger_url), [], Watch()

    async def read():
        reads.append(clock.at)
        return stored(engine)

    settings = ServiceSettings.model_validate({"tokens": TOKENS})
    ring = Keyring(settings, clock, read)
    _, out, err = await tell(
        "create", "--name", "ci", "--scope", "read", "--scope", "lease", "--tenant", "acme"
    )
    token = out.strip()
    assert token not in err
    found = await ring.find(token)
    assert (found.name, found.scopes, found.tenants) == ("ci", {"read", "lease"}, ("acme",))
    _, out, _ = await tell("create", "--name", "brief", "--expires", "1h", "--json")
    brief = json.loads(out)
    clock.at += 0.1
    assert (await ring.find(brief["token"])).name == "brief"  # new ones are looked up at once
    assert (await ring.find(MAIN)).name == "main"
    assert await ring.find("tk_nobody") is None

    many = len(reads)
    clock.at += FRESH_SECONDS
    assert {one.name for one in await asyncio.gather(*(ring.find(token) for _ in range(50)))} == {"ci"}
    assert len(reads) == many + 1  # however many ask

    _, out, _ = await tell("list", "--json")
    assert [(one["name"], one["kept_in"], one["tenants"]) for one in json.loads(out)] == [
        ("old", "configuration", []),
        ("ci", "ledger", ["acme"]),
        ("brief", "ledger", []),
    ]
    assert token not in out
    assert hash_token(token) not in out
    assert (await tell("list"))[1].count("good") == 3

    assert (await tell("revoke", "ci"))[0] == 0
    clock.at += FRESH_SECONDS + 0.001
    assert await ring.find(token) is None
    assert not await ring.is_good(found)
    assert (await tell("revoke", "ci"))[0] == 2  # it is over
    assert (await tell("create", "--name", "ci"))[0] == 0  # its name is free again
    assert (await tell("list", "--json"))[1].count('"ci"') == 1
    assert "revoked" in (await tell("list", "--all"))[1]

    clock.at += 3599
    assert await ring.find(brief["token"]) is None
    assert "expired" not in (await tell("list"))[1]  # by the clock of this machine it is good
    for words, said in (
        (("create", "--name", "ci"), "there is a token of the name"),
        (("create", "--name", "old"), "the configuration has a token of the name"),
        (("revoke", "old"), "remove its section"),
        (("create", "--name", "x", "--scope", "rule"), "scopes"),
        (("create", "--name", "x", "--expires", "soon"), "write it like 90d"),
    ):
        code, _, err = await tell(*words)
        assert (code, said in err) == (2, True), err
    engine.dispose()


def test_without_a_ledger_a_first_token_makes_one_and_a_section_of_the_configuration_needs_none(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(["tokens", "list"]) == 0
    assert run(["tokens", "create", "--name", "ci", "--tenant", "acme", "--for-config"]) == 0
    first, _, section = capsys.readouterr().out.partition("# The")[2].partition("\n")
    assert hash_token(first.split()[-1]) in section
    (tmp_path / "with.toml").write_text(section)
    assert list(tmp_path.glob("*.db*")) == []
    assert run(["tokens", "create", "--name", "me", "-c", "with.toml"]) == 0
    capsys.readouterr()
    assert run(["tokens", "list", "-c", "with.toml", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["ci", "me"]
    (tmp_path / "memory.toml").write_text('[ledger]\nurl = "sqlite://"\n')
    assert run(["tokens", "create", "--name", "me", "-c", "memory.toml"]) == 2


def test_what_a_revoked_token_had_ends_with_it():
    token = "tk_" + "s" * 43

    async def story(clock):
        async with house(clock, service={"lease_ttl": "15m"}) as here, here.client(token) as http:
            assert (await http.get("/sessions")).status_code == 401
            await asyncio.sleep(1)
            made = StoredToken(
                id="t1",
                name="ci",
                hash=hash_token(token),
                scopes=("read", "lease"),
                created_at=clock.now(),
            )
            assert await here.pool.database.transact(lambda tx: add(tx, made))
            assert (await http.get("/sessions")).status_code == 200
            assert (await http.post("/login", json={"token": token})).status_code == 204
            lease = (await http.post("/leases", json={"platform": "web"})).json()
            kept = here.client(None, cookies=dict(http.cookies))
            assert (await kept.get("/now")).status_code == 200
            events = asyncio.ensure_future(http.get("/events"))
            await asyncio.sleep(5)
            assert not events.done()

            assert await here.pool.database.transact(lambda tx: revoke(tx, "ci", clock.now())) == "t1"
            revoked = clock.monotonic()
            await asyncio.sleep(FRESH_SECONDS)
            assert (await http.get("/sessions")).status_code == 401
            assert (await kept.get("/now")).status_code == 401  # the dashboard's log-in
            assert "event: now" in (await events).text
            async with here.client() as main:
                told = (await main.get(f"/leases/{lease['id']}", params={"wait": 20})).json()
                assert told["status"] == "ended"
                assert "its token was revoked" in told["message"]
                assert clock.monotonic() - revoked <= 2 * FRESH_SECONDS + 1e-6
            await kept.aclose()

    run_virtual(story)


async def test_while_the_database_is_away_who_is_known_stays_and_nobody_new_is_let_in():
    clock, away = Watch(), []
    known = StoredToken(id="t1", name="ci", hash=hash_token("tk_a"), scopes=("read",), created_at=clock.now())

    async def read():
        if away:
            raise LedgerUnavailableError("postgresql://user:secret@host/db is away")
        return [known]

    ring = Keyring(ServiceSettings.model_validate({"tokens": TOKENS}), clock, read)
    assert (await ring.find("tk_a")).name == "ci"
    away.append(True)
    clock.at += 100
    assert (await ring.find("tk_a")).name == "ci"
    assert (await ring.find(MAIN)).name == "main"
    with pytest.raises(ProblemError) as refused:
        await ring.find("tk_b")
    assert refused.value.status == 503
    assert "secret" not in str(refused.value)
    away.clear()
    clock.at += FRESH_SECONDS
    assert await ring.find("tk_b") is None

"""The client: the same `get_session` as in the pool's own process, with the same errors, over a real socket."""

import asyncio
import inspect
from contextlib import asynccontextmanager, suppress
from itertools import cycle

import pytest
from playwright.async_api import Error as PlaywrightError
from tests.pool.world import world

from tabkeeper.client import RemoteLease, RemotePool
from tabkeeper.clock import SystemClock
from tabkeeper.config import ProviderSettings, ServiceSettings, parse_config
from tabkeeper.errors import (
    BudgetExceededError,
    ConfigError,
    LeaseLostError,
    PoolError,
    QueueFullError,
    QueueTimeoutError,
    SessionTimeoutError,
)
from tabkeeper.pool.lease import Lease, LeaseRequest
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.service.tokens import ANYBODY

from .world import ACME, MAIN, TOKENS


@asynccontextmanager
async def remote(token=MAIN, ttl=60.0, **more):
    settings = ServiceSettings.model_validate({"tokens": TOKENS, "port": 0})
    async with world(SystemClock(), latency=(0.0, 0.0), jobs=False, **more) as here:
        app = create_app(here.pool, settings)
        async with serving(app, settings) as url, RemotePool(url, token=token, ttl=ttl) as pool:
            here.desk = app.state.rooms.desk
            yield here, pool


async def test_leases_wait_their_turn_and_end_as_they_do_in_the_pool_s_own_process():
    async with remote(max_sessions=1, max_queued=1) as (here, pool):
        async with pool.get_session("web", tags={"job": "7"}) as first:
            assert (first.is_new, first.provider, first.tenant, first.outcome) == (
                True,
                "local",
                "default",
                "",
            )
            assert first.deadline > first.granted_at
            with pytest.raises(QueueTimeoutError, match="has all 1 sessions"):
                await pool.get_session("web", timeout=0.1)
            waiting = asyncio.create_task(pool.get_session("web", priority=5)._acquire())
            while not here.pool.waiting():
                await asyncio.sleep(0.01)
            with pytest.raises(QueueFullError):
                await pool.get_session("web")
        second = await waiting
        assert (first.outcome, second.session_id, second.is_new) == ("ok", first.session_id, False)
        await second.release(success=False, reason="blocked")
        await second.release()
        assert second.outcome == "failed"
        with pytest.raises(ConfigError, match="no platform"):
            await pool.get_session("nowhere")
        assert (await pool.health())["status"] == "ok"
        assert (await pool.stats())["leases"] == 2


async def test_a_caller_that_is_cancelled_leaves_the_queue_and_a_holder_that_beats_keeps_its_lease():
    async with remote(max_sessions=1, ttl=6) as (here, pool):
        held = await pool.get_session("web")
        (ticket,) = here.desk.of(ANYBODY)
        ends = ticket.expires_at
        waiting = asyncio.create_task(pool.get_session("web")._acquire())
        while not here.pool.waiting():
            await asyncio.sleep(0.01)
        waiting.cancel()
        while here.pool.waiting():
            await asyncio.sleep(0.01)
        while ticket.expires_at <= ends:
            await asyncio.sleep(0.05)
        assert here.pool.stats().leased == 1
        await held.release()


async def test_many_who_wait_share_few_connections_each_and_every_one_is_served():
    async with remote(max_sessions=1, max_queued=100) as (here, pool):
        held = await pool.get_session("web")

        async def work():
            async with pool.get_session("web") as lease:
                return lease.session_id

        working = [asyncio.create_task(work()) for _ in range(70)]
        while len(here.pool.waiting()) < 70:
            await asyncio.sleep(0.01)
        calls = pool._http._busy.values()
        assert len(calls) >= 3
        assert max(calls) <= 32
        await held.release()
        assert set(await asyncio.gather(*working)) == {held.session_id}
        assert not any(pool._http._busy.values())


async def test_a_lease_that_is_lost_cancels_its_operation_and_says_so():
    async with remote(ttl=6) as (here, pool):
        with pytest.raises(LeaseLostError, match="browser died"):
            async with pool.get_session("web") as lease:
                here.provider.kill(lease.session_id)
                await lease.use(lambda _: asyncio.sleep(60))
        with pytest.raises(SessionTimeoutError):
            async with pool.get_session("web") as lease:
                await lease.use(lambda _: asyncio.sleep(60), timeout=0.05)
        assert lease.outcome == "failed"


@pytest.mark.parametrize(
    ("error", "ended_by", "raised"),
    [
        (PlaywrightError("Target closed"), "its browser's death", LeaseLostError),
        (PlaywrightError("Target closed"), "its holder", PlaywrightError),
        (ZeroDivisionError(), "its browser's death", ZeroDivisionError),
    ],
)
async def test_a_page_that_fails_as_its_lease_is_lost_says_that_and_hides_no_other_error(
    error, ended_by, raised
):
    async with remote(ttl=900) as (here, pool):
        with pytest.raises(raised) as told:
            async with pool.get_session("web") as lease:
                if ended_by == "its holder":
                    await lease.release()
                else:
                    here.provider.kill(lease.session_id)
                    (ticket,) = here.desk.of(ANYBODY)
                    await ticket.over.wait()
                assert lease.outcome in {"", "ok"}  # no heartbeat has told of the death
                raise error
        if raised is LeaseLostError:
            assert "browser died" in str(told.value)
            assert told.value.__cause__ is error
        assert lease.outcome == ("ok" if ended_by == "its holder" else "lost")


async def test_refusals_arrive_as_what_they_were():
    money = {"rates": {"per_hour": "1.00"}, "budgets": [{"name": "daily", "limit": "0.10"}]}
    async with remote(**money) as (_, pool):
        with pytest.raises(BudgetExceededError) as refused:
            await pool.get_session("web")
        assert (refused.value.budget, refused.value.limit.text()) == ("daily", "0.10")
    async with remote(token=ACME) as (_, pool):
        with pytest.raises(ConfigError, match="tenant 'other'"):
            await pool.get_session("web", tenant="other")
    async with RemotePool("http://127.0.0.1:9", token=MAIN) as pool:
        with pytest.raises(PoolError, match="cannot be reached"):
            await pool.get_session("web")


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("direct", [False, True])
async def test_a_page_of_a_remote_lease_is_a_page_in_the_pool_s_browser(tmp_path, direct):
    config = parse_config({"ledger": {"url": f"sqlite:///{tmp_path}/books.db"}, "platforms": {"web": {}}})
    provider = LocalProvider(
        "local", ProviderSettings(kind="local", isolation="process"), state_dir=tmp_path / "state"
    )
    settings = ServiceSettings.model_validate({"tokens": TOKENS, "port": 0})
    app = create_app(SessionPool(config, providers={"local": provider}, jobs=False), settings)
    async with serving(app, settings) as url, RemotePool(url, token=MAIN, direct=direct) as pool:
        async with pool.get_session("web", timeout=60) as session:
            page = await session.new_page()
            await page.goto("data:text/html,<title>hello</title>")
            assert await session.use(lambda _: page.title()) == "hello"
        assert session.outcome == "ok"


async def test_a_service_that_was_started_anew_knows_no_lease_of_before_and_its_holder_hears_of_it():
    settings = ServiceSettings.model_validate({"tokens": TOKENS, "port": 0})
    async with remote(ttl=1) as (here, pool), serving(create_app(here.pool, settings), settings) as anew:
        ended = []
        lease = await pool.get_session("web")
        lease.on_end(lambda: ended.append(lease.outcome))
        before, pool._http.base_url = pool._http.base_url, anew
        with pytest.raises(LeaseLostError, match="no such lease"):
            await lease.use(lambda _: asyncio.sleep(60))
        assert (lease.outcome, ended) == ("lost", ["lost"])
        await lease.release()
        pool._http.base_url = before


async def test_a_service_that_stays_away_costs_holders_their_leases_and_hides_no_error_of_theirs(caplog):
    async with remote(ttl=1) as (_, pool):
        lost, other = await pool.get_session("web"), await pool.get_session("web")
        before, pool._http.base_url = pool._http.base_url, "http://127.0.0.1:9"
        with pytest.raises(LeaseLostError):
            await lost.use(lambda _: asyncio.sleep(60))
        with pytest.raises(ZeroDivisionError):  # and not that the lease could not be given back
            async with LeaseRequest(lambda: asyncio.sleep(0, other)):
                raise ZeroDivisionError
        assert "could not be given back" in caplog.text
        pool._http.base_url = before


@asynccontextmanager
async def impostor(answers):
    """Something on the way that answers in the service's place, whatever it is asked."""
    answers = cycle(answers)

    async def answer(reader, writer):
        with suppress(OSError, asyncio.IncompleteReadError):  # it hung up
            try:
                await reader.readuntil(b"\r\n\r\n")
                head, body = next(answers)
                writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n".encode())
                writer.write(b"Connection: close\r\n\r\n" + body)
                await writer.drain()
            finally:
                writer.close()
                await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_a_proxy_answers_in_the_service_s_place_kills_no_heartbeat_and_hides_no_error(caplog):
    answers = {
        ("302 Found\r\nLocation: /sso", b""): "answered 302 Found",
        ("200 OK\r\nContent-Type: text/html", b"<h1>Back soon</h1>"): "without a JSON object",
        ("204 No Content", b""): "without a JSON object",
        ("200 OK", b"[]"): "without a JSON object",
        ("200 OK", b"[" * 100_000): "without a JSON object",
        ("200 OK\r\nContent-Encoding: gzip", b"no gzip"): "cannot be reached",
        ("502 Bad Gateway", b"<h1>Oops</h1>"): "answered 502 Bad Gateway",
    }
    async with impostor(answers) as elsewhere, RemotePool(elsewhere) as pool:
        for said in answers.values():
            with pytest.raises(PoolError, match=said):
                await pool.stats()
    async with remote(ttl=1) as (_, pool), impostor(answers) as elsewhere:
        lost, other = await pool.get_session("web"), await pool.get_session("web")
        before, pool._http.base_url = pool._http.base_url, elsewhere
        with pytest.raises(LeaseLostError, match="nothing was heard of the service"):
            await lost.use(lambda _: asyncio.sleep(60))
        with pytest.raises(ZeroDivisionError):
            async with LeaseRequest(lambda: asyncio.sleep(0, other)):
                raise ZeroDivisionError
        assert "could not be given back" in caplog.text
        pool._http.base_url = before


async def test_a_holder_whose_token_is_revoked_hears_that_the_lease_is_over():
    async with remote(ttl=1) as (_, pool):
        lease = await pool.get_session("web")
        pool._http.headers["Authorization"] = "Bearer tk_of_nobody"
        with pytest.raises(LeaseLostError, match="token is not known"):
            await lease.use(lambda _: asyncio.sleep(60))
        pool._http.headers["Authorization"] = f"Bearer {MAIN}"


def test_a_remote_lease_has_what_a_lease_has():
    def face(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    # A gateway's passage and a proxy's password stay at home; `token` tells leases of one process apart.
    assert face(Lease) - face(RemoteLease) == {"live_view", "passage", "proxy", "token"}
    for name in face(Lease) & face(RemoteLease):
        assert callable(getattr(Lease, name)) == callable(getattr(RemoteLease, name)), name
    ours, theirs = (set(inspect.signature(kind.get_session).parameters) for kind in (SessionPool, RemotePool))
    assert ours - theirs == {"place"}

"""The service stops while clients are connected, wait, leave and listen: each is told, and no traceback is logged."""

import asyncio
import logging

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tabkeeper.service import server

from .house import Parrot, call, house

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_everybody_is_told_and_a_lease_that_is_just_ending_is_seen_out(sqlite_url, caplog):
    caplog.set_level(logging.INFO)
    parrot = Parrot()

    async def answer_at_the_end(desk) -> None:
        """Let the browser answer what is asked after a client's goodbye, but not before the service stops."""
        while not desk._closing:
            await asyncio.sleep(0.01)
        parrot.awake.set()

    async def listen(http) -> str:
        async with http.stream("GET", "/events") as told:
            heard.set()
            return "".join([piece async for piece in told.aiter_text()])

    heard = asyncio.Event()
    async with house(sqlite_url, parrot=parrot, pool={"max_sessions": 2}) as here:
        at_the_end = asyncio.ensure_future(answer_at_the_end(here.app.state.rooms.desk))
        staying = await here.connect("platform=web").__aenter__()
        leaving = await here.connect("platform=web").__aenter__()
        await call(leaving, "Browser.getVersion")
        http = here.http()
        waiting = asyncio.ensure_future(here.connect("platform=web&timeout=60s").__aenter__())
        asking = asyncio.ensure_future(http.post("/leases", json={"platform": "web", "wait": 60}, timeout=60))
        listening = asyncio.ensure_future(listen(http))
        await here.until(lambda: len(here.pool.waiting()) == 2)
        await asyncio.wait_for(heard.wait(), 60)
        parrot.waits = {"Target.getBrowserContexts"}
        await leaving.close()
    await at_the_end
    with pytest.raises(ConnectionClosed):
        await staying.recv()
    assert (staying.close_code, staying.close_reason) == (1012, "the service was stopped")
    with pytest.raises(InvalidStatus):
        await waiting
    assert (await asking).is_error
    assert "event: now" in await listening
    await http.aclose()
    assert [one.getMessage() for one in caplog.records if one.exc_info or one.levelno >= logging.ERROR] == []
    [ended, told] = await usage(here)
    assert {ended, told} == {("ok", None), ("failed", "the service was stopped")}


async def test_what_is_cut_off_all_the_same_is_said_in_one_line(caplog):
    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(server._in_a_line)
    try:
        try:
            raise asyncio.CancelledError("timeout graceful shutdown exceeded")
        except asyncio.CancelledError:
            logger.exception("Exception in ASGI application\n")
        try:
            raise ValueError
        except ValueError:
            logger.exception("Exception in ASGI application\n")
    finally:
        logger.removeFilter(server._in_a_line)
    [cut, broken] = caplog.records
    assert (cut.getMessage(), cut.exc_info) == ("a request was cut off: the service stops", None)
    assert broken.exc_info


async def usage(here) -> list[tuple[str, str | None]]:
    return [(row["outcome"], row["error"]) for row in await here.usage()]

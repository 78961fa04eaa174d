"""Leases over HTTP, in virtual time: asked for, waited for, kept, lost and given back."""

import asyncio

from tabkeeper.pool import waiting
from tabkeeper.service.tokens import ANYBODY
from tabkeeper.testing import run_virtual

from .world import ACME, LOOKER, MAIN, house


def test_a_lease_is_taken_kept_and_given_back():
    async def story(clock):
        async with house(clock) as here, here.client() as http:
            told = await http.post("/leases", json={"platform": "web"})
            assert told.status_code == 201
            lease = told.json()
            assert (lease["status"], lease["is_new"], lease["tenant"]) == ("active", True, "default")
            assert told.headers["location"] == f"/leases/{lease['id']}"
            assert (await http.get("/health")).json()["capacity"] == "1/2"
            again = (await http.get(told.headers["location"])).json()
            assert "token" not in again
            assert again["session_id"] == lease["session_id"]
            ended = (await http.request("DELETE", told.headers["location"], json={"success": True})).json()
            assert (ended["status"], ended["outcome"]) == ("ended", "ok")
            assert (await http.delete(told.headers["location"])).json()["status"] == "ended"
            assert here.pool.stats().idle == 1

    run_virtual(story)


def test_a_request_that_need_not_wait_is_told_its_place_and_served_later():
    async def story(clock):
        async with house(clock, max_sessions=1) as here, here.client() as http:
            first = (await http.post("/leases", json={"platform": "web"})).json()
            told = await http.post("/leases", json={"platform": "web", "wait": 0, "timeout": 60})
            assert (told.status_code, told.headers["retry-after"]) == (202, "1")
            queued = told.json()
            assert queued["queue"]["position"] == 1
            assert "has all 1 sessions it may" in queued["queue"]["blocked_by"]
            waiting = (await http.get("/queue")).json()
            assert [one["place"] for one in waiting] == [f"client 'main', lease {queued['id']}"]
            look = asyncio.create_task(http.get(f"/leases/{queued['id']}", params={"wait": 30}))
            await asyncio.sleep(1)
            await http.delete(f"/leases/{first['id']}")
            assert (await look).json()["status"] == "active"

    run_virtual(story)


def test_each_of_many_who_wait_is_told_its_place_without_a_look_at_all_the_others(monkeypatch):
    async def story(clock):
        async with house(clock, max_sessions=1, max_queued=300) as here, here.client() as http:
            await http.post("/leases", json={"platform": "web", "ttl": 3000})
            looks = []
            monkeypatch.setattr(
                waiting, "why_waiting", lambda view, request, now: looks.append(request) or "?"
            )
            asked = {"platform": "web", "wait": 0, "timeout": 100}
            told = [
                (await http.post("/leases", json=asked | {"priority": number % 3})).json()
                for number in range(60)
            ]
            assert [one["queue"]["position"] for one in told[:6]] == [1, 1, 1, 4, 3, 2]
            assert len(looks) == 60
            places = [one["place"] for one in (await http.get("/queue")).json()]
            assert len(places) == 60
            for one in told:
                place = f"client 'main', lease {one['id']}"
                assert here.pool.waiting_at(place) in here.pool.waiting()
            assert here.pool.waiting_at("nowhere") is None

    run_virtual(story)


def test_a_client_that_falls_silent_loses_its_lease_and_one_that_is_heard_keeps_it():
    async def story(clock):
        async with house(clock, service={"lease_ttl": "30s"}) as here, here.client() as http:
            kept = (await http.post("/leases", json={"platform": "web"})).json()["id"]
            silent = (await http.post("/leases", json={"platform": "web"})).json()["id"]
            for _ in range(4):
                await asyncio.sleep(20)
                assert (await http.post(f"/leases/{kept}/heartbeat")).status_code == 200
            tale = (await http.get(f"/leases/{silent}")).json()
            assert (tale["status"], tale["outcome"]) == ("ended", "failed")
            assert "silent" in tale["message"]
            refused = await http.post(f"/leases/{silent}/heartbeat")
            assert (refused.status_code, refused.json()["type"]) == (409, "urn:tabkeeper:problem:lease-over")
            assert here.pool.stats().leased == 1

    run_virtual(story)


def test_a_place_in_the_queue_is_lost_with_its_client():
    async def story(clock):
        async with house(clock, max_sessions=1, service={"lease_ttl": "20s"}) as here, here.client() as http:
            await http.post("/leases", json={"platform": "web", "ttl": 3000})
            queued = (await http.post("/leases", json={"platform": "web", "wait": 0, "timeout": 1000})).json()
            await asyncio.sleep(15)
            assert here.pool.stats().queued == 1
            await asyncio.sleep(6)
            assert here.pool.stats().queued == 0
            assert (await http.get(f"/leases/{queued['id']}")).json()["status"] == "ended"

    run_virtual(story)


def test_a_full_queue_a_long_wait_and_a_spent_budget_are_told_apart():
    async def story(clock):
        money = {"rates": {"per_hour": "1.00"}, "budgets": [{"name": "daily", "limit": "0.253"}]}
        async with house(clock, max_queued=1, max_sessions=1, **money) as here, here.client() as http:
            held = (await http.post("/leases", json={"platform": "web"})).json()
            late = await http.post("/leases", json={"platform": "web", "timeout": 3})
            assert (late.status_code, late.json()["type"].rpartition(":")[2]) == (429, "queue-timeout")
            assert late.headers["retry-after"] == "1"
            waiting = asyncio.create_task(http.post("/leases", json={"platform": "web"}))
            await asyncio.sleep(1)
            full = await http.post("/leases", json={"platform": "web"})
            assert (full.status_code, full.json()["type"].rpartition(":")[2]) == (429, "queue-full")
            assert int(full.headers["retry-after"]) > 0
            await http.request(
                "DELETE", f"/leases/{held['id']}", json={"success": False, "reason": "blocked"}
            )
            spent = await waiting
            assert (spent.status_code, spent.json()["budget"], spent.json()["limit"]) == (
                402,
                "daily",
                "0.253",
            )
            assert spent.headers["content-type"] == "application/problem+json"
            assert int(spent.headers["retry-after"]) > 3600

    run_virtual(story)


def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue():
    async def story(clock):
        async with house(clock, max_sessions=1) as here, here.client() as http:
            await http.post("/leases", json={"platform": "web", "ttl": 3000})
            call = asyncio.create_task(http.post("/leases", json={"platform": "web"}))
            await asyncio.sleep(1)
            assert here.pool.stats().queued == 1
            call.cancel()
            await asyncio.sleep(1)
            assert here.pool.stats().queued == 0

    run_virtual(story)


def test_a_lease_that_comes_as_its_client_hangs_up_is_given_back_at_once():
    body = b'{"platform": "web"}'
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {MAIN}", "content-type": "application/json"}

    async def story(clock):
        async with house(clock) as here:
            left, said = asyncio.Event(), [{"type": "http.request", "body": body, "more_body": False}]

            async def receive():
                if said:
                    return said.pop()
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                pass

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/leases",
                "query_string": b"",
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
            call = asyncio.create_task(here.app(scope, receive, send))
            await asyncio.sleep(0.5)
            (ticket,) = here.app.state.rooms.desk.of(ANYBODY)
            settle = ticket.settled.set

            def both():
                settle()
                left.set()

            ticket.settled.set = both
            await call
            assert (here.pool.stats().leased, here.pool.stats().idle) == (0, 1)
            assert (ticket.lease.outcome, ticket.reason) == ("failed", "its client left")

    run_virtual(story)


def test_a_lease_whose_browser_dies_says_so():
    async def story(clock):
        async with house(clock) as here, here.client() as http:
            lease = (await http.post("/leases", json={"platform": "web"})).json()
            here.provider.kill(lease["session_id"])
            await asyncio.sleep(1)
            told = (await http.get(f"/leases/{lease['id']}")).json()
            assert (told["status"], told["outcome"]) == ("ended", "lost")
            assert "browser died" in told["message"]

    run_virtual(story)


def test_a_tenant_sees_and_ends_only_what_is_its_own():
    async def story(clock):
        async with house(clock) as here, here.client() as main, here.client(ACME) as acme:
            theirs = (await main.post("/leases", json={"platform": "web", "tenant": "other"})).json()
            own = (await acme.post("/leases", json={"platform": "web"})).json()
            assert own["tenant"] == "acme"
            for call in (
                acme.get(f"/leases/{theirs['id']}"),
                acme.delete(f"/leases/{theirs['id']}"),
                acme.post(f"/leases/{theirs['id']}/heartbeat"),
            ):
                assert (await call).status_code == 404
            assert [one["id"] for one in (await acme.get("/leases")).json()] == [own["id"]]
            asked = await acme.post("/leases", json={"platform": "web", "tenant": "other"})
            assert asked.status_code == 403
            assert (await acme.get("/sessions")).status_code == 403
            assert len((await main.get("/leases")).json()) == 2

    run_virtual(story)


def test_a_token_may_do_what_its_scopes_say_and_no_more():
    async def story(clock):
        async with house(clock) as here, here.client(LOOKER) as looker, here.client(ACME) as acme:
            assert (await looker.get("/sessions")).status_code == 200
            assert (await looker.post("/leases", json={"platform": "web"})).status_code == 403
            assert (await looker.post("/sessions/cleanup")).status_code == 403
            assert (await acme.post("/leases", json={"platform": "web", "direct": True})).status_code == 403

    run_virtual(story)


def test_the_providers_own_address_is_told_once_and_only_when_asked_for():
    async def story(clock):
        async with house(clock) as here, here.client() as http:
            asked = (await http.post("/leases", json={"platform": "web", "direct": True})).json()
            assert asked["connect_url"].startswith("ws://fake.invalid/")
            plain = (await http.post("/leases", json={"platform": "web"})).json()
            assert plain["connect_url"] is None
            assert "fake.invalid" not in (await http.get("/leases")).text

    run_virtual(story)


def test_a_service_that_stops_gives_all_leases_back():
    async def story(clock):
        async with house(clock) as here, here.client() as http:
            lease = (await http.post("/leases", json={"platform": "web"})).json()
            asyncio.get_running_loop().call_later(5, lambda: None)
            pool = here.pool
        assert lease["status"] == "active"
        assert pool.stats().leased == 0

    run_virtual(story)

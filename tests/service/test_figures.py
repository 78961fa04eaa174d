"""What the service says of money, history and itself is what the pool and its books say."""

import asyncio

from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.reports.html.page import render_html
from tabkeeper.service import news
from tabkeeper.testing import Faults, run_virtual

from .world import ACME, LOOKER, MAIN, house

MONEY = {
    "rates": {"per_hour": "1.00", "per_session": "0.01"},
    "budgets": [{"name": "daily", "limit": "5.00", "thresholds": [0.001]}],
}


def test_budgets_reports_history_and_stories_are_those_of_the_books():
    async def story(clock):
        async with house(clock, **MONEY) as here, here.client() as http:
            lease = (await http.post("/leases", json={"platform": "web", "tags": {"job": "7"}})).json()
            await asyncio.sleep(10)
            await http.delete(f"/leases/{lease['id']}")
            assert (await http.delete(f"/sessions/{lease['session_id']}")).status_code == 204
            books = here.pool.ledger
            (budget,) = (await http.get("/budgets")).json()
            assert budget == (await books.standing()).budgets[0].model_dump(mode="json")
            day = (await http.get("/reports/day", params={"date": "2026-01-01"})).json()
            assert day == (await books.report()).model_dump(mode="json")
            assert float(day["totals"]["cost"]) > 0.01
            table = await http.get("/reports/month", params={"format": "csv"})
            assert table.headers["content-type"].startswith("text/csv")
            assert table.text.splitlines()[1].startswith("month,2026-01")
            page = await http.get("/reports/day/2026-01-01.html")
            assert page.text == render_html(await books.report())
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "script-src" not in page.headers["content-security-policy"]  # so none runs
            month = await http.get("/reports/month/2026-01.html", params={"as_of": day["watermark"]})
            assert f"entry {day['watermark']}." in month.text
            await http.post("/leases", json={"platform": "web"})
            again = await http.get("/reports/month/2026-01.html", params={"as_of": day["watermark"]})
            assert again.text == month.text
            for path in (
                "/reports/day/2026-02-30.html",
                "/reports/day/today.html",
                "/reports/year/2026-01.html",
            ):
                assert (await http.get(path)).status_code == 422
            for moment in ("soon", "99999999999999999999", "2999-01-01", "0001-01-01T00:00+14:00"):
                told = await http.get("/reports/day", params={"as_of": moment})
                assert (told.status_code, moment in told.json()["detail"]) == (422, True)
            for token, status in ((LOOKER, 200), (ACME, 403), (None, 401)):
                async with here.client(token) as other:
                    assert (await other.get("/reports/day/2026-01-01.html")).status_code == status
            (ended,) = (await http.get("/history")).json()
            assert (ended["id"], ended["cost"]) == (lease["session_id"], day["totals"]["cost"])
            told = (await http.get(f"/sessions/{ended['id']}/story")).json()
            assert told["leases"][0]["tags"] == {"job": "7"}
            assert told["leases"][0]["place"] == f"client 'main', lease {lease['id']}"
            assert [one["kind"] for one in told["bookings"]] == ["hold", "settle"]
            assert told["bookings"][1]["amount"] == told["cost"] == ended["cost"]
            assert float(told["bookings"][0]["held"]) > float(ended["cost"])
            for alert in (await http.get("/alerts")).json():
                assert (alert["severity"], alert["title"]) == ("warning", "Budget threshold reached")
                assert alert["text"].startswith("budget 'daily' has reached 0.1 %: $"), alert
            assert (await http.get("/sessions/nobody/story")).status_code == 404
            assert (await http.get("/sessions/nobody")).status_code == 404

    run_virtual(story)


def test_now_money_metrics_and_stats_agree_with_the_pool():
    async def story(clock):
        async with house(clock, **MONEY) as here, here.client() as http, here.client(LOOKER) as looker:
            await http.post("/leases", json={"platform": "web"})
            now, stats = (await looker.get("/now")).json(), here.pool.stats()
            assert (now["capacity"], now["leased"], now["idle"]) == ("1/2", stats.leased, stats.idle)
            assert now["open_sessions"] == (await looker.get("/sessions")).json()
            money = (await looker.get("/money")).json()
            assert money["budgets"] == (await looker.get("/budgets")).json()
            told = await looker.get("/metrics")
            assert told.text == here.pool.metrics.prometheus()
            assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
            brief = (await looker.get("/sessions/stats")).json()
            assert (brief["status"], brief["total"], brief["healthy"], brief["degraded"]) == ("ok", 1, 1, 0)
            assert brief["average_uses"] == 1
            assert (await looker.get("/stats")).json()["leases"] == 1
            assert (await http.post("/sessions/cleanup")).json()["status"] == "ok"

    run_virtual(story)


def test_health_says_how_full_it_is_and_when_nothing_is_usable(monkeypatch):
    async def story(clock):
        async with house(clock, faults=Faults(script=["fail"] * 9)) as here, here.client(None) as http:
            told = (await http.get("/health")).json()
            assert (told["status"], told["service"], told["capacity"]) == ("ok", "tabkeeper", "0/2")
            assert told["session_capacity"] == told["capacity"]
            assert told["database"] == "ok"
            async with here.client() as main:
                failed = await main.post("/leases", json={"platform": "web"})
                assert (failed.status_code, failed.json()["title"]) == (
                    502,
                    "No provider could start a session",
                )
            told = await http.get("/health")
            assert (told.status_code, told.json()["providers"]) == (503, {"local": "open"})
            assert (await http.head("/health")).status_code == 503
            assert told.json()["status"] == "unavailable"

        async with house(clock) as here, here.client(None) as http:

            async def away() -> None:
                raise LedgerUnavailableError("postgresql://user:secret@host/db is away")

            monkeypatch.setattr(here.pool.ledger, "ping", away)
            told = await http.get("/health")
            assert told.status_code == 503
            assert "the database" in told.json()["problems"][0]
            assert "secret" not in told.text
            monkeypatch.undo()
            await here.pool.drain(0)
            assert (await http.get("/health")).status_code == 503

    run_virtual(story)


def test_a_listener_too_many_is_refused_before_the_answer_begins_and_one_that_left_makes_room(monkeypatch):
    monkeypatch.setattr(news, "MOST_LISTENERS", 2)

    async def story(clock):
        async with house(clock) as here, here.client() as http:
            listening = [asyncio.create_task(http.get("/events")) for _ in range(2)]
            await asyncio.sleep(3)
            refused = await http.get("/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            assert refused.json()["type"] == "urn:tabkeeper:problem:too-many"
            listening[0].cancel()
            await asyncio.wait(listening[:1])
            listening.append(asyncio.create_task(http.get("/events")))
            await asyncio.sleep(3)
            assert not listening[1].done()
            assert not listening[2].done()
            await here.app.state.news.aclose()
            for one in listening[1:]:
                assert "event: now" in (await one).text

    run_virtual(story)


def test_a_dashboard_is_logged_in_with_a_token_that_reads_everything_and_logged_out_again():
    async def story(clock):
        async with house(clock) as here, here.client(None) as http:
            for token, status in ((ACME, 403), ("tk_nobody", 401)):
                assert (await http.post("/login", json={"token": token})).status_code == status
            told = await http.post("/login", json={"token": MAIN})
            assert told.status_code == 204
            cookie = next(one for one in told.headers.get_list("set-cookie") if "session" in one)
            assert all(word in cookie for word in ("HttpOnly", "SameSite=strict"))
            assert (await http.get("/now")).status_code == 200
            evil = {"Origin": "https://evil.example"}
            assert (await http.get("/now", headers=evil)).status_code == 403
            kept = dict(http.cookies)
            assert (await http.post("/logout")).status_code == 204
            async with here.client(None, cookies=kept) as again:
                assert (await again.get("/now")).status_code == 401
            assert (await http.get("/assets/app.js")).status_code == 200
            assert (await http.get("/assets/..%2Fapp.py")).status_code == 404
            assert (await http.get("/assets/__init__.py")).status_code == 404

    run_virtual(story)

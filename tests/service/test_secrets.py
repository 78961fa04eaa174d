"""What is secret is told nowhere: not in the log, not on a page, not in an error, not in a report."""

import asyncio
import logging

from tabkeeper.testing import run_virtual

from .world import LOOKER, MAIN, house

LOOKS = (
    "/health", "/sessions", "/sessions/stats", "/queue", "/now", "/money", "/stats", "/samples", "/budgets", "/history",
    "/alerts", "/metrics", "/leases", "/reports/day", "/reports/day?format=csv", "/reports/month", "/openapi.json",
    "/reports/day/2026-01-01.html", "/reports/month/2026-01.html", "/", "/assets/app.js",
)  # fmt: skip


def test_no_answer_no_report_and_no_log_repeats_a_secret(caplog):
    caplog.set_level(logging.DEBUG)
    said = []

    async def story(clock):
        async with house(
            clock, rates={"per_hour": "1.00"}, budgets=[{"name": "daily", "limit": "5.00"}]
        ) as here:
            async with here.client() as http:
                wish = {"platform": "web", "identity": "alice:hunter2", "tags": {"job": "7"}, "direct": True}
                lease = (await http.post("/leases", json=wish)).json()
                address = lease["connect_url"]
                secrets = [MAIN, LOOKER, "hunter2", address, lease["token"]]
                running = [f"/sessions/{lease['session_id']}{part}" for part in ("", "/story")]
                for path in (*LOOKS, *running, f"/leases/{lease['id']}"):
                    told = await http.get(path)
                    assert told.status_code == 200, path
                    said.append((path, told.text))
                await asyncio.sleep(10)
                await http.request(
                    "DELETE", f"/leases/{lease['id']}", json={"success": False, "reason": "blocked"}
                )
                for path in (*LOOKS, *running, f"/leases/{lease['id']}"):
                    said.append((path, (await http.get(path)).text))
                for body in (
                    {"platform": "web", "identity": "hunter2" * 200},
                    {"platform": "hunter2/../"},
                    {"identity": "hunter2"},
                ):
                    refused = await http.post("/leases", json=body)
                    assert refused.status_code == 422
                    said.append(("error", refused.text))
                wrong = await http.post("/login", json={"token": f"{MAIN}hunter2"})
                assert wrong.status_code == 401
                said.append(("login", wrong.text))
            said.append(("log", caplog.text))
            assert sum(lease["session_id"] in text for _, text in said) > 5  # what is no secret is told
            for where, text in said:
                assert [secret for secret in secrets if secret in text] == [], where

    run_virtual(story)

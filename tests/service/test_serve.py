"""`tabkeeper serve` and `tabkeeper tokens` as they are called, and the demo's dashboard."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest

from tabkeeper.cli.app import run
from tabkeeper.demo.run import Options, configure
from tabkeeper.demo.serve import serve as serve_demo


def test_a_service_starts_answers_and_gives_everything_back_when_it_is_told_to_end(tmp_path):
    file = tmp_path / "tabkeeper.toml"
    file.write_text(
        f'[ledger]\nurl = "sqlite:///{tmp_path}/books.db"\n[platforms.web]\n[service]\ntoken = "env:OUR_TOKEN"\n'
    )
    command = [sys.executable, "-m", "tabkeeper", "serve", "-c", str(file), "--port", "0", "--json"]
    environment = os.environ | {"OUR_TOKEN": "tk_0123456789012345678901234567890"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
                assert http.get("/health").json()["status"] == "ok"
                assert http.get("/sessions").status_code == 401
                told = http.get("/sessions", headers={"Authorization": f"Bearer {environment['OUR_TOKEN']}"})
                assert told.json() == []
                assert "<title>Tabkeeper" in http.get("/").text
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert environment["OUR_TOKEN"] not in errors


def test_what_keeps_a_service_from_starting_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["serve"]) == 2
    assert "tabkeeper tokens create" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "--open", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
async def test_the_demo_ends_on_a_dashboard_that_its_address_opens(tmp_path):
    configure(Options(folder=tmp_path), datetime.now(UTC), {"kernel": "http://x", "steel": "http://x"})
    told, stop = asyncio.Queue(), asyncio.Event()
    serving = asyncio.create_task(serve_demo(tmp_path, port=0, tell=told.put_nowait, stop=stop))
    address = await told.get()
    url, _, token = address.partition("/#token=")
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        assert (await http.post("/login", json={"token": token})).status_code == 204
        async with asyncio.timeout(60):
            while not (await http.get("/now")).json()["leases"]:  # somebody visits the demo's site
                await asyncio.sleep(0.1)
        (budget,) = (await http.get("/budgets")).json()
        assert budget["name"] == "daily"
    stop.set()
    await serving

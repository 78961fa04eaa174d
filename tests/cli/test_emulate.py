"""`tabkeeper emulate`: another program uses it as it would use the provider."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys

import pytest
from browserbase import Browserbase

from tabkeeper.cli.app import run

pytest_plugins = ["tabkeeper.providers.emulator.fixtures"]


def test_it_serves_until_interrupted_and_takes_its_key_only():
    command = [
        sys.executable,
        "-m",
        "tabkeeper",
        "emulate",
        "browserbase",
        "--port",
        "0",
        "--key",
        "k",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            with Browserbase(api_key=told["key"], base_url=told["url"]) as client:
                made = client.sessions.create()
                assert client.sessions.update(made.id, status="REQUEST_RELEASE").status == "COMPLETED"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_what_cannot_be_is_told_in_one_line(capsys):
    assert run(["emulate", "browserbse"]) == 2
    assert re.search("known: .*browserbase", capsys.readouterr().err)


async def test_a_port_that_is_taken_is_told_in_one_line(capsys):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await asyncio.to_thread(run, ["emulate", "browserbase", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err
    server.close()
    await server.wait_closed()


async def test_the_fixture_serves_any_number(emulate):
    one, two = await emulate("browserbase"), await emulate("steel")
    assert one.url != two.url
    with pytest.raises(KeyError):
        await emulate("nobody")

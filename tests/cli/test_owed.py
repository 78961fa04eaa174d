"""Sessions that nobody has confirmed to be over, as status and doctor show them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from .conftest import CONFIG, Told

RENAMED = CONFIG.replace("[providers.local]", "[providers.here]").replace(
    "[providers.local.", "[providers.here."
)


def test_a_session_of_a_provider_that_was_renamed_is_told_by_status_and_doctor(
    left_behind: Path, tabkeeper: Callable[..., Told]
) -> None:
    left_behind.with_name("tabkeeper.toml").write_text(
        RENAMED.replace("[platforms.web]", '[platforms.web]\nproviders = ["here"]')
    )
    told = tabkeeper("status")
    assert "Not known to be over" in told.out
    assert "not configured here" in " ".join(told.out.split())
    assert {line["provider"] for line in json.loads(tabkeeper("status", "--json").out)["owed"]} == {"local"}
    told = tabkeeper("doctor", "--no-start")
    assert told.code == 1
    assert "configure the provider under its old name" in " ".join(told.out.split())


def test_an_unanswered_creation_and_a_release_in_vain_are_shown_with_why(
    left_behind: Path, tabkeeper: Callable[..., Told]
) -> None:
    with sqlite3.connect(left_behind) as db:
        db.execute("UPDATE session SET state = 'unknown' WHERE id = 's-two'")
        db.execute(
            "INSERT INTO release_outbox (session_id, provider, queued_at, attempts, last_error) "
            "VALUES ('s-one', 'local', 1, 7, 'status 500')"
        )
    lines = {line["session_id"]: line for line in json.loads(tabkeeper("status", "--json").out)["owed"]}
    assert lines["s-one"]["attempts"] == 7
    assert "status 500" in lines["s-one"]["why"]
    assert "looked for" in lines["s-two"]["why"]
    assert tabkeeper("status").out.count("Not known to be over") == 1

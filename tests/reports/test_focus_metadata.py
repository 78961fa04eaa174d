"""The metadata that goes with a FOCUS export tells what its columns are, and whether more will come."""

import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tabkeeper.cli.app import run
from tabkeeper.ledger.types import SessionUsage
from tabkeeper.ledger.windows import window_bounds
from tabkeeper.reports.as_of import EVERYTHING, AsOf, as_of_entry
from tabkeeper.reports.daily import snapshot
from tabkeeper.reports.focus import focus_columns
from tabkeeper.reports.focus_metadata import SCHEMA_SINCE, focus_metadata, read_freshness, schema_reference

OCTOBER = window_bounds("month", "UTC", datetime(2026, 10, 15, tzinfo=UTC))
NOVEMBER = window_bounds("month", "UTC", datetime(2026, 11, 15, tzinfo=UTC))


def fresh(story, window, seen=None):
    with snapshot(story.ledger.reader) as conn:
        return read_freshness(conn, window, seen or AsOf(EVERYTHING, story.clock.now()))


def told(story, window, version="1.3"):
    return focus_metadata(version, window, fresh(story, window), story.clock.now())


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_every_column_is_defined_once_with_its_type(golden, version):
    metadata = told(golden, OCTOBER, version)
    schema = metadata["Schema"] if version == "1.2" else metadata["Schema"][0]
    columns = {column["ColumnName"]: column for column in schema["ColumnDefinition"]}
    assert list(columns) == [column.name for column in focus_columns(version)]
    assert columns["BilledCost"] == {
        "ColumnName": "BilledCost", "DataType": "DECIMAL", "NumericPrecision": 38, "NumberScale": 9,
    }  # fmt: skip
    assert columns["ListCost"]["NumberScale"] == 18
    assert columns["ChargePeriodStart"] == {"ColumnName": "ChargePeriodStart", "DataType": "DATETIME"}
    assert columns["Tags"] == {
        "ColumnName": "Tags",
        "DataType": "JSON",
        "ProviderTagPrefixes": ["tabkeeper/"],
    }
    assert columns["SubAccountId"] == {
        "ColumnName": "SubAccountId",
        "DataType": "STRING",
        "StringEncoding": "UTF-8",
    }
    deprecated = {name for name, column in columns.items() if column.get("Deprecated")}
    assert deprecated == ({"ProviderName", "PublisherName"} if version == "1.3" else set())
    assert schema["FocusVersion"] == version
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", schema["CreationDate"])


def test_a_schema_keeps_its_name_until_a_column_changes_and_then_is_of_another_date():
    """Who changes a column puts the new names here, and the day into `SCHEMA_SINCE`."""
    assert f"{SCHEMA_SINCE:%Y-%m-%d}" == "2026-11-21"
    assert [schema_reference(version)["SchemaId"] for version in ("1.2", "1.3")] == [
        "e8050058-b68e-50ef-8736-38d4aa4f49da",
        "6437e55a-d182-589d-a9cd-c049d33c3789",
    ]


async def test_in_1_3_all_parts_are_of_one_instance_and_of_this_ledger(golden):
    metadata = told(golden, OCTOBER)
    assert metadata["DataGenerator"] == {"DataGenerator": "Tabkeeper"}
    (instance,), (recency,), (schema,) = (metadata[part] for part in ("DatasetInstance", "Recency", "Schema"))
    assert instance["FocusDatasetId"] == "CostAndUsage"
    assert UUID(instance["DatasetInstanceId"])
    assert {part["DatasetInstanceId"] for part in (instance, recency, schema)} == {
        instance["DatasetInstanceId"]
    }
    assert told(golden, OCTOBER) == metadata
    (sector,) = recency["TimeSectors"]
    assert (sector["TimeSectorStart"], sector["TimeSectorEnd"]) == (
        "2026-10-01T00:00:00Z",
        "2026-11-01T00:00:00Z",
    )
    assert (
        recency["DatasetInstanceLastUpdated"]
        == sector["TimeSectorLastUpdated"]
        < recency["RecencyLastUpdated"]
    )


async def test_a_month_is_complete_when_it_is_over_and_its_last_session_is_settled(golden):
    with golden.ledger.reader.connect() as conn:
        still_open = conn.execute(text("SELECT session_id FROM hold WHERE state = 'open'")).scalar_one()
    assert fresh(golden, OCTOBER).is_complete
    assert not fresh(golden, NOVEMBER).is_complete, "it is not over"
    before = fresh(golden, NOVEMBER).updated_at
    golden.at(NOVEMBER.end + timedelta(hours=1))
    assert not fresh(golden, NOVEMBER).is_complete, "a session of it is open"
    await golden.ledger.settle(still_open, SessionUsage(seconds=60.0), reason="done", state="closed")
    last = golden.clock.now()
    golden.at(last + timedelta(days=1))
    now_told = fresh(golden, NOVEMBER)
    assert now_told.is_complete
    assert before < now_told.updated_at == last
    with snapshot(golden.ledger.reader) as conn:
        earlier = as_of_entry(conn, 40)
    assert not fresh(golden, NOVEMBER, earlier).is_complete
    assert fresh(golden, NOVEMBER, earlier).updated_at < before
    assert (
        fresh(golden, window_bounds("month", "UTC", datetime(2020, 1, 1, tzinfo=UTC))).updated_at.year == 2020
    )


async def test_the_command_writes_it_and_parquet_names_its_schema(golden, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "tabkeeper.toml").write_text(f'[ledger]\nurl = "sqlite:///{tmp_path}/books.db"\n')
    monkeypatch.chdir(tmp_path)
    assert run(["db", "upgrade"]) == 0
    written, described = tmp_path / "books.parquet", tmp_path / "books.json"
    assert run(["export", "focus", "-f", "parquet", "-o", str(written), "--metadata", str(described)]) == 0
    metadata = json.loads(described.read_text())
    assert metadata["Recency"][0]["TimeSectors"][0]["TimeSectorComplete"] is False
    said = parquet.read_schema(written).metadata
    assert said[b"SchemaId"].decode() == metadata["Schema"][0]["SchemaId"]
    assert said[b"FocusVersion"] == b"1.3"
    assert run(["export", "focus", "--metadata", "/nowhere/at/all.json"]) != 0

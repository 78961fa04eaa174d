"""FOCUS's metadata for an export: who made it, its columns and their types, how fresh it is and whether it is complete.

When a period is complete is for us to define: it is over, and every session that was held in it is settled. What a
provider says later still comes, as adjustments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.registry import installation
from tabkeeper.ledger.types import OWN_TAGS
from tabkeeper.ledger.windows import Window
from tabkeeper.reports.as_of import AsOf
from tabkeeper.reports.columns import Column, instant_text
from tabkeeper.reports.focus import FocusVersion, focus_columns

SCHEMA_SINCE = datetime(2026, 11, 21, tzinfo=UTC)
"""When the columns, or their types, last changed, of either version."""

_FAMILY = uuid5(NAMESPACE_URL, "https://focus.finops.org/#tabkeeper")
_TYPES = {"money": "DECIMAL", "decimal": "DECIMAL", "instant": "DATETIME", "integer": "INTEGER"}
_SCALES = {"money": 9, "decimal": 18}
_PRECISION = 38
_OBJECTS = {"SkuPriceDetails", "Tags"}
_DEPRECATED = {"1.2": frozenset[str](), "1.3": frozenset({"ProviderName", "PublisherName"})}


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far the data of a period have come, as of an entry."""

    ledger: str
    """What tells this ledger from others."""
    updated_at: datetime
    """When the last entry that counts was recorded; if there is none, the start of the period."""
    is_complete: bool


def read_freshness(conn: Connection, window: Window, seen: AsOf) -> Freshness:
    """Look up when a period's data last changed, and whether more will come."""
    values = {
        "start": micros(window.start),
        "end": micros(window.end),
        "upto": seen.entry,
        "now": micros(seen.now),
    }
    updated = conn.execute(_UPDATED, values).scalar()
    is_open = conn.execute(_OPEN, values).first() is not None
    return Freshness(
        ledger=installation(conn),
        updated_at=window.start if updated is None else moment(int(updated)),
        is_complete=window.end <= seen.now and not is_open,
    )


def schema_reference(version: FocusVersion) -> dict[str, str]:
    """Return what a file says of its columns: the specification's version, and their name in the metadata.

    The name is another if a column, or its type, changes.
    """
    told = json.dumps([version, *_definitions(version)], sort_keys=True)
    return {"FocusVersion": version, "SchemaId": str(uuid5(_FAMILY, told))}


def focus_metadata(version: FocusVersion, window: Window, fresh: Freshness, now: datetime) -> dict[str, Any]:
    """Describe an export of a period in the form of its version of FOCUS."""
    schema = {
        **schema_reference(version),
        "CreationDate": instant_text(SCHEMA_SINCE),
        "ColumnDefinition": _definitions(version),
    }
    if version == "1.2":
        return {"DataGenerator": "Tabkeeper", "Schema": schema}
    instance = str(uuid5(_FAMILY, fresh.ledger))
    sector = {
        "TimeSectorStart": instant_text(window.start),
        "TimeSectorEnd": instant_text(window.end),
        "TimeSectorComplete": fresh.is_complete,
        "TimeSectorLastUpdated": instant_text(fresh.updated_at),
    }
    return {
        "DataGenerator": {"DataGenerator": "Tabkeeper"},
        "DatasetInstance": [
            {
                "DatasetInstanceId": instance,
                "DatasetInstanceName": "Browser sessions",
                "FocusDatasetId": "CostAndUsage",
            }
        ],
        "Recency": [
            {
                "DatasetInstanceId": instance,
                "DatasetInstanceLastUpdated": instant_text(fresh.updated_at),
                "RecencyLastUpdated": instant_text(now),
                "TimeSectors": [sector],
            }
        ],
        "Schema": [{"DatasetInstanceId": instance, **schema}],
    }


def _definitions(version: FocusVersion) -> list[dict[str, Any]]:
    return [_definition(column, version) for column in focus_columns(version)]


def _definition(column: Column, version: FocusVersion) -> dict[str, Any]:
    kind = "JSON" if column.name in _OBJECTS else _TYPES.get(column.kind, "STRING")
    told: dict[str, Any] = {"ColumnName": column.name, "DataType": kind}
    if kind == "STRING":
        told["StringEncoding"] = "UTF-8"
    if column.kind in _SCALES:
        told |= {"NumericPrecision": _PRECISION, "NumberScale": _SCALES[column.kind]}
    if column.name == "Tags":
        told["ProviderTagPrefixes"] = [OWN_TAGS]
    if column.name in _DEPRECATED[version]:
        told["Deprecated"] = True
    return told


_UPDATED = text(
    "SELECT MAX(recorded_at) FROM entry WHERE effective_at >= :start AND effective_at < :end AND id <= :upto"
)
_OPEN = text("""
    SELECT session_id FROM hold
     WHERE held_at >= :start AND held_at < :end AND (resolved_at IS NULL OR resolved_at > :now) LIMIT 1""")

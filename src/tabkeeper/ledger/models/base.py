"""What all tables share: names of constraints, kinds of columns, and the metadata that migrations compare with.

Money is BIGINT nano-dollars (``*_n``), instants are BIGINT microseconds since 1970 UTC (``*_at``), lengths of
time BIGINT microseconds (``*_us``), JSON is text: so both databases count alike and to the last unit.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Integer, MetaData, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)
_registry = registry(metadata=metadata)

# SQLite gives out row numbers only to columns that are spelt INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")


def text_key(foreign: str | None = None) -> Any:
    """Return a primary key of text."""
    return (
        Field(sa_type=Text, primary_key=True, foreign_key=foreign)
        if foreign
        else Field(sa_type=Text, primary_key=True)
    )


def serial_key() -> Any:
    """Return a primary key that the database counts."""
    return Field(default=None, primary_key=True, sa_type=_Serial)


def number(default: int | None = 0, *, key: bool = False) -> Any:
    """Return a column for a whole number: a count, or nano-dollars."""
    if key:
        return Field(sa_type=BigInteger, primary_key=True)
    return Field(default=default, sa_type=BigInteger, sa_column_kwargs={"server_default": text(str(default))})


def instant(*, optional: bool = False) -> Any:
    """Return a column for an instant, microseconds since 1970 UTC."""
    return Field(default=None, sa_type=BigInteger) if optional else Field(sa_type=BigInteger)


def words(default: str | None = None, *, foreign: str | None = None) -> Any:
    """Return a column for text that is always there."""
    if default is None:
        return Field(sa_type=Text, foreign_key=foreign) if foreign else Field(sa_type=Text)
    return Field(default=default, sa_type=Text, sa_column_kwargs={"server_default": text(f"'{default}'")})


def maybe_words(*, foreign: str | None = None) -> Any:
    """Return a column for text that may be absent."""
    return (
        Field(default=None, sa_type=Text, foreign_key=foreign)
        if foreign
        else Field(default=None, sa_type=Text)
    )


def reference(foreign: str, *, key: bool = False) -> Any:
    """Return a column that points to a counted row of another table."""
    return Field(sa_type=BigInteger, foreign_key=foreign, primary_key=key)


class Table(SQLModel, registry=_registry):
    """Base of all tables, with metadata of their own."""

"""What parts of a report are made of: unchangeable models, and money as decimal text in JSON."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from tabkeeper.money import Money


def _read_amount(value: object) -> Money:
    return value if isinstance(value, Money) else Money.parse(str(value))


Amount = Annotated[Money, BeforeValidator(_read_amount), PlainSerializer(Money.text, return_type=str)]


class Part(BaseModel):
    """Base of the report's parts: unchangeable, and strict about what it contains."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

"""Booked lines as a plain-text journal for hledger (and, but for details, ledger): audit by somebody else's tool. Pure.

Every entry is a transaction, every line a posting to what it was spent on, and the provider is owed the sum. Accounts
and the commodity are declared, so that ``hledger check --strict`` has nothing to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from zoneinfo import ZoneInfo

from tabkeeper.money import NANOS_PER_DOLLAR
from tabkeeper.reports.booked import BookedLine

_ODD = re.compile(r"[:;()\[\]\s,=@\"*!|]+")
"""What means something to hledger inside a name."""


@dataclass(slots=True)
class _Owed:
    balances: dict[str, int] = field(default_factory=dict)

    def add(self, account: str, nanos: int) -> None:
        self.balances[account] = self.balances.get(account, 0) + nanos


def journal(lines: Iterable[BookedLine], zone: str, *, title: str) -> Iterator[str]:
    """Yield the journal's text, piece by piece, dated in a zone; lines come in order of their instants.

    At its end stands an assertion of what each provider is owed, worked out here and checked there.
    """
    place = ZoneInfo(zone)
    owed = _Owed()
    declared: set[str] = set()
    yield f"; {title}\n; Dates are those of {zone}. Written by Tabkeeper.\n\n"
    yield "commodity $1,000.000000000\n"
    last = None
    for _, group in groupby(lines, key=lambda line: line.entry_id):
        entry = [line for line in group if line.amount]
        if not entry:
            continue
        first = entry[0]
        creditor = f"liabilities:{_name(first.provider)}"
        where = f"expenses:{_name(first.provider)}:{_name(first.platform)}"
        spent = [(f"{where}:{_name(line.kind)}", line.amount.nanos) for line in entry]
        for account in (creditor, *(account for account, _ in spent)):
            if account not in declared:
                declared.add(account)
                yield f"account {account}\n"
        last = f"{first.effective_at.astimezone(place):%Y-%m-%d}"
        yield (
            f"\n{last} * ({first.entry_id}) {_name(first.platform)} at {_name(first.provider)}"
            f"  ; {first.entry}, session:{_name(first.session_id)}, tenant:{_name(first.tenant)}, "
            f"quality:{first.quality}\n"
        )
        total = sum(nanos for _, nanos in spent)
        for account, nanos in spent:
            yield f"    {account}  {_amount(nanos)}\n"
        yield f"    {creditor}  {_amount(-total)}\n"
        owed.add(creditor, -total)
    if last is not None:
        yield f"\n{last} * What is owed at the end\n"
        for account, nanos in sorted(owed.balances.items()):
            yield f"    {account}  $0 = {_amount(nanos)}\n"


def _amount(nanos: int) -> str:
    whole, fraction = divmod(abs(nanos), NANOS_PER_DOLLAR)
    return f"{'-' if nanos < 0 else ''}${whole}.{fraction:09d}"


def _name(given: str) -> str:
    return _ODD.sub("_", given) or "_"

"""What waits for the database survives whatever happens to who keeps it."""

import os
from pathlib import Path

from tabkeeper.ledger.spool import Spool, abandoned


def ops(*numbers: int) -> list[dict[str, object]]:
    return [{"op": "state", "n": n} for n in numbers]


def numbers(kept: list[dict[str, object]]) -> list[object]:
    return [op["n"] for op in kept]


def test_what_is_forgotten_is_gone_and_the_rest_stays_in_order(tmp_path: Path) -> None:
    spool = Spool([tmp_path], "books-", "me")
    spool.append(ops(1, 2, 3))
    spool.forget(2)
    assert numbers(spool.read()) == [3]
    spool.append(ops(4))
    assert (numbers(spool.read()), len(spool)) == ([3, 4], 2)
    spool.forget(2)
    assert (spool.read(), len(spool)) == ([], 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_death_after_part_was_forgotten_loses_none_of_the_rest(tmp_path: Path) -> None:
    spool = Spool([tmp_path], "books-", "me")
    spool.append(ops(*range(1200)))
    spool.forget(500)
    file = spool._file
    assert file is not None
    os.close(os.dup(file.fileno()))
    file.close()  # as the kernel does for a dead process
    (left,) = abandoned([tmp_path], "books-")
    # What is in the database already may come again: carrying it out twice does nothing.
    assert numbers(left.read())[-700:] == list(range(500, 1200))
    left.remove()


def test_a_spool_that_a_quicker_start_has_finished_is_passed_over(tmp_path: Path) -> None:
    spool = Spool([tmp_path], "books-", "me")
    spool.append(ops(1))
    assert spool._file is not None
    spool._file.close()
    finding = abandoned([tmp_path], "books-")
    first = next(finding)
    assert list(abandoned([tmp_path], "books-")) == []  # locked by the first
    first.remove()
    assert list(abandoned([tmp_path], "books-")) == []

"""Items on their way into a file: each once, whatever was cut off, and nobody else's file is touched."""

from __future__ import annotations

import pytest

from tabkeeper.errors import ConfigError
from tabkeeper.sites.finds import Item, Mark
from tabkeeper.sites.outlet import JsonLines
from tabkeeper.sites.runs import Run

RUN = Run(id="r1", name="shop", sites=("a.example",))


def items(*numbers: int) -> list[Item]:
    return [Item(n, "https://a.example/", "a.example", f'{{"n":{n}}}') for n in numbers]


def test_what_was_written_and_not_noted_is_cut_off_and_written_again(tmp_path):
    file = tmp_path / "items.jsonl"
    out = JsonLines(file)
    mark = out.write(items(1, 2), out.open(RUN, Mark(outlet=str(file))))
    out.write(items(3), mark)  # and killed before that was noted
    out.close()
    again = JsonLines(file)
    at = again.open(RUN, mark)
    assert at == mark
    again.write(items(3, 4), at)
    again.close()
    assert file.read_text() == '{"n":1}\n{"n":2}\n{"n":3}\n{"n":4}\n'


def test_a_file_that_is_gone_is_written_from_the_beginning(tmp_path):
    out = JsonLines(tmp_path / "items.jsonl")
    assert out.open(RUN, Mark(outlet="x", items=4, bytes=32)) == Mark(outlet="x")
    out.close()


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "items.jsonl").write_text("mine\n")
    with pytest.raises(ConfigError, match="name another file"):
        JsonLines(tmp_path / "items.jsonl").open(RUN, Mark(outlet="x"))
    assert (tmp_path / "items.jsonl").read_text() == "mine\n"

"""Shows the interactive examples of docstrings as code on the documentation's site; mkdocs.yml names it.

In the source they stand bare, as doctest reads them; in Markdown three angle brackets would be a quotation.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!>>>|\s*$).*\n?)*)+", re.MULTILINE)
_FLAGS = re.compile(r"[ \t]*# doctest: .*")


class DoctestBlocks(Extension):
    """Puts fences around examples."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    return f"```pycon\n{_FLAGS.sub('', found[0]).rstrip()}\n```\n"

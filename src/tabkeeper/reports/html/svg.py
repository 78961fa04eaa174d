"""What the report's plots are made of: a picture, marks, words. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 640, 232


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its heading, what it says in words, and the names of its colours."""

    title: str
    svg: Markup
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """Class of the mark, and its name."""


def svg(marks: Markup, said: str, *, height: int = HEIGHT) -> Markup:
    """Put marks into a picture, with a sentence for those who do not see it."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, said, marks
    )


def text(x: float, y: float, said: str, anchor: str) -> Markup:
    """Write a word."""
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_short(x), _short(y), anchor, said)


def tag(name: str, said: str | None = None, **attributes: str | float) -> Markup:
    """Draw a mark; what it says is told when it is pointed at."""
    written = Markup().join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else _short(value)
        )
        for key, value in attributes.items()
    )
    if said is None:
        return Markup("<{}{}/>").format(Markup(name), written)  # noqa: S704 - our own names
    return Markup("<{}{}><title>{}</title></{}>").format(Markup(name), written, said, Markup(name))  # noqa: S704


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")

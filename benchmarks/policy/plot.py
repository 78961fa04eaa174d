"""Draws what each rule costs beside the best possible, for the page: ``python -m benchmarks.policy.plot``.

It draws the figures in `benchmarks/results/policy.json`, and measures nothing. With ``--check`` it writes nothing; the
exit code says whether the picture is of these figures.
"""

import json
import sys
from pathlib import Path

from benchmarks.common import RESULTS

PICTURE = Path(__file__).parents[2] / "docs" / "img" / "keeping.svg"
TRACE = "azure8h"
CARDS = {
    "fee.01+.05/h": "$0.01 a session + $0.05 an hour",
    ".10/h permin": "$0.10 an hour, by the started minute",
}
LEFT, SCALE, BAR, ROW, TOP = 130, 115, 14, 22, 34


def panel(title: str, ratios: dict[str, float], best: str, top: int) -> list[str]:
    """One card's bars."""
    drawn = [f'<text x="10" y="{top + 16}" font-weight="bold">{title}</text>']
    y = top + TOP
    for rule, ratio in ratios.items():
        colour = "#2563eb" if "ours" in rule else "#94a3b8"
        width = ratio * SCALE
        drawn += [
            f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{rule}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 11}">{ratio:.2f}</text>',
        ]
        y += ROW
    line = LEFT + SCALE
    drawn += [
        f'<line x1="{line}" y1="{top + TOP - 8}" x2="{line}" y2="{y}" stroke="#dc2626" stroke-dasharray="4 3"/>',
        f'<text x="{line}" y="{y + 12}" text-anchor="middle" fill="#dc2626">{best}</text>',
    ]
    return drawn


def picture() -> str:
    """Return the picture of the figures on record."""
    cards = json.loads((RESULTS / "policy.json").read_text(encoding="utf-8"))["figures"][TRACE]["cards"]
    drawn: list[str] = []
    top = 4
    for card, title in CARDS.items():
        ratios = {rule: row["ratio"] for rule, row in cards[card]["rules"].items()}
        drawn += panel(f"Cost / best possible: {title}", ratios, f"{cards[card]['best']['kind']} = 1", top)
        top += TOP + ROW * len(ratios) + 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 {top}" font-family="sans-serif" font-size="12" '
        f'fill="#334155">\n<rect width="560" height="{top}" fill="#ffffff"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def main(arguments: list[str]) -> int:
    """Write the picture, or compare it; 1 if it shows other figures."""
    drawn = picture()
    if "--check" not in arguments:
        PICTURE.write_text(drawn, encoding="utf-8")
    elif PICTURE.read_text(encoding="utf-8") != drawn:
        print(
            f"{PICTURE.name} is not of the figures on record: run python -m benchmarks.policy.plot",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

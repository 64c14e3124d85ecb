"""The style sheet: every text can be read in both themes (WCAG 2.1, 4.5 to 1; graphics 3 to 1)."""

from __future__ import annotations

import re

import pytest

from ddbench.reports.site.pictures.charts import COLOURS
from ddbench.reports.site.render import STATIC

CSS = (STATIC / "site.css").read_text(encoding="utf-8")


def variables(selector: str) -> dict[str, str]:
    block = CSS[CSS.index(selector) :].partition("{")[2].partition("}")[0]
    return dict(re.findall(r"(--[a-z0-9]+): (#[0-9a-f]{3,6})", block))


LIGHT = variables(":root {")
DARK = variables(':root[data-theme="dark"] {')
DARK_BY_SYSTEM = variables(':root:not([data-theme="light"]) {')


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_known_extremes() -> None:
    assert contrast("#fff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


def test_both_ways_to_the_dark_theme_give_the_same_colours() -> None:
    assert DARK == DARK_BY_SYSTEM
    assert DARK.keys() == LIGHT.keys()


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read(theme: dict[str, str]) -> None:
    for ground in ("--page", "--shade"):
        for ink in ("--ink", "--soft", "--link", "--c1", "--c2"):
            assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
    assert contrast(theme["--ink"], theme["--mark"]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_can_be_seen(theme: dict[str, str]) -> None:
    for index in range(COLOURS):
        assert contrast(theme[f"--c{index}"], theme["--page"]) >= 3, index

"""The style, light and dark: whether what is drawn can be told from paper."""

import re

import pytest

from servescope.reports import render
from servescope.reports.canvas import FAINT, INK, PALETTE

WHITE, DARK = "#ffffff", "#0d1117"


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2, in [0, 1]."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_has_the_greatest_contrast() -> None:
    assert contrast("#000000", WHITE) == pytest.approx(21)


def test_every_colour_of_the_palette_stands_out_from_dark_paper() -> None:
    assert f"--paper: {DARK}" in render.style()
    assert min(contrast(colour, DARK) for colour in PALETTE) >= 3


def test_on_white_the_first_four_stand_out_and_the_last_two_lean_on_dash_and_symbol() -> None:
    """Okabe and Ito's orange and sky blue are too light for white paper."""
    assert min(contrast(colour, WHITE) for colour in PALETTE[:4]) >= 3
    assert [round(contrast(colour, WHITE), 1) for colour in PALETTE[4:]] == [2.3, 2.3]


def test_both_dark_lists_are_the_same_and_leave_no_variable_out() -> None:
    lists = re.findall(r":root[^{]*\{ color-scheme: (\w+); (--[^}]*)\}", render.style())
    assert [scheme for scheme, _ in lists] == ["light", "dark", "dark"]
    assert lists[1] == lists[2]
    light, dark = (dict(re.findall(r"--(\w+): ([^;]+);", text)) for _, text in lists[:2])
    assert light.keys() == dark.keys() == set(re.findall(r"var\(--(\w+)\)", render.style()))
    assert (light["ink"], light["line"]) == (INK, FAINT)


def test_the_style_names_nothing_outside() -> None:
    assert not re.search(r"url\(|@import|http", render.style())

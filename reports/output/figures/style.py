"""How figures for papers look, and how they are saved: equal results give equal bytes.

Colours are Okabe and Ito's ("Color Universal Design", 2008) without their yellow, which is too light for lines; series
differ in their marks as well. Fonts are embedded as TrueType (Type 42), as publishers ask.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from ddbench.benchmark.core.files import write_atomically

WIDTHS = {"column": 3.25, "page": 6.75}
"""Widths in inches: one column, and the whole page, of papers set in two columns (CVPR, ICML)."""
FONT = "DejaVu Sans"
POINTS, SMALL_POINTS = 8, 7
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAIN, GREY, PALE = COLOURS[0], "#595959", "#B3B3B3"
STYLE: dict[str, Any] = {
    "font.family": FONT,
    "font.size": POINTS,
    "axes.labelsize": POINTS,
    "axes.titlesize": SMALL_POINTS,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.labelsize": SMALL_POINTS,
    "legend.fontsize": SMALL_POINTS,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "grid.linewidth": 0.4,
    "grid.color": "#E0E0E0",
    "axes.grid": True,
    "axes.axisbelow": True,
    "text.parse_math": False,  # a $ in a method's name is a dollar sign
    "text.usetex": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "ddbench",
}
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def style() -> Any:
    """A context in which figures must be both made and saved."""
    settings: dict[Any, Any] = {**mpl.rcParamsDefault, **STYLE}  # whatever the user's matplotlibrc says
    return mpl.rc_context(settings)


def blank(width: float, height: float) -> Figure:
    """A figure of so many inches that arranges its parts by itself."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg` and `<name>.pdf`, whole or not at all."""
    paths = []
    for kind, metadata in UNDATED.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_atomically(folder / f"{name}.{kind}", buffer.getvalue())
        paths.append(folder / f"{name}.{kind}")
    return paths


def shown(text: str) -> str:
    """The text with `[U+4E2D]` for what the font has no sign for."""
    return "".join(c if ord(c) in _signs() or c == "\n" else f"[U+{ord(c):04X}]" for c in text)


@cache
def _signs() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FONT)).get_charmap())


def plain_seconds(seconds: float, _position: int | None = None) -> str:
    """A tick of a logarithmic axis of seconds, as a number without powers."""
    return f"{seconds:,.0f}" if seconds >= 1 else f"{seconds:g}"

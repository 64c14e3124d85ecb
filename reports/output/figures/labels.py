"""Labels beside points, none on another: the nearest free place is taken, with a line to its point if that is far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

RADII_POINTS = (5.0, 9.0, 14.0, 20.0, 28.0)
DIRECTIONS = 12
LINE_FROM_POINTS = 9.0
MARK_POINTS = 4.0
PADDING_POINTS = 0.7


Place = tuple[float, float]


def label_points(
    axes: Axes, points: Sequence[Place], texts: Sequence[str], lines: Sequence[tuple[Place, Place]] = (), **text: Any
) -> list[int]:
    """Write a text beside each point, the first ones first; returns the indices of those that found no place.

    Args:
        points: (x, y) in data coordinates.
        lines: ends of horizontal and vertical lines, which texts keep off where there is room elsewhere.
        text: how matplotlib draws them (size, colour).
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout is settled only now
    pixels = figure.dpi / 72
    positions = [axes.transData.transform(point) for point in points]
    half = MARK_POINTS / 2 * pixels
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in positions]
    drawn_lines = [Bbox(axes.transData.transform(sorted(ends))).padded(0.5 * pixels) for ends in lines]
    inside, without = axes.bbox, []
    for index, (words, at) in enumerate(zip(texts, positions, strict=True)):
        drawn = axes.annotate(words, points[index], xytext=(0, 0), textcoords="offset points", va="center", **text)
        drawn.set_in_layout(False)
        extent = drawn.get_window_extent(canvas.get_renderer())
        size = (extent.width / pixels, extent.height / pixels)
        for obstacles, (radius, shift) in product(([*taken, *drawn_lines], taken), _places(size)):
            center = (at[0] + shift[0] * pixels, at[1] + shift[1] * pixels)
            box = _around(center, size, pixels)
            if inside.contains(*box.min) and inside.contains(*box.max) and not any(map(box.overlaps, obstacles)):
                taken.append(box)
                drawn.set_horizontalalignment("center")
                drawn.set_position(shift)
                if radius > LINE_FROM_POINTS:
                    line: dict[str, Any] = {
                        "arrowstyle": "-",
                        "linewidth": 0.4,
                        "color": "#999999",
                        "shrinkA": 0,
                        "shrinkB": 2,
                    }
                    start: dict[str, Any] = {"xytext": _rim(shift, size), "textcoords": "offset points"}
                    axes.annotate("", points[index], **start, arrowprops=line).set_in_layout(False)
                break
        else:
            drawn.remove()
            without.append(index)
    return without


def _places(size: tuple[float, float]) -> list[tuple[float, tuple[float, float]]]:
    """(distance, offset of the text's centre in points), the nearest first; right before left, above before below."""
    order = sorted(range(DIRECTIONS), key=lambda k: (abs(math.sin(2 * math.pi * k / DIRECTIONS)), k))
    places = []
    for radius in RADII_POINTS:
        for k in order:
            x, y = math.cos(2 * math.pi * k / DIRECTIONS), math.sin(2 * math.pi * k / DIRECTIONS)
            places.append((radius, (x * (radius + size[0] / 2), y * (radius + size[1] / 2))))
    return places


def _around(center: tuple[float, float], size: tuple[float, float], pixels: float) -> Bbox:
    half = [(length / 2 + PADDING_POINTS) * pixels for length in size]
    return Bbox.from_extents(center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1])


def _rim(shift: tuple[float, float], size: tuple[float, float]) -> tuple[float, float]:
    """Where the line from the point meets the text's box."""
    scale = max(abs(shift[0]) / (size[0] / 2 + 1), abs(shift[1]) / (size[1] / 2 + 1), 1.0)
    return shift[0] * (1 - 1 / scale), shift[1] * (1 - 1 / scale)

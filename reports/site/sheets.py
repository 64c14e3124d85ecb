"""Pictures of distilled sets: one contact sheet a set, a row for each class, a column for each image.

A sheet is named by the hash of the images that it shows and by its layout, so one that is there is not made again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddbench.benchmark.image_sets import image_name
from ddbench.benchmark.store import Store

CLASSES = 20
"""Shown of a set, the first in label order."""
IMAGES = 10
"""Shown of a class, the first."""
SIDE = 64
"""Largest side of a tile in pixels; smaller images stay as they are."""
QUALITY = 80
"""Of WebP; images below `LOSSLESS` are stored without loss."""
LOSSLESS = 32
LAYOUT = 1
"""Of this file: raised whenever a sheet of the same images looks different."""
THREADS = 4
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or broken ones."""


@dataclass(frozen=True)
class Sheet:
    """A contact sheet, made or to be made."""

    path: str
    """Relative to the site's root."""
    side: int
    """Of a tile, pixels."""
    rows: int
    """Classes."""
    columns: int
    """Images of a class."""
    source: Path

    @property
    def width(self) -> int:
        return self.columns * self.side

    @property
    def height(self) -> int:
        return self.rows * self.side


def plan_sheet(store: Store, image_set_sha256: str, class_ids: Sequence[str]) -> Sheet | None:
    """Where a set's sheet goes and how large it is; None where its images are not there, or no images at all."""
    source = store.sets / image_set_sha256[:16]
    if not image_set_sha256.isalnum() or not class_ids:
        return None
    shown = [class_id for class_id in class_ids[:CLASSES] if (source / class_id).is_dir()]
    columns = max((_count(source / class_id) for class_id in shown), default=0)
    if not columns:
        return None
    try:
        with Image.open(source / shown[0] / image_name(0)) as first:
            side = min(SIDE, max(first.size))
    except DAMAGED:
        return None
    return Sheet(f"images/{image_set_sha256[:16]}-{LAYOUT}.webp", side, len(class_ids[:CLASSES]), columns, source)


def _count(folder: Path) -> int:
    return next((index for index in range(IMAGES) if not (folder / image_name(index)).exists()), IMAGES)


def write_sheets(
    to: Path, sheets: Iterable[tuple[Sheet, Sequence[str]]], progress: Callable[[], None] = lambda: None
) -> None:
    """Make the sheets that are not there yet.

    Args:
        sheets: each with the dataset's class ids.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda one: _write(to / one[0].path, one[0], one[1]), sheets):
            progress()


def _write(path: Path, sheet: Sheet, class_ids: Sequence[str]) -> None:
    if path.exists():
        return
    canvas = np.full((sheet.height, sheet.width, 3), 128, dtype=np.uint8)
    for row, class_id in enumerate(class_ids[: sheet.rows]):
        for column in range(sheet.columns):
            tile = _tile(sheet.source / class_id / image_name(column), sheet.side)
            if tile is not None:
                top, left = row * sheet.side, column * sheet.side
                canvas[top : top + sheet.side, left : left + sheet.side] = tile
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "WEBP", quality=QUALITY, lossless=sheet.side < LOSSLESS, method=4)
    path.write_bytes(buffer.getvalue())


def _tile(path: Path, side: int) -> np.ndarray | None:
    """(side, side, 3) uint8; None for a file that is missing or damaged, whose place stays grey."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (side, side))
            shown = image.convert("RGB")
            if shown.size != (side, side):
                shown = shown.resize((side, side), Image.Resampling.BOX)
            return np.asarray(shown)
    except DAMAGED:
        return None

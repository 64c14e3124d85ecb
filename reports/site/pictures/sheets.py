"""Pictures of distilled sets: one contact sheet a set, the images of each class side by side, and classes in as many
columns as make the whole fit a screen.

A sheet is made only of images whose hash, computed from the pixels that it shows and the rest of the set, is the one
that the result names. It is named by that hash and by its layout, so one that is there is not made again.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.store import Store
from ddbench.datasets.base import Dataset
from ddbench.datasets.float_images import as_uint8
from ddbench.datasets.image_sets import describe_set
from ddbench.reports.results.paths import LEADS_OUT, leads_out
from ddbench.reports.results.rows import Problem, printable

CLASSES = 20
"""The most classes of a sheet, the first in label order."""
IMAGES = 10
"""The most images of a class in a sheet, the first."""
SIDE = 64
"""Largest side of a tile in pixels; smaller images stay as they are."""
QUALITY = 80
"""Quality of WebP; images below `LOSSLESS` are stored without loss."""
LOSSLESS = 32
LAYOUT = 3
"""Version of the layout: raised whenever a sheet of the same images looks different. Sheets of 1 were made unseen."""
SCREEN = 1240, 700
"""Width and height that a reader sees of a page at once, pixels: sheets are laid out for it."""
THREADS = 4
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ZeroDivisionError)
"""What files raise that are no sheets, or broken ones."""


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: classes in label order from left to right, then downwards."""

    path: str
    """Path of the sheet, relative to the site's root."""
    image_size: int
    """Side of a tile, pixels."""
    classes: int
    images: int
    """Tiles of a class, side by side."""

    @property
    def rows(self) -> int:
        """The fewest rows at which tiles can be shown as large as any layout allows, `SIDE` at most."""

        def tile(rows: int) -> float:
            return min(SIDE, SCREEN[0] / (-(-self.classes // rows) * self.images), SCREEN[1] / rows)

        return max(range(1, self.classes + 1), key=tile)

    @property
    def across(self) -> int:
        """Classes in a row."""
        return -(-self.classes // self.rows)

    @property
    def gap(self) -> int:
        """Pixels between a class and the next of its row."""
        return max(1, self.image_size // 8)

    @property
    def zoom(self) -> int:
        """How many times as large it is shown."""
        return max(1, SIDE // self.image_size)

    @property
    def width(self) -> int:
        return self.across * (self.images * self.image_size + self.gap) - self.gap

    @property
    def height(self) -> int:
        return self.rows * self.image_size

    def thumbnails(self, count: int, side: int) -> list[str]:
        """The first image of each of the first `count` classes, `side` pixels at most, as style of a box."""
        scale = side / self.image_size if self.image_size > side else side // self.image_size
        size = f"background-size:{self.width * scale:g}px {self.height * scale:g}px"
        places = (self.place(class_index, 0) for class_index in range(min(count, self.classes)))
        box = f"width:{self.image_size * scale:g}px;height:{self.image_size * scale:g}px;{size}"
        return [f"{box};background-position:{-left * scale:g}px {-top * scale:g}px" for left, top in places]

    def place(self, class_index: int, image_index: int) -> tuple[int, int]:
        """Left and top of a tile, pixels."""
        row, column = divmod(class_index, self.across)
        left = column * (self.images * self.image_size + self.gap) + image_index * self.image_size
        return left, row * self.image_size


def write_sheets(
    store: Store, to: Path, wanted: Mapping[str, str], progress: Callable[[], None] = lambda: None
) -> dict[str, Sheet | Problem]:
    """Make the sheets that are not there yet.

    Args:
        wanted: hash of a set -> its dataset, a registered one.

    Returns:
        Hash -> its sheet, or why its pictures are left out; a set whose images are not there has none.
    """
    found = {}
    with ThreadPoolExecutor(THREADS) as pool:
        made = pool.map(lambda one: _sheet(store, to, one[0], DATASETS.load(one[1])), wanted.items())
        for sha256, sheet in zip(wanted, made, strict=True):
            progress()
            if sheet is not None:
                found[sha256] = sheet
    return found


def _sheet(store: Store, to: Path, sha256: str, dataset: Dataset) -> Sheet | Problem | None:
    source = store.set_dir(sha256)
    if not sha256.isalnum() or not source.is_dir():
        return None
    stem, classes = f"images/{sha256[:16]}-{LAYOUT}", len(dataset.class_ids[:CLASSES])
    try:
        outside = [one for one in (source, *source.glob("*"), *source.glob("*/*")) if leads_out(one, store.out)]
        if outside:
            return Problem(printable(str(outside[0])), LEADS_OUT)
        if (there := _there(to, stem, classes)) is not None:
            return there
        tiles, found = _read(source, dataset)
    except (OSError, UsageError) as error:
        return Problem(printable(str(source)), printable(f"not the images of its result: {error}").partition("\n")[0])
    if not tiles or found != sha256:
        return Problem(
            printable(str(source)),
            f"not the images of its result: expected a set with hash {sha256[:16]}, found {found[:16]}; put the set's "
            "own images back",
        )
    return _write(to, stem, tiles, classes)


def _there(to: Path, stem: str, classes: int) -> Sheet | None:
    """The sheet that an earlier build has made: its size must be that of the layout that its name states."""
    for images in range(1, IMAGES + 1):
        sheet = Sheet(f"{stem}-{images}.webp", 1, classes, images)
        try:
            with Image.open(to / sheet.path) as image:
                sheet = replace(sheet, image_size=image.height // sheet.rows)
                if image.size == (sheet.width, sheet.height):
                    return sheet
        except DAMAGED:
            continue
    return None


def _read(source: Path, dataset: Dataset) -> tuple[dict[tuple[int, int], np.ndarray], str]:
    """Tiles of the images that are shown, by class and index, and the hash of the whole set, from the same pixels."""
    tiles: dict[tuple[int, int], np.ndarray] = {}
    index_of = {class_id: class_index for class_index, class_id in enumerate(dataset.class_ids)}
    index_in_class = Counter[int]()

    def look(path: Path, pixels: np.ndarray) -> None:
        class_index = index_of[path.parent.name]
        image_index = index_in_class[class_index]
        index_in_class[class_index] += 1
        if class_index < CLASSES and image_index < IMAGES:
            image_size = len(next(iter(tiles.values()))) if tiles else min(SIDE, max(pixels.shape[:2]))
            tiles[class_index, image_index] = _tile(as_uint8(pixels), image_size)

    return tiles, describe_set(source, dataset.class_ids, dataset.channels, look=look).sha256


def _tile(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """(H, W, 1 or 3) -> (S, S, 3) uint8."""
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    if shown.size != (image_size, image_size):
        shown = shown.resize((image_size, image_size), Image.Resampling.BOX)
    return np.asarray(shown)


def _write(to: Path, stem: str, tiles: Mapping[tuple[int, int], np.ndarray], classes: int) -> Sheet:
    image_size, images = len(next(iter(tiles.values()))), 1 + max(image for _, image in tiles)
    sheet = Sheet(f"{stem}-{images}.webp", image_size, classes, images)
    # Clear between classes and where one has fewer images, so that the page shows, light or dark.
    canvas = np.zeros((sheet.height, sheet.width, 4), dtype=np.uint8)
    for of, tile in tiles.items():
        left, top = sheet.place(*of)
        canvas[top : top + image_size, left : left + image_size, :3] = tile
        canvas[top : top + image_size, left : left + image_size, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "WEBP", quality=QUALITY, lossless=image_size < LOSSLESS, method=4)
    (to / sheet.path).parent.mkdir(parents=True, exist_ok=True)
    (to / sheet.path).write_bytes(buffer.getvalue())
    return sheet

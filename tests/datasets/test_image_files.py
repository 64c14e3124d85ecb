"""The one reader of image files: what 8 bits can hold comes through unchanged, all else is refused by name."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.datasets.decoded_cache import DecodedCache, Part
from ddbench.datasets.image_files import read_8bit
from ddbench.datasets.image_sets import describe_set, read_image

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6
"""PNG's colour types."""


def values(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (6, 5, channels), dtype=np.uint16)


def write_png16(path: Path, pixels: np.ndarray, kind: int) -> Path:
    """Byte by byte: Pillow writes no 16-bit colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def write_tiff16(path: Path, pixels: np.ndarray) -> Path:
    """(H, W, 3) uint16 as one strip."""
    height, width, channels = pixels.shape
    data = pixels.astype("<u2").tobytes()
    after = 8 + len(data) + 2 + 12 * 9 + 4
    entries = [
        (256, 1, width), (257, 1, height), (258, channels, after), (259, 1, 1), (262, 1, 2), (273, 1, 8),
        (277, 1, channels), (278, 1, height), (279, 1, len(data)),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4 if n == 1 else 3, n, value) for tag, n, value in entries)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + directory
        + struct.pack("<I", 0) + struct.pack("<3H", 16, 16, 16)
    )  # fmt: skip
    return path


def written(folder: Path, case: str) -> Path:
    kind, _, ending = case.partition(".")
    path = folder / f"x.{ending}"
    if kind == "I":
        Image.fromarray(values(1)[..., 0].astype(np.int32)).save(path)
    elif kind == "F":
        Image.fromarray(values(1)[..., 0].astype(np.float32)).save(path)
    elif kind == "LAB":
        Image.new("LAB", (5, 6)).save(path)
    elif kind == "I;16" and ending == "tif":
        Image.fromarray(values(1)[..., 0]).save(path)
    elif ending == "tif":
        write_tiff16(path, values(3))
    else:
        types = {"I;16": GREY, "RGB": COLOUR, "LA": GREY_ALPHA, "RGBA": COLOUR_ALPHA}
        write_png16(path, values({"I;16": 1, "RGB": 3, "LA": 2, "RGBA": 4}[kind]), types[kind])
    return path


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "case", ["I;16.png", "RGB.png", "LA.png", "RGBA.png", "I;16.tif", "RGB.tif", "I.tif", "F.tif", "LAB.tif"]
)
def test_what_8_bits_cannot_hold_is_refused(tmp_path: Path, case: str, mode: str) -> None:
    path = written(tmp_path, case)
    with Image.open(path) as image:
        assert image.size == (5, 6), "it is a whole image, and Pillow opens it"
    with pytest.raises(ValueError, match=r"mode .*: expected 8 bits a channel.*magick mogrify -depth 8 .*x\.") as error:
        read_8bit(path, mode)
    assert case.startswith(("LA.", "LAB")) or f"mode {case.partition('.')[0]}" in str(error.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_what_8_bits_hold_comes_through(tmp_path: Path, mode: str) -> None:
    noise = (values(3) // 257).astype(np.uint8)
    image = Image.fromarray(noise).convert(mode)
    path = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr") else "x.png")
    image.save(path)
    for wanted in ("L", "RGB"):
        found = np.asarray(read_8bit(path, wanted))
        with Image.open(path) as opened:
            assert np.array_equal(found, np.asarray(opened.convert(wanted)))
    if mode == "RGB":
        assert np.array_equal(found, noise)


def test_a_distilled_set_names_its_16_bit_files(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    path = write_png16(tmp_path / "set" / "a" / "00000.png", values(1), GREY)
    with pytest.raises(Problems) as error:
        describe_set(tmp_path / "set", ("a",), 3)
    assert f"{path}: mode I;16, 16 bits a channel: expected 8 bits" in str(error.value)
    with pytest.raises(UsageError, match="mode I;16"):  # what `external` reads its program's images with
        read_image(path, 3)


def test_training_files_of_16_bits_are_not_decoded(tmp_path: Path) -> None:
    dark = write_png16(tmp_path / "dark.png", values(1), GREY)
    good = tmp_path / "good.png"
    Image.new("RGB", (9, 8), (1, 2, 3)).save(good)
    cache = DecodedCache(tmp_path / "cache", 4)
    part = Part("both", 2, lambda: [good, dark], "identity")
    corrupt = cache.decode([part], lambda done: None)
    assert list(corrupt) == [dark]
    assert "mode I;16, 16 bits a channel" in corrupt[dark]
    assert cache.find(part) is None
    shutil.copy(good, dark)
    assert cache.decode([part], lambda done: None) == {}
    assert np.load(tmp_path / "cache" / cache.folder.name / "both.npy")[1, 0, 0].tolist() == [1, 2, 3]

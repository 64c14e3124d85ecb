"""Damaged images of every kind that is read: decoded, or refused in a line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fuzzing import changed_bytes, fuzzed, held
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.image_files import read_8bit, suffixes
from ddbench.datasets.image_sets import read_set, write_png


def _images() -> dict[str, bytes]:
    """A small image of each format that is read and that Pillow writes, grey, in colour and with a palette."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    formats, made = Image.registered_extensions(), {}
    for suffix in suffixes():
        for mode in ("RGB", "L", "P", "RGBA", "I;16"):
            try:
                image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
                image = image.convert("I").convert("I;16") if mode == "I;16" else image
                image.save(file := io.BytesIO(), formats[suffix])
            except (KeyError, OSError, ValueError):  # Pillow writes no such file
                continue
            made[f"{mode}{suffix}"] = file.getvalue()
    return made


IMAGES = _images()


@fuzzed(150)
@given(data=st.data(), mode=st.sampled_from(["L", "RGB"]), flatten=st.sampled_from([None, "white"]))
def test_any_bytes_as_an_image(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, mode: str, flatten: str
) -> None:
    name = data.draw(st.sampled_from(sorted(IMAGES)))
    file = tmp_path_factory.getbasetemp() / f"image{Path(name).suffix}"
    file.write_bytes(data.draw(changed_bytes(IMAGES[name])))
    with held("an image"):
        try:
            pixels = np.asarray(read_8bit(file, mode, flatten))  # type: ignore[arg-type]
        except ValueError as error:  # with the file's name, those who read sets make a refusal of it
            raise UsageError(f"{file}: {error}") from error
        assert pixels.dtype == np.uint8
        assert pixels.ndim == (2 if mode == "L" else 3)


def test_what_fuzzing_found(tmp_path: Path) -> None:
    """A palette is looked for 769 bytes before the end, and the system says `Invalid argument`."""
    (tmp_path / "image.pcx").write_bytes(IMAGES["P.pcx"][:200])
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_8bit(tmp_path / "image.pcx", "RGB")


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for number, name in enumerate(("a", "b")):
        (folder / name).mkdir()
        write_png(folder / name / "00000.png", np.full((8, 8, 3), 50 * number, np.uint8))
    return folder


@fuzzed(60)
@given(data=st.data())
def test_a_set_with_a_damaged_image(image_set: Path, data: st.DataObject) -> None:
    file = image_set / "b" / "00000.png"
    before = file.read_bytes()
    try:
        file.write_bytes(data.draw(changed_bytes(before) | st.sampled_from(sorted(IMAGES)).map(IMAGES.__getitem__)))
        with held("a set"):
            read_set(image_set, ["a", "b"], 3)
    finally:
        file.write_bytes(before)

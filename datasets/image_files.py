"""One image file as pixels of 8 bits, read alike for distilled sets, external programs and the files of datasets."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import IO, Literal

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pillow's modes of at most 8 bits a channel that it turns into grey and RGB. The others (I;16, I, F) it clips: of a
16-bit image nearly every value becomes 255."""
PNG_DEPTH_AT = 24
"""Offset of the bit depth in a PNG: signature, length and name of IHDR (always the first chunk), width, height."""
BITS_PER_SAMPLE = 258
"""TIFF's tag of the bits per sample."""


def read_8bit(path: Path, mode: Literal["L", "RGB"]) -> Image.Image:
    """Decode an image file to grey or RGB of 8 bits a channel.

    Raises:
        ValueError: no whole image, or one that holds more than 8 bits; the message does not begin with the file.
        OSError: the system's trouble, with its error number.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            bits = _bits_beyond_mode(file, image)
            if image.mode in MODES and bits <= 8:
                return image.convert(mode)
            held = f"mode {image.mode}" + (f", {bits} bits a channel" if bits > 8 else "")
    except UnidentifiedImageError as error:
        raise ValueError("cannot be read as an image (of no known format or depth)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"cannot be read as an image ({error or type(error).__name__})") from error
    raise ValueError(
        f"{held}: expected 8 bits a channel, grey or colour. Convert it, black at 0 and white at the largest value of "
        f"its type (1.0 of floats), with ImageMagick: magick mogrify -depth 8 {shlex.quote(str(path))}"
    )


def _bits_beyond_mode(file: IO[bytes], image: Image.Image) -> int:
    """Bits a channel in formats of which Pillow opens 16-bit colour under the mode of 8-bit colour; else 0."""
    if image.format == "PNG":
        file.seek(PNG_DEPTH_AT)
        return file.read(1)[0]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    return 0

"""Image files as pixels of 8 bits, read alike for distilled sets, external programs and the files of datasets.

What is read is what lies there, or the file is refused with the command that mends it: a still picture of at most 8
bits a channel, none of it transparent. As published loaders do (torchvision's ImageFolder), neither a colour profile
nor the EXIF orientation is applied; CMYK and YCbCr become RGB by Pillow's formulas.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Literal

from PIL import Image, ImageColor, PpmImagePlugin, TiffImagePlugin, UnidentifiedImageError

from ddbench.benchmark.core.errors import UsageError

FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "PCX", "TGA", "QOI")
"""Pillow's still formats of common use; its rarer readers are an attack surface."""
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
"""Pillow's modes of at most 8 bits a channel that it turns into grey and RGB. The others (I;16, I, F) it clips: of a
16-bit image nearly every value becomes 255."""
PNG_DEPTH_AT = 24
"""Offset of the bit depth in a PNG: signature, length and name of IHDR (always the first chunk), width, height."""
BITS_PER_SAMPLE = 258
"""TIFF's tag of the bits per sample."""
LFS_POINTER = b"version https://git-lfs.github.com/"
"""How a file begins that stands for one that was not fetched."""
JPEG2000_SIZE = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins: its start and size markers."""


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> tuple[str, ...]:
    """Endings, in lower case, of the files that are images."""
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in _formats()))


def background(colour: str) -> tuple[int, int, int]:
    """What lies behind transparent pixels, of `white`, `black` or `R,G,B`.

    Raises:
        UsageError: none of these.
    """
    try:
        values = list(map(int, colour.split(",")) if "," in colour else ImageColor.getrgb(colour))  # or a name, #rrggbb
        if len(values) == 3 and all(0 <= value <= 255 for value in values):
            return values[0], values[1], values[2]
    except ValueError:
        pass
    raise UsageError(f"--flatten {colour}: expected white, black or R,G,B with values of 0 to 255")


def read_8bit(path: Path, mode: Literal["L", "RGB"], flatten: str | None = None) -> Image.Image:
    """Decode an image file to grey or RGB of 8 bits a channel.

    Args:
        flatten: what lies behind transparent pixels (`background`); None: such an image is refused.

    Raises:
        ValueError: no whole image, or one that holds more than such pixels (more bits, further frames, transparency);
            the message does not begin with the file.
        OSError: the system's trouble, with its error number.
    """
    name = shlex.quote(str(path))
    try:
        with _open_file(path) as file, Image.open(file, formats=_formats()) as image:
            bits, frames = _bits_beyond_mode(file, image), _frames(image)
            if image.mode in MODES and bits <= 8 and frames == 1:
                return _opaque(image, name, flatten).convert(mode)
            held = f"mode {image.mode}" + (f", {bits} bits a channel" if bits > 8 else "")
    except UnidentifiedImageError as error:
        raise ValueError(f"cannot be read as an image ({_what_else(path)})") from error
    except Exception as error:  # of damaged files, decoders raise whatever comes up
        passed = isinstance(error, _Refused | UsageError | MemoryError)
        # A decoder that looks before the beginning of a small file is told EINVAL, which is the file's own trouble.
        if passed or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        raise ValueError(f"cannot be read as an image ({error or type(error).__name__})") from error
    if frames > 1:
        raise ValueError(
            f"{frames} images in one file (pages or frames): expected one. Take them apart with ImageMagick: "
            f"magick {name} {shlex.quote(str(path.with_suffix('')))}-%02d.png"
        )
    raise ValueError(
        f"{held}: expected 8 bits a channel, grey or colour. Convert it, black at 0 and white at the largest value of "
        f"its type (1.0 of floats), with ImageMagick: magick mogrify -depth 8 {name}"
    )


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        return "a pointer of Git LFS in its place: git lfs pull fetches it"
    return "of no known format or depth" if start else "the file is empty"


class _Refused(ValueError):
    """A whole image that is not taken as it is."""


def _open_file(path: Path) -> IO[bytes]:
    """Not even a named pipe in the place of the file makes this wait."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise _Refused(f"it is {_kind_of(path.stat().st_mode)}: expected an image file")
    return path.open("rb")


def _frames(image: Image.Image) -> int:
    # The further pictures of a camera's JPEG (MPO) are previews and depth maps, which no other program shows either.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _opaque(image: Image.Image, name: str, flatten: str | None) -> Image.Image:
    if not image.has_transparency_data:
        return image
    with_alpha = image.convert("RGBA")
    alpha = with_alpha.getchannel("A")
    lowest, _ = alpha.getextrema()
    if lowest == 255:
        return image
    if flatten is None:
        share = sum(alpha.histogram()[:255]) / (image.width * image.height)
        raise _Refused(
            f"transparent: {share:.1%} of its pixels are not opaque, and what lies behind them is not said. Flatten it "
            f"with ImageMagick: magick mogrify -background white -alpha remove -alpha off {name}"
        )
    behind = Image.new("RGBA", image.size, (*background(flatten), 255))
    return Image.alpha_composite(behind, with_alpha).convert("RGB")


def _bits_beyond_mode(file: IO[bytes], image: Image.Image) -> int:
    """Bits a channel in formats of which Pillow opens deeper colour under the mode of 8-bit colour; else 0."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        # Its decoder's arguments end with the largest value, where that is not 255.
        arguments = image.tile[0].args
        return max((one.bit_length() for one in arguments if isinstance(one, int)), default=0) if arguments else 0
    if image.format == "PNG":
        return _read_at(file, PNG_DEPTH_AT, 1)[0]
    if image.format == "AVIF":
        flags = _after(_read_at(file, 0), b"av1C", 2)
        return max((8 + 2 * bool(flag & 0x40) + 2 * bool(flag & 0x20) for flag in flags), default=0)
    if image.format == "JPEG2000":
        data = _read_at(file, 0)
        start = data.find(JPEG2000_SIZE) + len(JPEG2000_SIZE)
        # Length, capabilities and eight sizes of 4 bytes; then the number of components, and 3 bytes for each.
        components = int.from_bytes(data[start + 36 : start + 38], "big")
        return max(((data[start + 38 + 3 * i] & 0x7F) + 1 for i in range(components)), default=0)
    return 0


def _read_at(file: IO[bytes], position: int, size: int = -1) -> bytes:
    before = file.tell()
    file.seek(position)
    data = file.read(size)
    file.seek(before)
    return data


def _after(data: bytes, name: bytes, offset: int) -> Iterator[int]:
    """The byte at an offset in each box of a name."""
    at = data.find(name)
    while at >= 0 and at + len(name) + offset < len(data):
        yield data[at + len(name) + offset]
        at = data.find(name, at + 1)


@dataclass
class Listing:
    """What lies in a folder of images."""

    folder: Path = Path()
    files: list[Path] = field(default_factory=list)
    """Its images, sorted as text."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Kind -> how many things in it are no images: `.txt file`, `folder`, `hidden file`."""
    problems: list[str] = field(default_factory=list)
    """Things that are named as images are and cannot be read as files."""


def list_images(folder: Path) -> Listing:
    """The images of a folder, and what else lies in it. Opens nothing.

    Raises:
        UsageError: the folder cannot be read, or not be entered.
    """
    found = Listing(folder)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from error
    for entry in entries:
        path = folder / entry.name
        image = path.suffix.lower() in suffixes() and not entry.name.startswith(".")
        try:
            kind = entry.stat().st_mode
        except PermissionError as error:
            raise UsageError(f"{folder}: {error.strerror}; entering it takes the right x: chmod u+x") from error
        except OSError as error:
            wrong = f"a link to nothing ({os.strerror(error.errno or 0)})"
        else:
            if image and stat.S_ISREG(kind):
                found.files.append(path)
                continue
            wrong = _kind_of(kind)
            if stat.S_ISREG(kind):
                wrong = f"{path.suffix.lower()} file" if path.suffix else "file without ending"
        if image:
            found.problems.append(f"{path} is {wrong}: expected an image file")
        else:
            wrong = wrong.removeprefix("a ").partition(" (")[0]
            found.skipped[f"hidden {'folder' if wrong == 'folder' else 'file'}" if entry.name[0] == "." else wrong] += 1
    return found


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def counted_kinds(skipped: Mapping[str, int]) -> str:
    """`3 × .txt file, 1 × folder`."""
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(skipped.items()))

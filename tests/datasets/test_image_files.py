"""The one reader of image files: what 8 bits can hold comes through unchanged, all else is refused by name."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.datasets.decoded_cache import DecodedCache, Part
from ddbench.datasets.image_files import background, counted_kinds, list_images, read_8bit
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


def colours(folder: Path) -> Image.Image:
    """16 colours in areas of 4 × 4: what every format holds without loss, palettes too."""
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(values.repeat(4, 0).repeat(4, 1))


LOSSLESS = [
    "png", "PNG", "apng", "bmp", "dib", "tif", "tiff", "TIFF", "ppm", "pnm", "qoi", "tga", "pcx", "gif", "jp2", "j2k",
]  # fmt: skip
LOSSY = ["jpg", "jpeg", "JPEG", "jfif", "jpe", "webp", "avif"]


@pytest.mark.parametrize("ending", LOSSLESS + LOSSY)
def test_every_usual_still_format_is_read_and_listed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    try:
        colours(tmp_path).save(path)
    except KeyError:
        pytest.skip(f"this Pillow writes no {ending}")
    listing = list_images(tmp_path)
    assert (listing.files, dict(listing.skipped), listing.problems) == ([path], {}, [])
    found = np.asarray(read_8bit(path, "RGB")).astype(int)
    away = np.abs(found - np.asarray(colours(tmp_path)).astype(int))
    assert away.max() == 0 if ending in LOSSLESS else away.mean() < 30


@pytest.mark.parametrize(
    ("name", "content", "bits"),
    [
        ("x.ppm", b"P6\n# 7\n2 2\n65535\n" + bytes(24), 16),
        ("x.ppm", b"P6 2 2 1023\n" + bytes(24), 10),
        ("x.pnm", b"P3 2 2 256\n" + b"1 2 3 " * 4, 9),
        ("x.pgm", b"P2 2 2 4095\n" + b"1 " * 4, 12),
    ],
)
def test_deep_netpbm_is_refused(tmp_path: Path, name: str, content: bytes, bits: int) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{bits} bits a channel: expected 8"):
        read_8bit(tmp_path / name, "RGB")


def test_deep_grey_netpbm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 2 2 65535\n" + bytes(8))
    with pytest.raises(ValueError, match="mode I: expected 8"):
        read_8bit(tmp_path / "x.pgm", "L")


def test_shallow_netpbm_is_scaled_as_netpbm_says(tmp_path: Path) -> None:
    (tmp_path / "x.ppm").write_bytes(b"P6 1 1 127\n" + bytes([127, 0, 127]))
    assert np.asarray(read_8bit(tmp_path / "x.ppm", "RGB")).ravel().tolist() == [255, 0, 255]


@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_deep_jpeg_2000_is_refused(tmp_path: Path, ending: str) -> None:
    Image.fromarray(values(1)[..., 0]).save(tmp_path / f"grey.{ending}")
    with pytest.raises(ValueError, match="16 bits a channel"):
        read_8bit(tmp_path / f"grey.{ending}", "L")
    # Pillow writes no 16-bit colour, and would read it as 8-bit colour: the depths of the components are edited.
    Image.fromarray((values(3) // 257).astype(np.uint8)).save(tmp_path / f"x.{ending}")
    data = bytearray((tmp_path / f"x.{ending}").read_bytes())
    depths = data.find(b"\xff\x4f\xff\x51") + 4 + 38
    data[depths : depths + 9 : 3] = bytes([15, 15, 15])
    (tmp_path / f"x.{ending}").write_bytes(data)
    with pytest.raises(ValueError, match="16 bits a channel"):
        read_8bit(tmp_path / f"x.{ending}", "RGB")


def test_deep_avif_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.avif"
    try:
        colours(tmp_path).save(path)
    except (KeyError, OSError):
        pytest.skip("this Pillow writes no AVIF")
    data = bytearray(path.read_bytes())
    data[data.find(b"av1C") + 6] |= 0x40  # high bit depth
    depths = data.find(b"pixi") + 8
    data[depths + 1 : depths + 1 + data[depths]] = bytes([10] * data[depths])
    path.write_bytes(data)
    with pytest.raises(ValueError, match="10 bits a channel"):
        read_8bit(path, "RGB")


def transparent(folder: Path, kind: str) -> Path:
    """Left half white and opaque; right half hides 7, behind alpha 0."""
    path = folder / f"{kind.replace('.', '-')}.{'webp' if kind == 'webp' else 'gif' if kind == 'gif' else 'png'}"
    values = np.full((4, 4, 4), 255, np.uint8)
    values[:, 2:] = (7, 7, 7, 0)
    image = Image.fromarray(values)
    if kind == "LA":
        image.convert("LA").save(path)
    elif kind == "palette" or kind == "gif":
        palette = Image.fromarray((values[..., 0] != 255).astype(np.uint8)).convert("P")
        palette.putpalette([255, 255, 255, 7, 7, 7])
        palette.save(path, transparency=1)
    elif kind == "colour key":
        image.convert("RGB").save(path, transparency=(7, 7, 7))
    elif kind == "grey key":
        image.convert("L").save(path, transparency=7)
    else:
        image.save(path, lossless=True, exact=True)
    return path


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key", "grey key", "webp", "gif"])
def test_hidden_colours_do_not_surface(tmp_path: Path, kind: str) -> None:
    path = transparent(tmp_path, kind)
    for mode in ("L", "RGB"):
        with pytest.raises(ValueError, match=r"transparent: 50.0% of its pixels .*magick mogrify -background white"):
            read_8bit(path, mode)
    for colour, behind in (("white", 255), ("black", 0), ("10,10,10", 10)):
        assert np.asarray(read_8bit(path, "L", colour))[0].tolist() == [255, 255, behind, behind]
    assert np.asarray(read_8bit(path, "RGB", "255,0,9"))[0, 3].tolist() == [255, 0, 9]


def test_half_of_a_pixel_is_mixed(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (200, 100, 0, 51)).save(tmp_path / "x.png")
    assert np.asarray(read_8bit(tmp_path / "x.png", "RGB", "black"))[0, 0].tolist() == [40, 20, 0]


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    image = colours(tmp_path)
    image.convert("RGBA").save(tmp_path / "x.png")
    for mode in ("L", "RGB"):
        assert np.array_equal(np.asarray(read_8bit(tmp_path / "x.png", mode)), np.asarray(image.convert(mode)))
        assert read_8bit(tmp_path / "x.png", mode, "black").tobytes() == image.convert(mode).tobytes()


@pytest.mark.parametrize("colour", ["transparent", "1,2", "256,0,0", "1,2,x", "", "-1,0,0"])
def test_what_is_no_background(colour: str) -> None:
    with pytest.raises(UsageError, match=f"--flatten {colour}: expected white, black or R,G,B"):
        background(colour)


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png", "avif"])
def test_further_frames_do_not_vanish(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 120, 250)]
    path = tmp_path / f"x.{ending}"
    try:
        frames[0].save(path, save_all=True, append_images=frames[1:])
    except KeyError:
        pytest.skip(f"this Pillow writes no {ending}")
    with pytest.raises(ValueError, match=r"3 images in one file \(pages or frames\): expected one.*magick .*x\."):
        read_8bit(path, "RGB")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged metadata
@pytest.mark.parametrize("ending", LOSSLESS[3:] + LOSSY)
def test_damaged_files_are_no_tracebacks(tmp_path: Path, ending: str) -> None:
    whole, path = tmp_path / f"whole.{ending}", tmp_path / f"x.{ending}"
    try:
        colours(tmp_path).save(whole)
    except KeyError:
        pytest.skip(f"this Pillow writes no {ending}")
    data, draw = whole.read_bytes(), np.random.default_rng(5)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for place in draw.integers(0, min(len(data), 200), 4):
            damaged[place] = draw.integers(0, 256)
        path.write_bytes(damaged[: draw.integers(len(data) // 2, len(data) + 1)])
        try:
            read_8bit(path, "RGB")
        except ValueError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull fetches it"),
        (b"<html>", "of no known format"),
    ],
)
def test_what_lies_there_in_place_of_an_image(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot be read as an image .*{said}"):
        read_8bit(tmp_path / "a.png", "L")


def test_orientation_and_profiles_are_not_applied(tmp_path: Path) -> None:
    """As torchvision's ImageFolder, with which the papers' programs read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 8), (10, 20, 30)).save(tmp_path / "x.png", exif=exif, icc_profile=b"any")
    assert read_8bit(tmp_path / "x.png", "RGB").size == (4, 8)


def test_a_folder_is_listed_whatever_lies_in_it(tmp_path: Path) -> None:
    for name in ("a.png", "b.JFIF", "notes.txt", "labels.pt", "more.pt", ".hidden.png", "Makefile"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    (tmp_path / ".cache").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = list_images(tmp_path)
    assert [path.name for path in found.files] == ["a.png", "b.JFIF"]
    assert found.problems == []
    assert counted_kinds(found.skipped) == (
        "2 × .pt file, 1 × .txt file, 1 × file without ending, 1 × folder, 1 × hidden file, 1 × hidden folder, "
        "1 × link to nothing, 1 × named pipe"
    )


def test_what_is_called_an_image_and_is_no_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "3.png").symlink_to("3.png")
    (tmp_path / "4.png").mkdir()
    with socket.socket(socket.AF_UNIX) as served:
        monkeypatch.chdir(tmp_path)  # the path of a socket may be 108 characters long
        served.bind("5.png")
    found = list_images(tmp_path)
    assert found.files == []
    assert [problem.removeprefix(str(tmp_path)).partition(":")[0] for problem in found.problems] == [
        "/1.png is a named pipe",
        "/2.png is a link to nothing (No such file or directory)",
        "/3.png is a link to nothing (Too many levels of symbolic links)",
        "/4.png is a folder",
        "/5.png is a socket",
    ]
    with pytest.raises(ValueError, match="it is a named pipe: expected an image file"):
        read_8bit(tmp_path / "1.png", "L")
    with pytest.raises(OSError, match="symbolic links"):
        read_8bit(tmp_path / "3.png", "L")


def test_a_folder_that_may_be_listed_and_not_entered(tmp_path: Path) -> None:
    """Mode 644, which unpacking leaves now and then; its images were links to nothing."""
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"")
    program = "\n".join(
        [
            "import sys; from pathlib import Path; from ddbench.datasets.image_files import list_images",
            "try: list_images(Path(sys.argv[1]))",
            "except Exception as error: print(type(error).__name__, error)",  # whatever it is, compared below
        ]
    )
    tmp_path.chmod(0o644)
    as_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []
    if as_user and not shutil.which("setpriv"):
        pytest.skip("needs setpriv, to be bound by rights as root")
    try:
        done = subprocess.run(
            [*as_user, sys.executable, "-P", "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
        )
    finally:
        tmp_path.chmod(0o755)
    assert done.stdout == f"UsageError {tmp_path}: Permission denied; entering it takes the right x: chmod u+x\n"


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        list_images(tmp_path / "nowhere")

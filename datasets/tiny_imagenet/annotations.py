"""The classes of Tiny-ImageNet's validation images: `val/val_annotations.txt`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ddbench.benchmark.core.errors import UsageError

PLACE = "val/val_annotations.txt"
NAME = re.compile(r"(?P<stem>val_\d+)\.\w+")
NO_LIST = (
    f"there is no {PLACE}: that each test image lies in its own class's folder is not checked, only how many lie in "
    "each. Put that file of tiny-imagenet-200.zip there, and it is"
)
AGAIN = f"get {PLACE} of tiny-imagenet-200.zip again"


@dataclass(frozen=True)
class Annotations:
    """What a list says."""

    file: str
    """Where it lies, for people."""
    wnid_of: Mapping[str, str]
    """Stem of an image's name, `val_123` -> wnid."""


def read_annotations(data: bytes, file: str, class_ids: Collection[str]) -> Annotations:
    """The classes in a list of lines `val_0.JPEG`, wnid and four numbers of a box, parted by tabs.

    Args:
        file: where it lies, for people.

    Raises:
        UsageError: another form, a wnid that is none of `class_ids`, an image that stands twice.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text ({error}); {AGAIN}") from None
    wnid_of, line_of = dict[str, str](), dict[str, int]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        stem, wnid = _parse(line, f"{file} line {number}")
        if wnid not in class_ids:
            raise UsageError(
                f"{file} line {number}: {wnid!r} is none of tiny-imagenet's {len(class_ids)} classes; {AGAIN}"
            )
        if stem in wnid_of:
            raise UsageError(
                f"{file} names {stem} twice, as {wnid_of[stem]} in line {line_of[stem]} and as {wnid} in line "
                f"{number}: expected every image once; {AGAIN}"
            )
        wnid_of[stem], line_of[stem] = wnid, number
    return Annotations(file, wnid_of)


def _parse(line: str, where: str) -> tuple[str, str]:
    """Stem and wnid; the box is not read."""
    name, _, rest = line.partition("\t")
    match = NAME.fullmatch(name.strip())
    wnid = rest.partition("\t")[0].strip()
    if match is None or not wnid:
        raise UsageError(f"{where}: expected a name like val_0.JPEG, a tab and a wnid, got {line[:60]!r}; {AGAIN}")
    return match["stem"], wnid

"""Files that are not what their names say, told by their first bytes before anything reads them. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
WEB_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")
LOOKED_AT_BYTES = 256


def check_kind(path: Path) -> bytes:
    """Check that there is a file and that it is not what downloads leave in a file's place; returns its first bytes.

    Raises:
        UsageError: no file, a pipe or device, one that cannot be read, nothing in it, a Git-LFS pointer, a web page.
    """
    if not path.is_file():
        if path.exists():
            raise UsageError(f"{path} is no regular file")
        raise UsageError(f"{path.name} is missing from {path.parent}; docs/priors.md lists a prior's files")
    try:
        with path.open("rb") as file:
            head = file.read(LOOKED_AT_BYTES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        raise UsageError(f"{path} is empty (0 bytes): its download or copy broke off; copy it again")
    if head.startswith(LFS_POINTER):
        raise UsageError(
            f"{path} is a Git-LFS pointer ({path.stat().st_size} bytes), not the file itself: run `git lfs install` "
            "and `git lfs pull` in that repository, or download the file"
        )
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(WEB_PAGE):
        raise UsageError(
            f"{path} is a web page, such as a login or error page that was saved in place of the file; download the "
            "file itself"
        )
    return head


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a prior.

    Raises:
        UsageError: as `check_kind`; not JSON, a key twice, a text with control characters, or something else than an
            object.
    """
    check_kind(path)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
        return found

    def finite(number: str) -> float:
        if not math.isfinite(found := float(number)):
            raise ValueError(f"{number} is no finite number")
        return found

    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=once, parse_float=finite, parse_constant=finite)
        for text in _texts(content):
            if not all(character.isprintable() or character in "\n\t" for character in text):
                raise ValueError(f"a text with control characters, {ascii(text)[:100]}")
    except ValueError as error:
        raise UsageError(f"{path} is not JSON of a prior: {error}") from None
    except RecursionError:
        raise UsageError(f"{path} is not JSON of a prior: its brackets are nested too deeply") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _texts(value: Any) -> Iterator[str]:
    """Every text of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value:
            yield from _texts(one)
        if isinstance(value, dict):
            for one in value.values():
                yield from _texts(one)

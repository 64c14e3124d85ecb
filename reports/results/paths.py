"""What of a machine's files may be published: only what lies in the results folder, and texts without its folders."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

_ROOT = r"(?:~[\w.-]*|[A-Za-z]:|\.{1,2}|\\)?[/\\]"
"""`/`, `~/`, `~jane/`, `C:\\`, `\\\\`, `./` and `../`."""
_PATHS = (
    # A text that is a path, which may hold spaces, and says nothing else.
    re.compile(rf"""\A{_ROOT}(?=[^\s/\\])(?:(?!:\s)[^'"\n])*\Z"""),
    # The value of a parameter, `dit[checkpoint=…,epochs=3]`: it ends with the comma or bracket.
    re.compile(rf"(?<=\w=){_ROOT}[^,\]\n]*"),
    re.compile(r"(?<=\w=)[^\s,\]/\\]+[/\\][^\s,\]]*"),
    # In quotes, as the messages of the system have it.
    re.compile(rf"""(?<=['"]){_ROOT}[^'"\n]*(?=['"])"""),
    # Anywhere else: up to the next space or punctuation. Neither fractions, nor `and/or`, nor addresses with `://`.
    re.compile(rf"""(?<![\w.~/\\])(?:file://)?{_ROOT}(?=[^\s/\\])[^\s'"<>|,;()\[\]]*"""),
)


LEADS_OUT = "a link out of the results folder, which no site follows; copy what it leads to in its place"


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path lies outside a folder once all its links are followed, those of the folders above it too."""
    # Unlike `Path.resolve`, it raises nothing for a link that leads to itself.
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def without_paths(text: str) -> str:
    """The text with the last part of each path in place of the path.

    What looks like a path counts as one: a public page rather lacks a word than names a folder.
    """
    for pattern in _PATHS:
        text = pattern.sub(lambda found: _last_part(found[0]), text)
    return text


def _last_part(path: str) -> str:
    trailing = path[len(path.rstrip(".:")) :]  # of the sentence, not of the name
    return PureWindowsPath(PurePosixPath(path.removesuffix(trailing)).name).name + trailing

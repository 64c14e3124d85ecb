"""What a results folder needs of its file system, and whether it gives that: tried out, not looked up. No torch."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shutil import rmtree

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.sharing.holder import own_name
from ddbench.benchmark.core.sharing.lease import create_whole

SHARED = (
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "orangefs"
)  # fmt: skip
"""Types of file systems that several machines usually share."""
FEW_FILES, FEWEST_FILES = 20_000, 1000
"""Files that a disk can still take, below which that is told, and bad: 1000 classes at IPC 10 have 10,000 images."""
LITTLE_MIB, LEAST_MIB = 1024, 64
"""Room below which that is told, and bad."""
RACES = 200


class Verdict(StrEnum):
    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What one trial showed."""

    what: str
    verdict: Verdict
    found: str
    meaning: str = ""
    """What follows from it; empty where nothing does."""


def require_fit(folder: Path) -> None:
    """The trials that take no time; before a run.

    Raises:
        RunError: results that are written there could be lost or mixed up.
        OSError: it cannot be written to.
    """
    with _place(folder) as place:
        for trial in (_exclusive, _replaces):
            finding = trial(place)
            if finding.verdict is Verdict.BAD:
                raise RunError(f"{folder}: {finding.found}: {finding.meaning}. Choose another folder with --out.")


def try_out(folder: Path) -> list[Finding]:
    """All trials, in a folder of their own that is gone afterwards; a second or two.

    Raises:
        OSError: the folder cannot be written to.
    """
    with _place(folder) as place:
        trials: tuple[Callable[[Path], Finding], ...] = (
            _exclusive, _race, _replaces, _folders, _seen, _hard_links, _symbolic_links, _room, _entries,
        )  # fmt: skip
        return [type_of(folder), *(trial(place) for trial in trials)]


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    place = folder / f".doctor.{own_name()}.tmp"
    place.mkdir()
    try:
        yield place
    finally:
        rmtree(place, ignore_errors=True)


def type_of(folder: Path) -> Finding:
    """The type of the file system that a folder lies on."""
    name = mounted_as(folder)
    if name in SHARED:
        said = "several machines may share it: each result's maker is settled by leases, which need no file locks"
        return Finding("file system", Verdict.GOOD, name, said)
    return Finding("file system", Verdict.GOOD, name or "of an unknown type")


def mounted_as(folder: Path) -> str | None:
    """Type of the file system a folder lies on: `ext4`, `nfs4`, `lustre`, …; None where the system does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    there, best, kind = folder.resolve(), -1, None
    for line in lines:
        fields = line.split()
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))  # blanks as \040
        if there.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[fields.index("-") + 1]
    return kind


def _exclusive(place: Path) -> Finding:
    what, file = "one of two creates a file", place / "exclusive"
    if not create_whole(file, b"first") or create_whole(file, b"second") or file.read_bytes() != b"first":
        meaning = "two machines could make one cell at once, and one result replace another"
        return Finding(what, Verdict.BAD, "a file was created that was there already", meaning)
    return Finding(what, Verdict.GOOD, "the second is refused")


RACER = """
import errno, os, sys
place, mine, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
open(f"{place}/from-{mine}", "w").close()
sys.stdin.readline()
won = 0
for number in range(count):
    try:
        os.link(f"{place}/from-{mine}", f"{place}/race-{number}")
        won += 1
    except FileExistsError:
        pass
    except OSError:
        try:
            os.close(os.open(f"{place}/race-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won += 1
        except FileExistsError:
            pass
print(won)
"""


def _race(place: Path) -> Finding:
    """Two processes of this machine; of two machines, run the command on both."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RACER, place, str(number), str(RACES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    told = [racer.communicate("go\n", timeout=60) for racer in racers]
    what, won = "of two that race, one wins", [int(out) for out, _ in told if out.strip()]
    if len(won) == len(racers) and sum(won) == RACES:
        return Finding(what, Verdict.GOOD, f"{RACES} times out of {RACES}")
    said = told[0][1].strip().splitlines()[-1:] or told[1][1].strip().splitlines()[-1:]
    return Finding(
        what, Verdict.BAD, f"{sum(won)} winners in {RACES} races{': ' if said else ''}{''.join(said)}",
        "two machines could make one cell at once",
    )  # fmt: skip


def _replaces(place: Path) -> Finding:
    old, new = place / "old", place / "new"
    old.write_text("old")
    new.write_text("new")
    new.replace(old)
    if old.read_text() != "new" or new.exists():
        meaning = "readers could see half-written results"
        return Finding("a file is replaced whole", Verdict.BAD, "the old one stayed", meaning)
    return Finding("a file is replaced whole", Verdict.GOOD, "by one rename")


def _folders(place: Path) -> Finding:
    what, full, new = "a folder is not replaced", place / "full", place / "empty"
    full.mkdir()
    (full / "image").write_text("")
    new.mkdir()
    try:
        new.rename(full)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return Finding(what, Verdict.GOOD, "a full one stays")
        return Finding(what, Verdict.NOTE, os.strerror(error.errno or 0), "distilled sets may fail to get their names")
    meaning = "two processes that make one set could take each other's away"
    return Finding(what, Verdict.BAD, "a full one was replaced", meaning)


def _seen(place: Path) -> Finding:
    """How long until another process sees a new file."""
    look = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.001)\nprint('seen')"
    file = place / "new-file"
    command = [sys.executable, "-I", "-S", "-c", look, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        time.sleep(0.1)
        begun = time.monotonic()
        file.touch()
        try:
            other.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            other.kill()
        took = time.monotonic() - begun
    what = "a new file is seen"
    if took > 1:
        meaning = "who asks whether a cell has a result looks again, so nothing is lost; status lags behind"
        return Finding(what, Verdict.NOTE, f"after {took:.1f} s" if took < 5 else "not within 5 s", meaning)
    return Finding(what, Verdict.GOOD, "at once")


def _hard_links(place: Path) -> Finding:
    (place / "image").write_bytes(b"png")
    try:
        os.link(place / "image", place / "again")
    except OSError as error:
        meaning = "images are copied where they would be linked: sets take room twice while they are made"
        return Finding("hard links", Verdict.NOTE, os.strerror(error.errno or 0), meaning)
    return Finding("hard links", Verdict.GOOD, "there are")


def _symbolic_links(place: Path) -> Finding:
    try:
        (place / "images").symlink_to("image")
    except OSError as error:
        meaning = "a cell's folder has no `images`; its set is in sets/ all the same"
        return Finding("symbolic links", Verdict.NOTE, os.strerror(error.errno or 0), meaning)
    return Finding("symbolic links", Verdict.GOOD, "there are")


def _room(place: Path) -> Finding:
    status = os.statvfs(place)
    free_mib = status.f_bavail * status.f_frsize / 2**20
    if free_mib < LITTLE_MIB:
        meaning = "cells stop where a disk is full; once there is room, the same command goes on"
        verdict = Verdict.BAD if free_mib < LEAST_MIB else Verdict.NOTE
        return Finding("room", verdict, f"{free_mib:.0f} MiB free", meaning)
    return Finding("room", Verdict.GOOD, f"{free_mib / 1024:.1f} GiB free")


def _entries(place: Path) -> Finding:
    status = os.statvfs(place)
    if not status.f_files:
        return Finding("files", Verdict.GOOD, "as many as there is room for")
    if status.f_favail < FEW_FILES:
        meaning = "each image is a file, and a disk can be full of files while it has room"
        verdict = Verdict.BAD if status.f_favail < FEWEST_FILES else Verdict.NOTE
        return Finding("files", verdict, f"{status.f_favail:,} more", meaning)
    return Finding("files", Verdict.GOOD, f"{status.f_favail:,} more")

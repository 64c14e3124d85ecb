"""Ends a process of a run at the n-th change that any of them makes to the results folder.

A process that imports this with CHAOS_FOLDER in its environment counts what it is about to do there: each file opened
to be written, each rename, link, removal and folder. The count is the length of a file to which every process appends
a byte, so that it goes on from one process to the next, and needs no lock.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install() -> None:
    """Watch this process and those that are forked from it."""
    folder, count_file = os.environ["CHAOS_FOLDER"], os.environ["CHAOS_COUNT"]
    last, victim = int(os.environ["CHAOS_LAST"]), os.environ["CHAOS_VICTIM"]
    after_seconds = float(os.environ["CHAOS_AFTER_SECONDS"])
    os.environ.setdefault("CHAOS_RUN", str(os.getpid()))
    counted = os.open(count_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not _is_change(event, arguments, folder):
            return
        os.write(counted, b".")
        if os.fstat(counted).st_size != last:
            return
        pid = {"writer": os.getpid(), "run": int(os.environ["CHAOS_RUN"]), "server": os.getppid()}[victim]
        if victim == "server" and os.environ["CHAOS_RUN"] == str(os.getpid()):
            pid = os.getpid()  # the run itself has no server above it
        if after_seconds:
            threading.Timer(after_seconds, os.kill, (pid, signal.SIGKILL)).start()
        else:
            os.kill(pid, signal.SIGKILL)

    sys.addaudithook(watch)


def _is_change(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
            return False
    elif event not in CHANGES:
        return False
    try:
        place = os.fsdecode(arguments[0])
    except TypeError:  # a file that is open already
        return False
    # Within a folder that is being removed, names are relative to it.
    return place.startswith(folder) or (event in ("os.remove", "os.rmdir") and not place.startswith("/"))

"""What runs on a Ray node: an actor that starts cells as processes of its node and tells how they ended.

It is detached: it outlives the run that made it. While that run is at work it hears from it every few seconds; once it
hears nothing, it takes no new cell, lets those that run end, and then goes, so that no GPU stays taken.
"""

from __future__ import annotations

import importlib
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.engines.base import Engine, Handle

LOOK_SECONDS = 0.05
"""Seconds between two looks at a cell's process."""
PATIENCE_SECONDS = 30.0
"""Seconds without a word from its run after which a pilot without a cell goes."""
LOST_SECONDS = 15.0
"""Seconds without a word from its run after which another run may have a pilot."""
GRACE_SECONDS = 10.0
"""Seconds between asking the cells of a pilot that goes to stop and ending them."""
PACKAGES = ("ddbench", "torch", "numpy")
"""What must be of one version wherever cells of a run are made."""


def versions() -> dict[str, str]:
    """Python and what else cells rest on, name -> version."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


@dataclass(frozen=True)
class Seen:
    """What a pilot finds on its node."""

    node: str
    """The machine's name."""
    cores: int
    """Cores that its cells may use."""
    sees: bool
    """Whether the results folder is there, with what the run has put into it."""
    versions: Mapping[str, str]


class Pilot:
    """Runs the cells of one slot with an engine of its node, `local` but for tests."""

    def __init__(
        self,
        run: str,
        engine: str,
        device: str,
        cores: int,
        variables: Mapping[str, str],
        go: Callable[[], Any] | None = None,
    ) -> None:
        os.environ.update(variables)
        module, _, name = engine.partition(":")
        self._run, self._cores = run, cores
        self._engine: Engine = getattr(importlib.import_module(module), name)()
        (self._slot,) = self._engine.open(jobs=1, device=device)
        self._cells: dict[str, Handle] = {}
        self._ended: dict[str, int] = {}
        self._lock = threading.Lock()
        self._heard, self._leaves = time.monotonic(), False
        # Ray's own handle of this actor can only be had where it runs; a thread of ours has none.
        self._go = go or _own_end()
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self, probe: str, token: str) -> Seen:
        """Whether this node can run the cells of a run: `probe` is a file that the run has written `token` into."""
        self._heard = time.monotonic()
        try:
            sees = Path(probe).read_text() == token
        except OSError:
            sees = False
        return Seen(socket.gethostname(), self._cores, sees, versions())

    def run(self, number: str, cell: str, launch: str) -> int:
        """Start a cell and wait for its end: its exit status. Asked again, it waits for the same process."""
        with self._lock:
            if number not in self._cells and number not in self._ended:
                given = Launch.model_validate_json(launch)
                given = given.model_copy(update={"device": self._slot.device})
                self._cells[number] = self._engine.start(Path(cell), given, self._slot)
        while True:
            with self._lock:
                self._collect()
                if number in self._ended:
                    return self._ended[number]
            time.sleep(LOOK_SECONDS)

    def end(self, number: str, how: int) -> None:
        """Send a cell's process SIGTERM or SIGKILL, if it still runs."""
        with self._lock:
            handle = self._cells.get(number)
        if handle is not None:
            handle.terminate() if how == signal.SIGTERM else handle.kill()

    def hear(self, run: str) -> int | None:
        """A word from a run, which makes an abandoned pilot its own: how many cells run here; None where the pilot is
        another run's that is at work."""
        if run != self._run and time.monotonic() - self._heard < LOST_SECONDS:
            return None
        self._run, self._heard = run, time.monotonic()
        with self._lock:
            self._collect()
            return len(self._cells)

    def leave(self, *, stop: bool) -> None:
        """Go, once no cell runs; with `stop`, ask them to stop first."""
        self._leaves = True
        if stop:
            self._stop_cells()

    def _stop_cells(self) -> None:
        with self._lock:
            handles = list(self._cells.values())
        for handle in handles:
            handle.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while any(handle.exit_status() is None for handle in handles):
            if time.monotonic() > deadline:
                for handle in handles:
                    handle.kill()
            time.sleep(LOOK_SECONDS)

    def _collect(self) -> None:
        for number, handle in list(self._cells.items()):
            status = handle.exit_status()
            if status is not None:
                self._ended[number] = status
                del self._cells[number]

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with self._lock:
                self._collect()
                idle = not self._cells
            if idle and (self._leaves or time.monotonic() - self._heard > PATIENCE_SECONDS):
                self._engine.close()
                self._go()
                return


def _own_end() -> Callable[[], Any]:
    """What ends this actor: an end that was asked for, in Ray's eyes."""
    import ray

    own = ray.get_runtime_context().current_actor
    return lambda: ray.kill(own)

"""Another program, run in a session of its own: its output, memory, time and end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from ddbench.benchmark.core.errors import RunError

GRACE_SECONDS = 5.0
"""Time between asking the program to stop and ending it; the engine gives a cell twice as long."""
POLL_SECONDS = 0.2
LAST_LINES = 15


class Program:
    """A program in a session of its own: its output goes to the cell's log, its memory is watched."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float) -> None:
        self.words, self.environment, self.folder, self.timeout = words, environment, folder, timeout
        self.peak_mib = self.seconds = 0.0
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> int:
        """Run it and return its exit status. However this call ends, no process of the program is left.

        Raises:
            RunError: it could not be started, or took too long.
        """
        begun = time.monotonic()
        try:
            with _signals_later():  # an interruption while it starts would leave it behind
                process = self._process = self._start()
            reader = threading.Thread(target=self._read, args=[process.stdout], daemon=True)
            reader.start()
            while (status := process.poll()) is None:
                self.peak_mib = max(self.peak_mib, _session_mib(process.pid))
                self.seconds = time.monotonic() - begun
                if self.seconds > self.timeout:
                    raise RunError(
                        f"the program took longer than timeout_seconds={self.timeout:g}\n  {shlex.join(self.words)}\n"
                        f"Its last lines:\n{self.last_words()}"
                    )
                time.sleep(min(POLL_SECONDS, 0.005 + self.seconds / 50))
            self.seconds = time.monotonic() - begun
        finally:
            if self._process is not None:
                _end_session(self._process)
        reader.join(timeout=GRACE_SECONDS)
        return status

    def _start(self) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                self.words,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            said = f"cannot start {self.words[0]}: {error.strerror} (command: {shlex.join(self.words)})"
            raise RunError(said) from error

    def last_words(self) -> str:
        return "\n".join(self._lines) or "(it said nothing)"

    def _read(self, output: IO[str]) -> None:
        for line in output:
            print(line, end="", flush=True)
            self._lines.append(line.rstrip("\n"))


def _end_session(process: subprocess.Popen[str]) -> None:
    """End a program and its children: ask, then insist."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and _session(process.pid):
            process.poll()
            time.sleep(0.02)
    process.wait()


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """SIGTERM and SIGINT that come during the block are handled after it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    came: list[int] = []
    both = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda came_in, _: came.append(came_in)) for number in both}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for missed in came:
        signal.raise_signal(missed)


def _session(session: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(path.parent.name))
    return found


def _session_mib(session: int) -> float:
    """Memory of all processes of a session; what several share counts once (proportional set size)."""
    kib = 0
    for pid in _session(session):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib / 1024

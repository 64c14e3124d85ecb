"""`bench run` on a terminal of 30 lines and 110 columns: what people see while it goes on, and after Ctrl-C."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))

LINES, COLUMNS = 30, 110
PATIENCE_SECONDS = 120
GAP = r"(?:\x1b\[0m| )+"
"""Between two columns, of which the first is coloured."""


class Terminal:
    """A command on a pseudo-terminal of its own, which it controls."""

    def __init__(self, *arguments: str | Path) -> None:
        self.main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        hidden = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from ddbench.benchmark.commands.cli import main; main()", *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)
        self.text = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)

    def read_until(self, pattern: str | None) -> str:
        """All that was written so far, once it has the pattern; None: once the command has ended."""
        end = time.monotonic() + PATIENCE_SECONDS
        while pattern is None or not re.search(pattern, plain(self.text)):
            assert time.monotonic() < end, plain(self.text)
            if not select.select([self.main], [], [], 0.2)[0]:
                continue
            try:
                some = os.read(self.main, 65536)
            except OSError:  # how Linux says that nobody has the other end any more
                some = b""
            if not some:
                assert pattern is None, plain(self.text)
                break
            self.text += some.decode(errors="replace")
        return self.text

    def press_ctrl_c(self) -> None:
        os.write(self.main, b"\x03")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


def bench_run(out: Path, protocol: str, *more: str) -> Terminal:
    what = ["run", "--method", "random", "--dataset", "digits", "--ipc", "1", "--repeats", "1", "--device", "cpu"]
    return Terminal(*what, "--protocol", protocol, "--out", out, *more)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, int]]:
    """(results folder, what the terminal got, exit code) of a run of two sets and their students."""
    out = tmp_path_factory.mktemp("terminal") / "runs"
    # One at a time: of two students side by side, both may end between two drawings.
    with bench_run(out, "quick[epochs=600]", "--seeds", "0-1", "--jobs", "1") as terminal:
        text = terminal.read_until(None)
        yield out, text, terminal.process.wait()


def test_cells_appear_run_and_end_in_colour(ran: Any) -> None:
    _, text, code = ran
    assert code == 0, plain(text)
    title = r"distill random · digits · IPC 1 · set 0"
    assert re.search(rf"running +{title}", plain(text))
    assert re.search(rf"\x1b\[32mdone{GAP}{title}", text), "ended well is green"
    assert re.search(r"running +train random · digits · IPC 1 · set 0 · \S+ seed 0 .*epoch \d+/600", plain(text))
    assert re.search(r"done +train random · digits · IPC 1 · set 1 · .*accuracy \d+\.\d\d %", plain(text))
    assert re.search(r"[123]/4 cells · .*[123] done", plain(text))
    assert re.search(r"3/4 cells · .* · about .+ left", plain(text)), "both stages have a pace by then"


def test_the_epochs_and_the_count_only_rise(ran: Any) -> None:
    text = plain(ran[1])
    epochs = [int(found) for found in re.findall(r"set 0 · \S+ seed 0 .*epoch (\d+)/600", text)]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 1, "it was seen to go on"
    counts = [int(found) for found in re.findall(r"(\d)/4 cells", text)]
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_the_view_is_drawn_in_place_and_stays_within_the_terminal(ran: Any) -> None:
    text = ran[1]
    assert "\x1b[1A" in text, "the cursor goes up over what was there"
    frames = re.split(r"(?:\x1b\[1A\x1b\[2K)+", text)
    assert len(frames) > 5
    for frame in frames[1:-1]:
        lines = plain(frame).split("\n")
        assert len(lines) <= LINES
        assert all(len(line) <= COLUMNS for line in lines), lines
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "4 cells" not in plain(text[text.rindex("\x1b[?25h") :]), "what comes after stands below"


def test_a_finished_run_says_what_it_reuses_and_draws_nothing(ran: Any) -> None:
    with bench_run(ran[0], "quick[epochs=600]", "--seeds", "0-1") as terminal:
        text = terminal.read_until(None)
    assert "2 distilled sets and 2 students: 4 reused" in plain(text)
    assert "\x1b[?25l" not in text


def test_ctrl_c_ends_cells_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with bench_run(tmp_path / "runs", "quick[epochs=100000]", "--seeds", "0") as terminal:
        terminal.read_until(r"running +train .*epoch [1-9]\d*/100000")
        terminal.press_ctrl_c()
        text = terminal.read_until(None)
        assert terminal.process.wait() == 130, plain(text)
    assert re.search(rf"\x1b\[33minterrupted{GAP}train random", text), "interrupted is yellow"
    assert "Interrupted. The same command goes on where this run stopped." in plain(text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "Traceback" not in text
    with bench_run(tmp_path / "runs", "quick[epochs=100000]", "--seeds", "0") as terminal:
        text = terminal.read_until(r"running +train .*epoch [1-9]\d*/100000")
        assert "1/2 cells · 1 running, 1 reused" in plain(text)
        terminal.press_ctrl_c()
        terminal.press_ctrl_c()  # at once
        text = terminal.read_until(None)
        assert terminal.process.wait() == 130, plain(text)
    assert "Traceback" not in text

"""docs/adding-a-method.md works as written: its files are made and its commands run, in order, with short training."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddbench.benchmark.commands import cli
from ddbench.benchmark.core.registry import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)
SHORT = ["--protocol", "quick[epochs=1]", "--device", "cpu", "--seeds", "0"]
"""For commands that train students."""


def steps() -> Iterator[tuple[str, str]]:
    """(file name, its text) and ("$", command) in the page's order."""
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            first, _, rest = text.partition("\n")
            yield first.removeprefix("# "), rest
        else:
            for line in text.splitlines():
                assert line.startswith("$ "), line
                yield "$", line[2:]


def run(command: str) -> str:
    """In this process, so that a long page does not pay for a dozen starts; cells run in theirs, as ever."""
    program, *arguments = shlex.split(command)
    if program == "python":
        assert arguments[:2] == ["-m", "pytest"]
        assert pytest.main([*arguments[2:], "-p", "no:cacheprovider"]) == pytest.ExitCode.OK
        return ""
    short = SHORT if arguments[0] in ("run", "tune") else []
    done = CliRunner().invoke(cli.app, [*arguments, *short])
    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; the page's method is registered for as long as the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def test_the_tutorial_runs_as_written(folder: Path) -> None:
    said: dict[str, str] = {}
    for name, text in steps():
        if name == "$":
            said[text] = run(text)
        else:
            assert (folder / name).exists(), "the page edits the files that `bench new-method` wrote"
            (folder / name).write_text(text)
    verbs = [command.split()[:2] for command in said]
    assert [words[1] for words in verbs] == ["new-method", "check", "-m", "run", "leaderboard", "run", "tune"]
    check, _, _, table, dry, tuned = list(said.values())[1:]
    assert "13 passed, 0 failed, 0 skipped" in check
    for row in ("mean-shift", "random", "full"):
        assert f"| {row}" in table.replace("†", ""), table
    assert "mean-shift[shift=0.5]" in dry
    assert "shift=0" in tuned

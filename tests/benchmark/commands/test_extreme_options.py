"""Every numeric option of every command at and beyond its limits, and named pipes as every input: no traceback."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fuzzing import held

from ddbench.benchmark.commands import cli
from ddbench.benchmark.commands.builtin import ENTRIES

VALUES = ("0", "-1", "9223372036854775808", "1" + "0" * 400, "nan", "inf", "-inf", "1e400", "5e-324", "")
PLANNED = ("--dataset", "digits", "--ipc", "1", "--seeds", "0", "--dry-run")
ENOUGH: dict[str, tuple[str, ...]] = {
    "run": ("--method", "random", *PLANNED, "--repeats", "1"),
    "distill": ("--method", "random", *PLANNED),
    "eval": ("--images", "nothing", "--dataset", "digits", "--dry-run"),
    "tune": ("herding", "--trials", "2", "--param", "epochs=1..3:log", *PLANNED),
    "compare": ("dmgd", "random"),
    "train-prior": ("--dataset", "nothing", "--out", "prior", "--steps", "1"),
    "train-teacher": ("--dataset", "nothing"),
    "prepare": ("nothing",),
    "verify-results": ("RUNS",),
    "quality": ("--show",),
    "report": ("--to", "site"),
}
"""What else a command is told, so that its work is small or is refused for another reason."""
WRITTEN = {"run": ("ipc", "seeds"), "distill": ("ipc", "seeds"), "tune": ("ipc", "seeds"), "leaderboard": ("ipc",)}
"""Options with numbers in their text."""


def numeric() -> Iterator[Any]:
    for entry in ENTRIES:
        module, attribute = entry.target.split(":")
        command = typer.main.get_command(getattr(importlib.import_module(module), attribute))
        for option in command.params:
            declared = option.type_descriptor.annotation
            if declared in (int, float) or option.name in WRITTEN.get(entry.name, ()):
                name = next(spelled for spelled in option.opts if spelled.startswith("--"))
                yield pytest.param(entry.name, name, id=f"{entry.name} {name}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.reports.conftest import Folder

    folder = Folder(tmp_path_factory.mktemp("few") / "runs")
    for method, accuracy in (("dmgd", 60.0), ("random", 50.0)):
        folder.method(method, [[accuracy], [accuracy + 1]])
    return Path(folder.out)


def bench(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit status, what was said) of a command in this process; any exception but its own two passes through."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with held("a command"), pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    return int(ended.value.code or 0), said.out + said.err


@pytest.mark.parametrize(("command", "option"), list(numeric()))
def test_numbers_at_and_beyond_their_limits(
    command: str,
    option: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(runs) if word == "RUNS" else word for word in ENOUGH.get(command, ())]
    if command in ("leaderboard", "compare", "report", "quality"):
        given += ["--runs", str(runs)]
    if option in given:
        del given[(at := given.index(option)) : at + 2]
    for value in VALUES:
        status, said = bench([command, *given, f"{option}={value}"], monkeypatch, capfd)
        assert status in (0, 1, 2), said
        assert status == 2 or value not in ("1e400", "nan", "inf", "-inf", ""), (value, said)
        assert max(map(len, said.splitlines()), default=0) < 2000, value


PIPES = {
    "a study": ("run", "--config", "PIPE.yaml", "--dry-run"),
    "a plugin": ("list", "methods", "--plugin", "PIPE.py"),
    "a prior": ("run", "--method", "dit", "--prior", "./PIPE.pt", *PLANNED),
    "a dataset": ("run", "--method", "random", "--dataset", "woof", "--data", "PIPE.tar", "--dry-run"),
    "images": ("eval", "--images", "PIPE.pt", "--dataset", "digits", "--dry-run"),
    "an order of classes": ("eval", "--images", "SET", "--dataset", "digits", "--class-order", "PIPE.txt", "--dry-run"),
    "results": ("leaderboard", "--runs", "PIPE"),
    "a bundle": ("merge", "PIPE.tar.zst", "--runs", "new"),
    "figures": ("figures", "--runs", "RUNS", "--to", "PIPE"),
    "a site": ("report", "--runs", "RUNS", "--to", "PIPE"),
}


@pytest.mark.parametrize("what", PIPES)
def test_a_named_pipe_is_no_input(
    what: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who opens one waits for ever."""
    monkeypatch.chdir(tmp_path)
    words = [{"RUNS": str(runs), "SET": "set"}.get(word, word) for word in PIPES[what]]
    (tmp_path / "set" / "0").mkdir(parents=True)
    os.mkfifo(next(word for word in words if "PIPE" in word))
    status, said = bench(words, monkeypatch, capfd)
    assert status in (1, 2), said
    assert "PIPE" in said
    assert "Traceback" not in said

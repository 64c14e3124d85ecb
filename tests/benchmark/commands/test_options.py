"""The options of the command line are those of `RunSpec`, and reading commands name the folder that they read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ddbench.benchmark.commands.cli import app
from ddbench.benchmark.commands.options import run_options
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.planning.run_spec import RunSpec

OPTIONS = {"methods": "--method", "datasets": "--dataset", "plugins": "--plugin"}
SHIFTED = {"test_on", "test_data"}
STUDENTS = {"repeats", "protocol", "student", "teacher", "per_gpu"} | SHIFTED
READING = ("leaderboard", "compare a b", "status", "report", "robust", "figures", "quality")


def shown(*command: str) -> str:
    ran = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert ran.exit_code == 0
    return ran.output


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("run", set()),
        ("distill", STUDENTS),
        ("eval", {"methods", "seeds", "prior", "precision", "set", "shards", "batch_size"}),
        (
            "tune",
            {"methods", "engine", "address", "shards", "batch_size", "timeout", "reuse", "retry_failed", "track"}
            | SHIFTED,
        ),
    ],
)
def test_every_field_is_an_option_with_its_help(command: str, without: set[str]) -> None:
    text = shown(command)
    for name in RunSpec.model_fields:
        option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        assert (f" {option} " in text) == (name not in without), option
    if command == "run":
        squeezed = " ".join(text.replace("│", " ").split())
        for name, field in RunSpec.model_fields.items():
            assert field.description is not None, name
            assert field.description in squeezed, name  # brackets and all


def test_what_is_given_gets_there_under_its_fields_name() -> None:
    got: list[dict[str, Any]] = []
    made = typer.Typer()

    @made.command()
    @run_options(without=("methods",))
    def command(given: dict[str, Any], own: int = 3) -> None:
        got.append({**given, "own": own})

    words = "-d digits,woof -d nette --ipc 1-3 --set a=1 --set b=x -j 2 --timeout 1.5 --plugin p.py --retry-failed"
    assert CliRunner().invoke(made, words.split(), catch_exceptions=False).exit_code == 0
    assert got == [
        {
            "datasets": ["digits,woof", "nette"], "ipc": "1-3", "set": {"a": 1, "b": "x"}, "jobs": 2, "timeout": 1.5,
            "plugins": [Path("p.py")], "retry_failed": True, "own": 3,
        }
    ]  # fmt: skip
    spec = RunSpec.model_validate({**{key: value for key, value in got[0].items() if key != "own"}, "methods": "dit"})
    assert (spec.datasets, spec.ipc, spec.jobs) == (["digits", "woof", "nette"], [1, 2, 3], 2)


@pytest.mark.parametrize("command", READING)
def test_reading_commands_take_the_folder_as_runs_and_for_one_release_as_out(command: str, tmp_path: Path) -> None:
    assert " --runs " in shown(*command.split())
    assert " --out " not in shown(*command.split())
    for option in (["--runs", str(tmp_path)], ["--out", str(tmp_path)], [f"--out={tmp_path}"]):
        ran = CliRunner().invoke(app, [*command.split(), *option])
        assert isinstance(ran.exception, UsageError), ran.output
        assert "holds no results" in str(ran.exception)
        note = f"bench {command.split()[0]}: --out is now called --runs here; --out will go\n"
        assert ran.stderr == (note if option[0].startswith("--out") else "")


@pytest.mark.parametrize("module", ["ddbench", "ddbench.benchmark.commands.cli"])
def test_the_modules_run_the_program(module: str) -> None:
    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-P", "-m", module, *arguments], capture_output=True, text=True)

    assert "random" in bench("list", "methods").stdout
    refused = bench("list", "methods", "rndom")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: unknown method 'rndom'")

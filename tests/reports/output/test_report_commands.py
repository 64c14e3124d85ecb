"""`bench leaderboard` and `bench status` as a user types them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner

from ddbench.benchmark.commands.leaderboard import leaderboard_app
from ddbench.benchmark.commands.status import status_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import COMMANDS


def run(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def out(folder: Any) -> str:
    folder.method("dmgd", [[80.0], [82.0]], ipc=1)
    folder.method("dmgd", [[90.0], [92.0]], ipc=10)
    folder.method("random", [[70.0], [72.0]], ipc=10)
    return str(folder.out)


def test_registered_commands_load() -> None:
    assert COMMANDS.load("leaderboard") is leaderboard_app
    assert COMMANDS.load("status") is status_app


def test_leaderboard_in_every_format(out: str) -> None:
    assert "digits (default split) · IPC 10" in run(leaderboard_app, "--runs", out)
    assert run(leaderboard_app, "--runs", out, "--format", "markdown").startswith(
        "### digits (default split) · IPC 1 ·"
    )
    lines = list(csv.DictReader(io.StringIO(run(leaderboard_app, "--runs", out, "--format", "csv"))))
    assert [(line["ipc"], line["method"]) for line in lines] == [("1", "dmgd"), ("10", "dmgd"), ("10", "random")]
    by_name = run(leaderboard_app, "--runs", out, "--format", "json")
    assert run(leaderboard_app, "--runs", out, "--json") == by_name
    assert [table["ipc"] for table in json.loads(by_name)["tables"]] == [1, 10]


@pytest.mark.parametrize("suffix", [".tex", ".parquet", ".csv", ".md", ".json"])
def test_a_file_gets_what_its_suffix_says(out: str, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "new" / f"board{suffix}"
    assert run(leaderboard_app, "--runs", out, "--to", str(file)) == ""
    content = file.read_bytes()
    if suffix == ".parquet":
        assert parquet.read_table(io.BytesIO(content)).num_rows == 3
    else:
        name = {".tex": "latex", ".md": "markdown"}.get(suffix, suffix[1:])
        assert content.decode() == run(leaderboard_app, "--runs", out, "--format", name)


def test_latex_wide_goes_to_a_tex_file(out: str, tmp_path: Path) -> None:
    file = tmp_path / "board.tex"
    run(leaderboard_app, "--runs", out, "--to", str(file), "--format", "latex-wide")
    assert "IPC 1}" in file.read_text()
    assert file.read_text() == run(leaderboard_app, "--runs", out, "--format", "latex-wide")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "board.xls"], "board.xls: expected a file name that ends with .md, .csv, .json, .tex, .parquet"),
        (["--to", "board.csv", "--format", "latex"], "its suffix says csv, but --format says latex"),
        (["--format", "parquet"], "name a file with --to FILE.parquet"),
        (["--mean-rank", "--format", "csv"], "--mean-rank and --how-many are written as terminal or json, not as csv"),
    ],
)
def test_files_that_cannot_be_written_as_asked(out: str, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        run(leaderboard_app, "--runs", out, *arguments)


def test_filters(out: str) -> None:
    shown = json.loads(run(leaderboard_app, "--runs", out, "--ipc", "2-20", "--protocol", "quick", "--json"))
    assert [table["ipc"] for table in shown["tables"]] == [10]
    cells = json.loads(run(status_app, "--runs", out, "--ipc", "1", "--json"))["cells"]
    assert {cell["ipc"] for cell in cells} == {1}
    assert "4 cells: 4 ok" in run(status_app, "--runs", out, "--ipc", "1", "--student", "convnet3")


@pytest.mark.parametrize("app", [leaderboard_app, status_app])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "nowhere"], "nowhere holds no results"),
        (["--ipc", "ten"], "--ipc: expected whole numbers"),
        (["--dataset", "woof"], "matches these filters. There is: --dataset digits; --ipc 1, 10"),
    ],
)
def test_mistakes_are_usage_errors(app: typer.Typer, out: str, arguments: list[str], message: str) -> None:
    given = arguments if "--runs" in arguments else ["--runs", out, *arguments]
    with pytest.raises(UsageError, match=message):
        typer.main.get_command(app)(given, standalone_mode=False)


def test_an_unknown_format_is_refused(out: str) -> None:
    assert CliRunner().invoke(leaderboard_app, ["--runs", out, "--format", "xml"]).exit_code == 2


def test_torch_is_never_imported_and_pandas_only_for_frames(out: str) -> None:
    # A leaderboard on the terminal answers at once; pandas takes half a second, which a file may cost.
    program = """
import sys
from typer.main import get_command
from ddbench.benchmark.commands.leaderboard import leaderboard_app
from ddbench.benchmark.commands.status import status_app
get_command(leaderboard_app)(["--runs", sys.argv[1], "--json"], standalone_mode=False)
get_command(leaderboard_app)(["--runs", sys.argv[1]], standalone_mode=False)
get_command(status_app)(["--runs", sys.argv[1]], standalone_mode=False)
early = {"matplotlib", "pyarrow", "scipy.stats"} & set(sys.modules)
assert not early, early
import pathlib, ddbench.reports, importlib
for room in ("results", "tables", "analyses", "output"):
    for module in pathlib.Path(ddbench.reports.__path__[0], room).rglob("*.py"):
        place = module.relative_to(ddbench.reports.__path__[0]).with_suffix("").parts
        importlib.import_module(".".join(["ddbench.reports", *place]))
assert "pandas" not in sys.modules
get_command(leaderboard_app)(["--out", sys.argv[1], "--format", "csv"], standalone_mode=False)
assert "pandas" in sys.modules
heavy = {"torch", "torchvision", "diffusers", "sklearn", "timm"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_output_to_a_file_gets_the_whole_table(out: str) -> None:
    program = "from ddbench.benchmark.commands.leaderboard import leaderboard_app as a; a()"
    # Given explicitly: readline, which pytest loads, sets COLUMNS behind Python's back.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "--runs", out],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert "Too narrow" not in done.stdout
    assert "host MiB" in done.stdout
    assert "\x1b" not in done.stdout

"""Leaderboards by cost as people and programs read them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from rich.console import Console
from typer.testing import CliRunner

import ddbench
from ddbench.benchmark.commands.leaderboard import leaderboard_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.reports.output import cost_text
from ddbench.reports.results import rows
from ddbench.reports.tables.cost_board import By, CostAxis, CostBoard, CostRow, cost_board
from ddbench.reports.tables.leaderboard import build

NASTY = "a|b`c`<script>alert(1)</script>[red]x[/red](http://e.vil)"


@pytest.fixture
def out(folder: Any) -> Path:
    """A front of two, one behind, a reference, one of another machine, and images of unknown cost."""
    for index, (name, accuracy) in enumerate({"random": 60, "dmgd[ot_scale=0.05,steps=5]": 85, NASTY: 50}.items()):
        made = {"cost": folder.cost(10.0**index, 12 * 10.0**index), "image_bytes": 5000 * (index + 1)}
        folder.method(name, [[accuracy - 1.0], [accuracy + 1.0]], distill=made, params={"x": index})
    folder.method("full", [[99.0]], ipc=None, distill={"cost": folder.cost(0.5), "image_bytes": 500_000})
    folder.environment = {"hardware": {"cpu": "Another CPU", "gpus": []}, "device": "cpu"}
    folder.method("elsewhere", [[70.0], [71.0]])
    folder.student(folder.evaluate_spec("ef" * 32), "mine", 70.0, images="ef" * 32)
    return Path(folder.out)


def board(out: Path, by: By) -> CostBoard:
    return cost_board(build(rows.read(out)), by)


def terminal(found: CostBoard, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    cost_text.print_terminal(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("by", ["cost", "bytes"])
@pytest.mark.parametrize("width", [160, 100, 80, 60])
def test_no_line_is_wider_than_the_terminal_and_every_row_is_there(out: Path, width: int, by: By) -> None:
    shown = terminal(board(out, by), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for row in (row for table in board(out, by).tables for axis in table.axes for row in axis.rows):
        assert row.acc_last is not None
        assert f"{row.acc_last.mean:.2f}" in shown
        assert row.method[:10] in shown


def test_hardware_is_said_and_what_is_not_known_is_listed(out: Path) -> None:
    shown = terminal(board(out, "cost"), 160)
    assert "CPU hours on Testing CPU, 1 thread" in shown
    assert "CPU seconds on Another CPU, 1 thread" in shown
    assert "On no axis:" in shown
    assert "mine" in shown.partition("On no axis:")[2].partition("Cost:")[0]
    assert "made elsewhere: what distilling it cost is not recorded" in shown


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def run(*arguments: str) -> str:
    ran = CliRunner().invoke(leaderboard_app, list(arguments), catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("by", ["cost", "bytes"])
def test_every_format_has_every_row(out: Path, tmp_path: Path, by: str) -> None:
    common = ["--runs", str(out), "--by", by]
    assert "Pareto front" in run(*common)
    lines = lines_of(run(*common, "--format", "csv"))
    assert len(lines) == 6
    found = CostBoard.model_validate_json(run(*common, "--json"))
    (table,) = found.tables
    rows_of = [*(row for axis in table.axes for row in axis.rows), *table.not_placed]
    assert [line["method"].removeprefix("'") for line in lines] == [row.method for row in rows_of]
    assert [line["standing"] for line in lines] == [row.standing for row in rows_of]
    run(*common, "--to", str(tmp_path / "costs.parquet"))
    assert parquet.read_table(tmp_path / "costs.parquet").num_rows == 6
    markdown = run(*common, "--format", "markdown")
    assert markdown.startswith("### digits (default split) · IPC 10 ·")
    assert not re.search(r"(?<!\\)<", markdown), "Markdown takes no name for a tag"
    (nasty,) = (line for line in markdown.splitlines() if line.startswith("| a\\|b"))
    head = next(line for line in markdown.splitlines() if line.startswith("| method"))
    assert nasty.count(" | ") == head.count(" | "), "a name makes no column"


def test_python_has_the_table_too(out: Path) -> None:
    frame = ddbench.costs(out, by="bytes")
    lines = lines_of(run("--runs", str(out), "--by", "bytes", "--format", "csv"))
    assert list(frame["method"]) == [line["method"] for line in lines]
    with pytest.raises(UsageError, match="by='hours': expected cost or bytes"):
        ddbench.costs(out, by="hours")  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "cost", "--mean-rank"], "--by, --mean-rank and --how-many each show something else"),
        (["--mean-rank", "--how-many", "2"], "each show something else"),
        (["--by", "cost", "--best"], "--by does not go with --best"),
        (["--by", "bytes", "--format", "latex"], "--by is not written as latex"),
        (["--by", "bytes", "--to", "board.tex"], "--by is not written as latex"),
    ],
)
def test_what_does_not_go_together_is_refused(out: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(leaderboard_app, ["--runs", str(out), *arguments], catch_exceptions=False)


def test_an_empty_folder_says_so(folder: Any) -> None:
    assert "No evaluations yet" in run("--runs", str(folder.out), "--by", "cost")
    assert json.loads(run("--runs", str(folder.out), "--by", "cost", "--json"))["tables"] == []


@pytest.mark.parametrize(
    ("unit", "device", "amounts", "name", "texts"),
    [
        ("seconds", "cuda", [7200.0, 1.0], "GPU h", ["2.00", "0.000278"]),
        ("seconds", "cuda", [359.0, 0.04], "GPU s", ["359", "0.0400"]),
        ("seconds", "cpu", [360.0], "CPU h", ["0.100"]),
        ("bytes", None, [1061.0, 0.0], "bytes", ["1,061", "0"]),
        ("bytes", None, [10_240.0, 512.0], "KiB", ["10.0", "0.500"]),
        ("bytes", None, [3 * 1024.0**3, 1.0], "MiB", ["3,072", "9.54e-07"]),
        ("bytes", None, [1e15], "GiB", ["931,323"]),
    ],
)
def test_units_suit_the_dearest_row(
    unit: Any, device: str | None, amounts: list[float], name: str, texts: list[str]
) -> None:
    members = [
        CostRow(id="x", method="x", reference=False, done=1, expected=1, acc_last=None, amount=amount)
        for amount in amounts
    ]
    found = cost_text.unit_of(CostAxis(unit=unit, device=device, hardware=None, rows=members))
    assert (found.name, [found.text(amount) for amount in amounts]) == (name, texts)

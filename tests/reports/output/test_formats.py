"""Terminal, Markdown, CSV and JSON say the same, and nothing in a results folder can spoil them."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ddbench.benchmark.core.result import TeacherRecord
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.reports.output import formats
from ddbench.reports.output.files import as_csv, as_json
from ddbench.reports.results import rows
from ddbench.reports.tables.frames import leaderboard_frame
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.views import Leaderboard

NASTY = "a|b`c`<script>alert(1)</script>[red]x[/red](http://e.vil)"


@pytest.fixture
def board(folder: Any) -> Leaderboard:
    """Two IPCs, long names, ties, an incomplete row, a failed one, references, hostile names, and a lost file."""
    rng = np.random.default_rng(0)

    def answers(accuracy: float, n: int) -> list[list[np.ndarray]]:
        return [[rng.random(500) < accuracy for _ in range(2)] for _ in range(n)]

    for ipc in (1, 10):
        folder.method("dmgd", answers(0.9, 3), ipc=ipc, distill={"cost": folder.cost(12.0, 1234.5)})
        folder.method("dmgd[ot_scale=0.05,semantic_window=0.75]", answers(0.8, 3), ipc=ipc, params={"x": 1})
        folder.method("random", answers(0.5, 3), ipc=ipc)
        folder.method("random-first", answers(0.5, 1), ipc=ipc)
    folder.method("full", answers(0.99, 1), ipc=None)
    failed = folder.distill_spec("mgd3")
    folder.plan("mgd3", failed, students=2)
    folder.distill(failed, "mgd3", status="oom", reason="out of memory")
    folder.student(folder.evaluate_spec("ef" * 32), NASTY, 70.0, images="ef" * 32)
    (folder.store.cells / "lost").mkdir()
    return build(rows.read(folder.out))


def terminal(board: Leaderboard, width: int, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    formats.print_terminal(board, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [160, 120, 100, 80, 60])
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_cut(board: Leaderboard, width: int) -> None:
    shown = terminal(board, width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for table in board.tables:
        for row in table.rows:
            if row.acc_last is not None:
                assert f"{row.acc_last.mean:.2f}" in shown
    assert ("Too narrow for" in shown) == (width <= 100)


def test_columns_go_by_what_they_matter(board: Leaderboard) -> None:
    def headers(width: int) -> str:
        return next(line for line in terminal(board, width).splitlines() if line.startswith("#"))

    assert "host MiB" in headers(120)
    assert "host MiB" not in headers(100)
    assert "distill s" in headers(100)
    assert "95 % interval" in headers(80)
    for width in (120, 100, 80, 60):
        assert "acc %" in headers(width)
        assert "gap %" in headers(width)


def test_a_published_number_stays_longer_than_a_column_with_nothing_in_it(tmp_path: Any, make_folder: Any) -> None:
    """Without `full` there is no gap: its dashes had the room of what the paper says."""
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    given = {"protocol": resolve_protocol("hard-minimax-sgd")[1], "student": "resnet_ap10"}
    folder.method("random", [[30.0, 31.0], [29.0, 30.0], [30.5, 29.5]], **given)
    folder.method("herding", [[32.0, 33.0], [31.0, 32.0], [32.5, 31.5]], **given)
    shown = terminal(build(rows.read(folder.out)), 80)
    assert "29.4 ± 0.8" in shown
    assert "gap %" in shown.partition("Too narrow for:")[2]
    assert "gap %" not in shown.partition("Too narrow for:")[0]


def test_names_fold_after_commas() -> None:
    name = "dmgd[ot_scale=0.05,semantic_window=0.75]"
    assert formats.folded(name, 100) == name
    assert formats.folded(name, 22).split("\n") == ["dmgd[ot_scale=0.05,", "semantic_window=0.75]"]
    assert formats.folded("x" * 25, 10).split("\n") == ["x" * 10, "x" * 10, "x" * 5]
    assert formats.folded(name, 0) == ""


def test_terminal_shows_markup_as_text_and_is_plain_off_a_terminal(board: Leaderboard) -> None:
    shown = terminal(board, 200)
    assert NASTY in shown
    assert "\x1b" not in shown


def test_terminal_shows_ranges_of_ranks_references_and_problems(board: Leaderboard) -> None:
    shown = terminal(board, 120)
    lines = shown.splitlines()
    assert any(re.match(r"\d–\d +random ", line) for line in lines)
    assert any(re.match(r"ref +full †", line) for line in lines)
    assert any(re.match(r"– +mgd3 .*0/2", line) for line in lines)
    assert "1,234 (12.0)" in shown
    assert "Left out (1):" in shown
    assert "lost: no cell: there is no spec.json in it" in " ".join(shown.split())


def test_best_adds_what_papers_report(board: Leaderboard) -> None:
    assert "best acc %" not in terminal(board, 160)
    assert "best acc %" in terminal(board, 160, best=True)
    assert "best acc %" in formats.markdown(board, best=True)


def test_an_empty_folder_says_what_to_do(folder: Any) -> None:
    assert "No evaluations yet" in terminal(build(rows.read(folder.out)), 80)


def test_markdown_tables_are_rectangular_whatever_the_names(board: Leaderboard) -> None:
    text = formats.markdown(board)
    assert text.count("### digits") == len(board.tables) == 2
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.M)
    assert len(tables) == 2
    for drawn, table in zip(tables, board.tables, strict=True):
        widths = [len(re.findall(r"(?<!\\)\|", line)) for line in drawn.strip().splitlines()]
        assert len(set(widths)) == 1
        assert len(widths) == len(table.rows) + 2
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert not re.search(r"(?<!\\)\](?<!\\)\(", text)


def test_csv_holds_every_row_unrounded(board: Leaderboard) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(leaderboard_frame(board)))))
    expected = [(table, row) for table in board.tables for row in table.rows]
    assert len(lines) == len(expected)
    for line, (table, row) in zip(lines, expected, strict=True):
        assert line["method"] == row.method
        assert line["ipc"] == str(table.ipc)
        assert line["done"] == str(row.done)
        mean = None if row.acc_last is None else row.acc_last.mean
        assert (float(line["acc_last_mean"]) if line["acc_last_mean"] else None) == mean
        gap = float(line["gap_closed_percent"]) if line["gap_closed_percent"] else None
        assert gap == row.gap_closed_percent


def test_csv_of_nothing_is_a_header(folder: Any) -> None:
    header = as_csv(leaderboard_frame(build(rows.read(folder.out))))
    folder.method("dmgd", [[80.0], [82.0]])
    assert as_csv(leaderboard_frame(build(rows.read(folder.out)))).splitlines(keepends=True)[0] == header


def test_json_is_the_board(board: Leaderboard) -> None:
    text = as_json(board)
    assert Leaderboard.model_validate_json(text) == board
    assert json.loads(text)["schema_version"] == 1


def test_what_labels_cost_is_shown_where_there_is_any(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [82.0]])
    assert "teacher" not in terminal(build(rows.read(folder.out)), 200)
    teacher = TeacherRecord(network="convnet3", sha256="ab" * 32, accuracy=90.0, accuracy_of="test", recipe={})
    for file in folder.out.glob("cells/evaluate-*/result.json"):
        told = {"teacher": teacher.model_dump(), "images_seen": 12_345, "stored_label_bytes": 67_890}
        file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    found = build(rows.read(folder.out))
    for shown in (terminal(found, 200), formats.markdown(found)):
        assert "teacher passes" in shown
        assert "label bytes" in shown
        assert "12,345" in shown.partition("Labels: the teacher")[0]
        assert "67,890" in shown.partition("Labels: the teacher")[0]


def test_labels_that_came_and_were_not_used_are_in_brackets(folder: Any) -> None:
    folder.student(folder.evaluate_spec("ef" * 32), "mine", 70.0, images="ef" * 32)
    (file,) = folder.out.glob("cells/evaluate-*/result.json")
    soft = {"source": "x", "used": False, "sha256": "aa" * 32, "kind": "logits", "label_bytes": 5000}
    file.write_text(json.dumps({**json.loads(file.read_text()), "soft_labels": soft}))
    shown = formats.markdown(build(rows.read(folder.out)))
    assert "| (5,000) |" in shown
    assert "label bytes in brackets: came with its images and were not used." in shown

"""Where each cell stands, for people and programs."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from ddbench.benchmark.cells.failures import write_failure
from ddbench.benchmark.core.spec import ProtocolSpec
from ddbench.benchmark.core.store import Launch
from ddbench.reports.output import status
from ddbench.reports.output.files import as_json
from ddbench.reports.results import rows


def build(folder: Any) -> status.Status:
    return status.build(rows.read(folder.out))


def terminal(found: status.Status, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    status.print_terminal(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_cell_stands_somewhere_in_the_order_of_the_plan(folder: Any) -> None:
    done, waiting = folder.distill_spec("zz", seed=0), folder.distill_spec("zz", seed=1)
    folder.plan("zz", done, students=2)
    made = folder.distill(done, "zz", cost=folder.cost(7.5, attempts=3))
    folder.student(folder.evaluate_spec(done, seed=0), "zz", 80.0, images=made, made_by=done)
    folder.method("aa", [[70.0]])
    folder.plan("zz", waiting, students=1)
    found = build(folder)
    assert {(c.label, c.kind, c.distill_seed, c.evaluate_seed, c.state, c.planned) for c in found.cells} == {
        ("zz", "distill", 0, None, "ok", True),
        ("zz", "evaluate", 0, 0, "ok", True),
        ("zz", "evaluate", 0, 1, "absent", True),
        ("zz", "distill", 1, None, "absent", True),
        ("zz", "evaluate", 1, 1000, "absent", True),
        ("aa", "distill", 0, None, "ok", False),
        ("aa", "evaluate", 0, 0, "ok", False),
    }
    assert [c.label for c in found.cells][-2:] == ["aa", "aa"]
    for student in (c for c in found.cells if c.kind == "evaluate"):
        earlier = [c for c in found.cells[: found.cells.index(student)] if c.kind == "distill"]
        assert (earlier[-1].label, earlier[-1].distill_seed) == (student.label, student.distill_seed)
    assert found.counts == {"ok": 4, "absent": 3}
    first = next(c for c in found.cells if c.attempts == 3)
    assert (first.kind, first.seconds) == ("distill", 7.5)
    assert "7 cells: 3 absent, 4 ok; no plan asks for 2 of them" in terminal(found)


def test_of_very_many_cells_those_that_need_no_look_are_counted(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MOST_CELLS", 5)
    for seed in (0, 1, 2):
        done = folder.distill_spec("zz", seed=seed)
        made = folder.distill(done, "zz", cost=folder.cost(6.0 + seed, attempts=1 + seed))
        folder.student(folder.evaluate_spec(done, seed=0), "zz", 80.0, images=made, made_by=done)
    waiting = folder.distill_spec("zz", seed=3)
    folder.plan("zz", waiting, students=1)
    write_failure(folder.store.add(folder.distill_spec("zz", seed=4), Launch(label="zz")), "failed", "no room")
    found = build(folder)
    assert len(found.cells) == 9  # programs get each
    lines = [line.split() for line in terminal(found).splitlines()]
    sets, students = (line for line in lines if line[:1] == ["ok"])
    assert sets == ["ok", "zz", "10", "0–2", "3", "7.00", "3", "cells"]
    assert students[-2:] == ["3", "cells"]
    assert sum(line[:2] == ["absent", "zz"] for line in lines) == 2
    assert sum(line[:2] == ["failed", "zz"] for line in lines) == 1
    assert "--every-cell" in terminal(found)
    console = Console(file=io.StringIO(), width=120)
    status.print_terminal(found, console, every_cell=True)
    assert isinstance(console.file, io.StringIO)
    each = console.file.getvalue()
    assert sum(line.startswith("ok") for line in each.splitlines()) == 6
    assert "--every-cell" not in each


def test_running_and_interrupted_cells_say_how_far_they_are(folder: Any) -> None:
    spec = folder.distill_spec()
    cell = folder.store.add(spec, Launch(label="dmgd"))
    (cell.path / "progress.json").write_text(
        json.dumps({"images_done": 30, "images_total": 100, "note": "k-means\x1b[2J"})
    )
    (cell.path / "spent.json").write_text(json.dumps({"attempts": 2, "seconds": {"prepare": 1.0, "distill": 2.5}}))
    student = folder.store.add(folder.evaluate_spec(spec), Launch(label="dmgd"))
    (student.path / "progress.json").write_text(json.dumps({"epoch": 5, "epochs": 60, "accuracy": 81.234}))
    with cell.lock():
        found = build(folder)
    first, second = found.cells
    assert (first.state, first.attempts, first.seconds) == ("running", 2, 3.5)
    assert (second.state, second.progress["epoch"]) == ("interrupted", 5)
    shown = terminal(found)
    assert "30/100 images · k-means" in shown
    assert "\x1b" not in shown
    assert "epoch 5/60 · 81.2 % so far" in shown


def test_broken_notes_of_a_dead_cell_are_passed_over(folder: Any) -> None:
    for seed, text in enumerate(("[1]", "{", '{"attempts": "x", "seconds": 3}', '{"images_total": "many"}')):
        cell = folder.store.add(folder.distill_spec(seed=seed), Launch(label="dmgd"))
        (cell.path / "spent.json").write_text(text)
        (cell.path / "progress.json").write_text(text)
    found = build(folder)
    assert [(c.attempts, c.seconds) for c in found.cells] == [(None, None)] * 4
    assert "4 interrupted" in terminal(found)


def test_reasons_stand_in_full_and_once(folder: Any) -> None:
    reason = "the first line\n" + "and a long second one " * 20
    spec = folder.distill_spec()
    made = folder.distill(spec)
    for seed in (1, 2):
        student = folder.evaluate_spec(spec, seed=seed)
        folder.student(student, "dmgd", 0.0, images=made, made_by=spec, status="failed", reason=reason)
    bad = folder.distill_spec("bad")
    folder.plan("bad", bad, students=3)
    folder.distill(bad, status="timeout", reason="took 60 s")
    shown = " ".join(terminal(build(folder)).split())
    assert shown.count("and a long second one " * 19) == 1
    assert shown.count("took 60 s") == 1
    assert "3 blocked" in shown


def test_unreadable_files_and_stale_students_are_shown(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    folder.distill(folder.distill_spec(), images="99" * 32)
    (folder.store.cells / "lost").mkdir()
    found = build(folder)
    assert found.counts == {"ok": 1, "stale": 1}
    shown = terminal(found)
    assert "stale: dmgd · digits · IPC 10 · set 0 · convnet3 0" in shown
    assert "Left out (1):" in shown


def test_only_what_differs_takes_a_column(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    header = terminal(build(folder)).splitlines()[:2]
    assert header[0].strip() == "digits · quick@1 · convnet3"
    assert "protocol" not in header[1]
    folder.method("dmgd", [[80.0]], protocol=ProtocolSpec(name="other", version=1, overrides={}, hash="44" * 32))
    header = terminal(build(folder)).splitlines()[:2]
    assert header[0].strip() == "digits · convnet3"
    assert "protocol" in header[1]


def test_lines_fit_the_terminal(folder: Any) -> None:
    folder.method(
        "dmgd[ot_scale=0.05,semantic_window=0.75]",
        [[80.0]],
        protocol=ProtocolSpec(name="hard-minimax-sgd", version=1, overrides={"epochs": 60}, hash="44" * 32),
    )
    folder.method("random", [[80.0]], student="resnet_ap10")
    for width in (120, 100, 80):
        assert max(map(len, terminal(build(folder), width).splitlines())) <= width


def test_on_a_narrow_terminal_no_cell_is_cut(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `12 cells` the end was missing, since names kept more room than there was."""
    monkeypatch.setattr(status, "MOST_CELLS", 3)
    for name in ("hard-minimax-sgd", "hard-igd-adamw"):
        other = ProtocolSpec(name=name, version=1, overrides={}, hash="44" * 32)
        folder.method("random-first", [[80.0, 81.0, 82.0]] * 3, protocol=other)
    for width in (120, 80):
        lines = [line.rstrip() for line in terminal(build(folder), width).splitlines()]
        assert [line.rpartition("   ")[2] for line in lines if line.startswith("ok")] == [
            "3 cells",
            "9 cells",
            "9 cells",
        ]


def test_json_round_trip(folder: Any) -> None:
    folder.method("dmgd", [[80.0]])
    found = build(folder)
    assert status.Status.model_validate_json(as_json(found)) == found


def test_an_empty_folder_has_no_cells(folder: Any) -> None:
    assert terminal(build(folder)).strip() == "0 cells"

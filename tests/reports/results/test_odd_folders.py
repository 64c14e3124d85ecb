"""Every report of results folders that nobody plans for: none fails, and each says something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddbench.benchmark.commands.compare import compare_app
from ddbench.benchmark.commands.figures import figures_app
from ddbench.benchmark.commands.leaderboard import leaderboard_app
from ddbench.benchmark.commands.quality import quality_app
from ddbench.benchmark.commands.report import report_app
from ddbench.benchmark.commands.status import status_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.spec import DistilledBy, ProtocolSpec
from ddbench.methods.dmgd.method import DMGD
from ddbench.reports.results import rows

HOSTILE = "</script><b>\"'&\\`*_|{}$%#^~ \u202e\u200b\x1b[31m\x00中文 ../../../x " + "l" * 300
EPOCHS = ProtocolSpec(name="quick", version=1, overrides={"epochs": 3}, hash="22" * 32)
ODD_PROTOCOL = ProtocolSpec(name=HOSTILE, version=1, overrides={HOSTILE: HOSTILE}, hash="33" * 32)


def empty(folder: Any) -> None:
    assert folder.store.cells.is_dir()


def one_method(folder: Any) -> None:
    folder.method("dmgd", [[80.0, 81.0]])


def one_set_each_without_predictions(folder: Any) -> None:
    folder.arrays = False
    folder.method("dmgd", [[80.0]])
    folder.method("random", [[70.0]])


def failed_sets_only(folder: Any) -> None:
    spec = folder.distill_spec("dmgd")
    folder.distill(spec, status="failed", reason="boom")
    folder.plan("dmgd", spec, 2)


def a_failed_shard(folder: Any) -> None:
    whole = folder.distill_spec("dmgd")
    for shard, status in zip(whole.shards(2), ("failed", "ok"), strict=True):
        folder.distill(shard, "dmgd", status=status, reason="boom" if status == "failed" else None)
    folder.plan("dmgd", whole, 2)


def foreign_images_only(folder: Any) -> None:
    for seed in range(2):
        folder.student(folder.evaluate_spec("ef" * 32, seed=seed), "mine", 60.0, images="ef" * 32)


def nothing_that_is_registered(folder: Any) -> None:
    folder.dataset = "nowhere"
    for name in ("alien", "other"):
        for ipc in (1, 10):
            folder.method(name, [[60.0], [62.0]], ipc=ipc, params={"a": 1, "b": "x"})


def the_whole_training_set_only(folder: Any) -> None:
    folder.method("full", [[99.0, 98.0]], ipc=None)


def hundred_and_thousand_classes(folder: Any) -> None:
    for dataset, classes, content_hash in (("imagenet-1k", 1000, "cc" * 32), ("imagenet-100", 100, "ab" * 32)):
        folder.dataset, folder.content_hash = dataset, content_hash
        folder.labels = np.arange(500) * 7 % classes
        for name, accuracy in (("dmgd", 61.0), ("random", 60.0)):
            folder.method(name, [[accuracy], [accuracy + 1]])


def tuning_runs_only(folder: Any) -> None:
    folder.dataset = "digits-validation"
    folder.method("dmgd", [[80.0]])


def shared_gpus(folder: Any) -> None:
    cost = folder.cost(5.0, exclusive_gpu=False, gpu_peak_allocated_mib=100.0)
    folder.method("dmgd", [[80.0], [81.0]], distill={"cost": cost})
    folder.method("random", [[70.0], [71.0]])


def stale_students_only(folder: Any) -> None:
    spec = folder.distill_spec("dmgd")
    folder.distill(spec, images="aa" * 32)
    folder.student(folder.evaluate_spec(spec), "dmgd", 80.0, images="bb" * 32, made_by=spec)


def hostile_names(folder: Any) -> None:
    for method in range(2):
        for seed in range(2):
            label = f"{HOSTILE}{method}"
            spec = folder.distill_spec(label, seed=seed, params={HOSTILE: HOSTILE})
            made = folder.distill(spec, label, guidance={HOSTILE: [0.1, 0.2]})
            for protocol in (EPOCHS, ODD_PROTOCOL):
                student = folder.evaluate_spec(spec, seed=1000 * seed, protocol=protocol, student=f"../{HOSTILE}")
                folder.student(student, label, 50.0 + seed + method, images=made, made_by=spec)
    folder.distill(folder.distill_spec("broken", seed=9), HOSTILE, status="failed", reason=HOSTILE)


def ids_that_lead_out(folder: Any) -> None:
    away = "../" * 5 + "away"
    spec = folder.evaluate_spec("ef" * 32)
    spec = spec.model_copy(update={"images": DistilledBy.model_construct(cell=away)})
    folder.student(spec, "mine", 60.0, images="ef" * 32)
    made_by = folder.distill_spec("dmgd")
    folder.distill(made_by, images=away)
    folder.student(folder.evaluate_spec(made_by), "dmgd", 60.0, images=away, made_by=made_by)


def numbers_beyond_reason(folder: Any) -> None:
    """Costs below zero, and values that are none; of one method in each file, so that something is left to draw."""
    folder.method("dmgd", [[0.0], [0.0]], distill={"cost": folder.cost(-3.0)})
    folder.method("random", [[90.0], [91.0]], distill={"cost": folder.cost(0.0)})
    folder.method("dit", [[50.0], [60.0]])
    for cell in folder.store.cell_dirs():
        file = cell.path / "result.json"
        noted = json.loads(file.read_text())
        if noted["kind"] == "distill":
            noted["guidance"] = {"transport": [float("nan"), float("-inf")]}
        elif noted["label"] == "random":
            noted["metrics"]["curve"] = [{"epoch": 1, "accuracy": float("nan"), "train_loss": float("inf")}]
        file.write_text(json.dumps(noted))


def sweeps_without_an_axis(folder: Any) -> None:
    params = DMGD.Params().model_dump(mode="json")
    for value in (0.05, 1e308, 10**400):
        folder.method(f"dmgd[{str(value)[:9]}]", [[60.0], [61.0]], params={**params, "ot_scale": value})
    for value in (True, None, "x", 3):
        folder.method(f"dmgd[{value}]", [[60.0], [61.0]], params={**params, "semantic_matching": value})


def parameters_that_cannot_be_opened(folder: Any) -> None:
    """A validator that looks for the file of a user who is not here raises what nobody expects."""
    folder.method("herding", [[60.0], [61.0]], params={"checkpoint": "~nobody-of-that-name/weights.pt"})


def damaged_pictures(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [81.0]])
    generator = np.random.default_rng(0)
    for cell in rows.read(folder.out).distills.values():
        assert cell.result is not None
        for class_index in range(10):
            target = folder.store.sets / str(cell.result.image_set_sha256)[:16] / str(class_index)
            target.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 255, (8 + class_index, 8, 3), dtype=np.uint8)).save(
                target / "00000.png"
            )
            content = bytearray((target / "00000.png").read_bytes())
            for _ in range(class_index):
                content[generator.integers(8, len(content))] ^= int(generator.integers(1, 255))
            (target / "00000.png").write_bytes(content)


def half_written_files(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [81.0]])
    folder.method("random", [[70.0], [71.0]])
    for number, cell in enumerate(folder.store.cell_dirs()):
        if number % 3 == 0:
            (cell.path / "result.json").write_text("{")
        if number % 3 == 1:
            (cell.path / "spec.json").write_text('{"kind": "distill", "method": ' + "[" * 5000)
    (folder.store.plans / "x.json").write_text("[" * 100_000)
    (folder.out / "cells" / "file").write_text("x")
    (folder.out / "quality" / "y.json").mkdir(parents=True)
    (folder.out / "quality" / "x.json").write_text("[" * 100_000)


def namesakes(folder: Any) -> None:
    for device in ("cpu", "cuda"):
        for prior in ("ab" * 32, "cd" * 32):
            folder.method("dmgd", [[60.0], [61.0]], prior=prior, device=device)


def two_teachers(folder: Any) -> None:
    for teacher in ("11" * 32, "22" * 32):
        for name in ("a", "b", "c"):
            for seed in range(2):
                spec = folder.distill_spec(name, seed=seed)
                student = folder.evaluate_spec(spec, seed=1000 * seed)
                student = student.model_copy(update={"teacher_sha256": teacher})
                folder.student(student, name, 50.0 + seed, images=folder.distill(spec), made_by=spec)


CASES: list[Callable[[Any], None]] = [
    empty, one_method, one_set_each_without_predictions, failed_sets_only, a_failed_shard, foreign_images_only,
    nothing_that_is_registered, the_whole_training_set_only, hundred_and_thousand_classes, tuning_runs_only,
    shared_gpus, stale_students_only, hostile_names, ids_that_lead_out, numbers_beyond_reason, sweeps_without_an_axis,
    parameters_that_cannot_be_opened, damaged_pictures, half_written_files, namesakes, two_teachers,
]  # fmt: skip
DRAWN = (one_method, nothing_that_is_registered, hostile_names, numbers_beyond_reason)
"""Figures take a second: drawn where names and numbers are the oddest."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_report_says_something(case: Callable[[Any], None], folder: Any, tmp_path: Path) -> None:
    case(folder)
    formats = ("terminal", "markdown", "csv", "json", "latex", "latex-wide")
    asked: list[tuple[Any, list[str]]] = [(leaderboard_app, ["--format", name]) for name in formats]
    asked += [(leaderboard_app, ["--mean-rank"]), (status_app, []), (report_app, ["--to", str(tmp_path / "site")])]
    asked += [(quality_app, ["--show", "--format", name]) for name in ("terminal", "markdown")]
    asked += [(figures_app, ["--to", str(tmp_path / "figures")])] if case in DRAWN else []
    for app, options in asked:
        result = CliRunner().invoke(app, ["--runs", str(folder.out), *options])
        if isinstance(result.exception, UsageError):
            assert str(result.exception).strip(), options
        else:
            assert result.exception is None, (options, result.exc_info)
            assert result.output.strip(), options
    leaderboard_file = tmp_path / "board.parquet"
    assert (
        CliRunner().invoke(leaderboard_app, ["--runs", str(folder.out), "--to", str(leaderboard_file)]).exit_code == 0
    )
    written = {path.name for path in tmp_path.iterdir()}
    assert written <= {"runs", "site", "figures", "board.parquet"}


def test_no_page_is_written_outside_the_site(folder: Any, tmp_path: Path) -> None:
    """The id of the set that a student names becomes a page's name."""
    spec = folder.evaluate_spec("ef" * 32)
    spec = spec.model_copy(update={"images": DistilledBy.model_construct(cell="../../away")})
    folder.student(spec, "mine", 60.0, images="ef" * 32)
    CliRunner().invoke(report_app, ["--runs", str(folder.out), "--to", str(tmp_path / "site")], catch_exceptions=False)
    assert not list(tmp_path.rglob("away*"))
    assert "images.DistilledBy.cell" in (tmp_path / "site" / "index.html").read_text()


def test_rows_of_one_name_are_told_apart_in_a_comparison(folder: Any) -> None:
    for prior in ("ab" * 32, "cd" * 32):
        folder.method("dmgd", [[60.0], [61.0]], prior=prior)
    folder.method("random", [[50.0], [51.0]])
    said = CliRunner().invoke(compare_app, ["dmgd", "random", "--runs", str(folder.out)], catch_exceptions=False).output
    assert "abababab" in said
    assert "cdcdcdcd" in said
    assert len([line for line in said.splitlines() if " against random: " in line]) == 2

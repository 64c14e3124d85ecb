"""`bench quality` on digits, from a results folder with real images in it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from ddbench.benchmark.commands import quality as command
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.store import Store
from ddbench.datasets.base import SplitData
from ddbench.datasets.digits import Digits
from ddbench.datasets.foreign.test_images import print_of
from ddbench.datasets.image_sets import pixels_sha256, set_sha256, store_set, write_png
from ddbench.reports.quality import tables, text
from ddbench.reports.quality.measure import Measuring
from ddbench.reports.quality.measures import KEYS
from ddbench.reports.quality.records import QualityRecord, folder_of, read_quality, sheet_name
from ddbench.reports.quality.sets import finished_sets
from ddbench.reports.results import rows

FEATURES = ["--features", "convnet3[epochs=2]"]


@pytest.fixture(scope="module")
def digits() -> SplitData:
    return Digits().load("default", None, 8)


def keep(store: Store, scratch: Path, images: list[np.ndarray], labels: np.ndarray) -> str:
    """Put images as a distilled set into the folder; returns its hash."""
    counts: dict[int, int] = {}
    files, digests = [], []
    for number, (pixels, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        index = counts.get(label, 0)
        counts[label] = index + 1
        scratch.mkdir(exist_ok=True)
        write_png(scratch / f"{number}.png", pixels)
        files.append(((label, index), scratch / f"{number}.png"))
        digests.append((Digits.class_ids[label], index, pixels_sha256(pixels)))
    sha256 = set_sha256(digests)
    store_set(store.sets, files, Digits.class_ids, sha256, {})
    shutil.rmtree(scratch)
    return sha256


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, digits: SplitData) -> tuple[Path, dict[str, str]]:
    """A folder with three sets, measured once: (folder, label -> hash)."""
    from importlib.util import module_from_spec, spec_from_file_location

    found = spec_from_file_location("folder_builder", Path(__file__).parents[1] / "conftest.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules["folder_builder"] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    out = tmp_path_factory.mktemp("quality") / "runs"
    folder = module.Folder(out, content_hash=digits.content_hash)
    scratch = out / "scratch"
    every = np.concatenate([digits.train.of_class(c) for c in range(10)])
    first = np.concatenate([digits.train.of_class(c)[:10] for c in range(10)])
    noise = list(np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8))
    sets = {
        "random": keep(folder.store, scratch, list(digits.train.read(first)), digits.train.labels[first]),
        "everything": keep(folder.store, scratch, list(digits.train.read(every)), digits.train.labels[every]),
        "noise[\x1b|<b>]": keep(folder.store, scratch, noise, np.repeat(np.arange(10), 10)),
    }
    for seed, (label, sha256) in enumerate(sets.items()):
        folder.distill(folder.distill_spec(label.partition("[")[0], seed=seed), label, images=sha256)
    whole = folder.distill_spec("full", ipc=None)
    folder.distill(whole, "full", images="77" * 32)
    done = run(out)
    assert done.exit_code == 0, done.output
    return out, sets


def run(out: Path, *options: str) -> Result:
    arguments = ["--runs", str(out), *FEATURES, *options]
    return CliRunner().invoke(command.quality_app, arguments, catch_exceptions=False)


def record(measured: tuple[Path, dict[str, str]], label: str) -> QualityRecord:
    out, sets = measured
    (found,) = read_quality(Store(out)).records[sets[label]]
    return found


def test_a_set_that_is_the_training_set_is_perfect(measured: Any, digits: SplitData) -> None:
    found = record(measured, "everything")
    values = found.values
    assert set(values) == set(KEYS)
    for key in ("coverage_percent", "precision_percent", "recall_percent", "copies_percent", "diversity_percent"):
        assert values[key] == pytest.approx(100), key
    for key in ("frechet_distance", "transport_distance", "otdd"):
        assert values[key] == pytest.approx(0, abs=1e-6), key
    assert (values["nearest_median_ratio"], values["nearest_minimum_ratio"]) == (0, 0)
    assert values["raw_bytes_per_class"] == 64 * len(digits.train) / 10
    assert (found.sample.real, found.sample.train, found.sample.distilled) == (1078, 1078, 1078)
    assert found.features.space.content_hash == digits.content_hash


def test_noise_is_far_from_everything(measured: Any) -> None:
    noise, real = record(measured, "noise[\x1b|<b>]").values, record(measured, "random").values
    assert noise["copies_percent"] == 0
    assert noise["nearest_minimum_ratio"] > 1
    for key in ("otdd", "frechet_distance", "transport_distance"):
        assert noise[key] > 1.5 * real[key], key
    assert noise["coverage_percent"] < real["coverage_percent"]
    assert noise["label_agreement_percent"] < 50 < real["label_agreement_percent"]


def test_test_images_are_counted(measured: Any, digits: SplitData, tmp_path: Path) -> None:
    """Also in sets that were made here."""
    assert {record(measured, label).values["test_images"] for label in measured[1]} == {0}
    labels = np.repeat(np.arange(10), 2)
    leaked = np.concatenate([digits.test.of_class(c)[:2] for c in range(10)])
    pixels = [*digits.train.read(digits.train.of_class(0)[:2]), *digits.test.read(leaked)[2:]]
    store = Store(tmp_path)
    folder = store.set_dir(keep(store, tmp_path / "scratch", pixels, labels))
    made: Any = SimpleNamespace(folder=folder, subset=None, reading=None, dataset=SimpleNamespace(split=digits.name))
    measuring: Any = SimpleNamespace(dataset=Digits(), resolution=8, data=None)
    assert len(Measuring._test_images(measuring, made, labels, [print_of(one, 8) for one in pixels])) == 18


def test_label_agreement_and_bytes_are_those_of_the_files(measured: Any, digits: SplitData) -> None:
    out, sets = measured
    files = list((out / "sets" / sets["random"][:16]).rglob("*.png"))
    assert len(files) == 100
    found = record(measured, "random").values
    assert found["stored_bytes_per_class"] == sum(path.stat().st_size for path in files) / 10
    assert found["label_agreement_percent"] == pytest.approx(round(found["label_agreement_percent"]))


def test_the_sheet_shows_what_was_selected(measured: Any, digits: SplitData) -> None:
    out, sets = measured
    found = record(measured, "random").sheet
    assert (found.file, found.image_size, found.columns, found.rows) == (sheet_name(sets["random"]), 8, 10, 10)
    shown = np.asarray(Image.open(folder_of(Store(out)) / found.file))
    for label in range(10):
        for column, pixels in enumerate(digits.train.read(digits.train.of_class(label)[:10])):
            tile = shown[8 * label : 8 * label + 8, 8 * column : 8 * column + 8]
            np.testing.assert_array_equal(tile, pixels[..., 0])


def test_what_is_measured_is_not_measured_again(measured: Any) -> None:
    out, _ = measured
    before = {path: path.stat().st_mtime_ns for path in folder_of(Store(out)).iterdir()}
    program = (
        "import sys; from ddbench.benchmark.commands.cli import main\n"
        f"sys.argv = ['bench', 'quality', '--json', *{['--runs', str(out), *FEATURES]!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'sklearn', 'ot'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["tables"][0]["rows"]) == 3
    assert {path: path.stat().st_mtime_ns for path in folder_of(Store(out)).iterdir()} == before


def test_another_sample_of_real_images_is_another_measurement(measured: Any, tmp_path: Path) -> None:
    out, sets = measured
    shutil.copytree(out, tmp_path / "runs")
    report = json.loads(run(tmp_path / "runs", "--limit-real", "20", "--method", "random", "--json").stdout)
    (table,) = report["tables"]
    assert (table["real"], table["train"], [row["method"] for row in table["rows"]]) == (200, 1078, ["random"])
    assert any("copies and nearest images were looked for among 200 of 1,078" in note for note in table["notes"])
    (found,) = read_quality(Store(tmp_path / "runs")).records[sets["random"]]
    assert found.sample.real_per_class == 20
    assert found.values["copies_percent"] < 100
    again = run(tmp_path / "runs", "--limit-real", "20", "--method", "random", "--json", "--again")
    (repeated,) = read_quality(Store(tmp_path / "runs")).records[sets["random"]]
    assert again.exit_code == 0
    assert repeated.values == found.values


def test_changed_images_are_told_and_the_others_measured(measured: Any, tmp_path: Path) -> None:
    out, sets = measured
    shutil.copytree(out, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "quality")
    write_png(tmp_path / "runs" / "sets" / sets["random"][:16] / "0" / "00000.png", np.zeros((8, 8, 1), np.uint8))
    shutil.rmtree(tmp_path / "runs" / "sets" / sets["everything"][:16])
    done = run(tmp_path / "runs", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert [row["method"] for row in report["tables"][0]["rows"]] == [rows.printable("noise[\x1b|<b>]")]
    reasons = " ".join(problem["reason"] for problem in report["problems"])
    assert "random: the images are not the ones that were distilled" in reasons
    assert "the images of everything are not there" in reasons


def test_terminal_and_markdown_show_hostile_names_as_text(measured: Any) -> None:
    out, _ = measured
    shown = run(out, "--format", "markdown").stdout
    assert "noise\\[" in shown
    assert "\\|\\<b\\>" in shown
    assert "\x1b" not in shown + run(out).stdout
    assert "coverage % ↑" in shown
    lines = list(csv.DictReader(io.StringIO(run(out, "--format", "csv").stdout)))
    assert {line["method"]: float(line["copies_percent_mean"]) for line in lines} == {
        "random": 100,
        "everything": 100,
        rows.printable("noise[\x1b|<b>]"): 0,
    }


def test_a_narrow_terminal_gets_every_column(measured: Any) -> None:
    out, _ = measured
    results = rows.read(out)
    sets, problems = finished_sets(results)
    report = tables.build(results, sets, read_quality(Store(out)), problems)
    console = Console(width=60, file=io.StringIO(), highlight=False)
    text.print_terminal(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 60
    for measure in report.measures:
        assert measure.header.strip() in shown


def test_show_measures_nothing(measured: Any, tmp_path: Path) -> None:
    out, _ = measured
    shutil.copytree(out, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "quality")
    shown = run(tmp_path / "runs", "--show")
    assert shown.exit_code == 0
    assert "No set has been measured" in shown.stdout
    assert not folder_of(Store(tmp_path / "runs")).exists()


def test_a_dataset_that_is_not_there_keeps_no_other_from_being_shown(measured: Any, tmp_path: Path) -> None:
    out, sets = measured
    shutil.copytree(out, tmp_path / "runs")
    for path in (tmp_path / "runs" / "cells").glob("distill-*/result.json"):
        result = json.loads(path.read_bytes())
        if result["image_set_sha256"] == sets["everything"]:
            result["dataset"]["name"] = "nobodys\x1b"
            path.write_text(json.dumps(result))
        elif result["image_set_sha256"] == sets["random"]:
            result["dataset"]["content_hash"] = "dd" * 32
            path.write_text(json.dumps(result))
    done = run(tmp_path / "runs", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert [row["image_sets"] for table in report["tables"] for row in table["rows"]] == [[sets["noise[\x1b|<b>]"]]]
    reasons = " ".join(problem["reason"] for problem in report["problems"])
    assert "unknown dataset" in reasons
    assert "the images of digits are not those that its sets were distilled from" in reasons
    assert "\x1b" not in reasons


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ("nonsense", "nonsense"),
        ("convnet3[epochs=1,2]", "one value for epochs"),
        ("convnet3[epoch=1]", "epoch: unknown"),
        ("convnet6", "convnet6 needs images of at least"),
        ("inception:no-such-file.pt", "there is no file"),
    ],
)
def test_a_feature_space_that_is_none_is_refused(measured: Any, features: str, reason: str) -> None:
    out, _ = measured
    with pytest.raises(UsageError, match=reason):
        CliRunner().invoke(command.quality_app, ["--runs", str(out), "--features", features], catch_exceptions=False)

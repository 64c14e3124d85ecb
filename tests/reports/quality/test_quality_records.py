"""Measurements as files: what a reader makes of good ones, foreign ones, damaged ones and copies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.core.result import DatasetRecord
from ddbench.benchmark.core.store import Store
from ddbench.reports.quality.measures import COVERAGE_NEIGHBOURS, KEYS, MEASURES, PRECISION_NEIGHBOURS
from ddbench.reports.quality.records import (
    FeatureSpace,
    QualityRecord,
    Sample,
    Sheet,
    Space,
    folder_of,
    read_quality,
    sheet_name,
    write_record,
)

SET = "ab" * 32
PAGE = Path(__file__).parents[3] / "docs" / "quality.md"


def record(sha256: str = SET, network: str = "convnet3", **changed: Any) -> QualityRecord:
    values: dict[str, Any] = {
        "version": 1,
        "image_set_sha256": sha256,
        "dataset": DatasetRecord(
            name="digits", split="default", resolution=8, split_hash="5f" * 32, content_hash="cc" * 32,
            n_train=1000, n_test=500, warning=None,
        ),
        "ipc": 10,
        "image_size": 8,
        "features": FeatureSpace(
            space=Space(
                kind="classifier", network=network, image_size=8, recipe={"epochs": 20}, content_hash="cc" * 32
            ),
            dimensions=64,
            weights_sha256="ee" * 32,
            validation_accuracy_percent=97.5,
        ),
        "sample": Sample(
            real_per_class=None, real=1000, train=1000, distilled=100, transport_real=1000, transport_distilled=100,
            reference_queries=1000,
        ),
        "values": dict.fromkeys(KEYS[1:], 1.5),
        "missing": {KEYS[0]: "nobody looked"},
        "caveats": [],
        "sheet": Sheet(file=sheet_name(sha256), image_size=8, columns=10, rows=10),
        "seconds": 0.5,
        "device": "cpu: Testing CPU",
        "versions": {"torch": "2"},
    }  # fmt: skip
    return QualityRecord(**(values | changed))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    folder_of(made).mkdir()
    return made


def test_what_is_written_is_read(store: Store) -> None:
    both = [record(), record(network="resnet18")]
    paths = [write_record(store, one) for one in both]
    assert paths[0].name == f"{SET[:16]}-{both[0].features.space.sha256[:8]}.json"
    found = read_quality(store)
    assert found.problems == []
    assert sorted(found.records[SET], key=lambda r: r.features.space.network) == both
    assert len({path.name for path in paths}) == 2


def test_a_folder_without_measurements_has_none(tmp_path: Path) -> None:
    found = read_quality(Store(tmp_path))
    assert (dict(found.records), found.problems) == ({}, [])


def spoilt(**changed: Any) -> bytes:
    return json.dumps({**record().model_dump(mode="json"), **changed}).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "half-written or foreign"),
        (b'{"schema_version": 1, "values": {', "half-written or foreign"),
        (b"\xff\xfe\x00", "half-written or foreign"),
        (b"[1, 2]", "schema version None"),
        (b"[" * 100_000, "half-written or foreign"),
        (spoilt(schema_version=7), "schema version 7; this program reads 1"),
        (spoilt(schema_version="\x1b[31m"), "schema version"),
        (spoilt(extra=1), "extra: Extra inputs"),
        (spoilt(values={"coverage_percent": 3.0}), "each of coverage_percent"),
        (spoilt(values={**record().values, "otdd": float("nan")}), "values.otdd: Input should be a finite number"),
        (spoilt(image_set_sha256="../../etc/passwd"), "image_set_sha256"),
        (spoilt(sheet={"file": "../../secret.png", "image_size": 8, "columns": 1, "rows": 1}), "expected the sheet"),
        (spoilt(sheet={"file": sheet_name(SET), "image_size": 8, "columns": 10**9, "rows": 1}), "sheet.columns"),
        (spoilt(image_set_sha256="cd" * 32, sheet=record("cd" * 32).sheet.model_dump()), "a copy, or edited"),
    ],
)
def test_what_is_no_measurement_is_listed(store: Store, content: bytes, reason: str) -> None:
    good = write_record(store, record("12" * 32))
    (folder_of(store) / f"{SET[:16]}-{record().features.space.sha256[:8]}.json").write_bytes(content)
    found = read_quality(store)
    assert list(found.records) == ["12" * 32], good
    (problem,) = found.problems
    assert reason in problem.reason
    assert "\x1b" not in problem.reason + problem.path


def test_temporary_files_and_pictures_are_nobodys(store: Store) -> None:
    (folder_of(store) / ".half.json.77.tmp").write_text("{")
    (folder_of(store) / ".hidden.json").write_text("{")
    (folder_of(store) / sheet_name(SET)).write_bytes(b"\x89PNG")
    assert read_quality(store).problems == []


def test_space_is_its_recipe_and_its_images() -> None:
    first = record().features.space
    assert first.sha256 != first.model_copy(update={"content_hash": "dd" * 32}).sha256
    assert first.sha256 != first.model_copy(update={"recipe": {"epochs": 21}}).sha256
    assert first.title == "convnet3 trained on the real images (20 epochs)"
    assert "\x1b" not in first.model_copy(update={"network": "\x1b[31m"}).title


def test_reading_imports_no_torch() -> None:
    program = (
        "import sys; from ddbench.reports.quality import records, tables, text, spaces\n"
        "from ddbench.benchmark.commands import quality\n"
        "assert not {'torch', 'sklearn', 'ot', 'torchmetrics'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_documentation_says_what_the_data_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for measure in MEASURES:
        line = next(line for line in page.splitlines() if line.startswith(f"| `{measure.key}`"))
        for text in (measure.unit, measure.source, measure.what, measure.header.partition(" ")[0]):
            assert text.replace("|", "\\|") in line, f"{measure.key}: {text}"
        arrow = {"up": "↑", "down": "↓", "none": "–"}[measure.direction]
        assert f"| {arrow} |" in line


def test_the_definitions_name_the_neighbours_that_are_counted() -> None:
    said = {measure.key: measure.source for measure in MEASURES}
    assert said["coverage_percent"].endswith(f"k = {COVERAGE_NEIGHBOURS}")
    assert said["precision_percent"].endswith(f"k = {PRECISION_NEIGHBOURS}")
    assert said["recall_percent"].endswith(f"k = {PRECISION_NEIGHBOURS}")

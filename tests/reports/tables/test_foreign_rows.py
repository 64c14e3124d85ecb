"""Sets made elsewhere in tables: a row for each unless somebody says otherwise, and none with test images ranked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.provenance import PROVENANCE, Origin, Provenance
from ddbench.benchmark.core.store import Launch
from ddbench.reports.output.columns import columns, rank
from ddbench.reports.output.files import as_csv
from ddbench.reports.results import rows
from ddbench.reports.results.frames import students_frame
from ddbench.reports.tables.frames import leaderboard_frame
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.mean_rank import mean_ranks
from ddbench.reports.tables.views import TableView

A, B, C = ("ab" * 32, "bc" * 32, "cd" * 32)


def add(
    folder: Any, sha256: str, label: str, accuracy: float, *, place: str = "", seed: int = 0, **images: Any
) -> Path:
    """A student of a set made elsewhere, in its folder; `images` are further fields of its specification."""
    of_result = ("n_images", "images_per_class", "test_images", "finished_at")
    said = {name: images.pop(name) for name in of_result if name in images}
    spec = folder.evaluate_spec(sha256, seed=seed)
    spec = spec.model_copy(update={"images": spec.images.model_copy(update=images)})
    result = folder.student(spec, label, accuracy, images=sha256)
    cell = folder.store.add(spec, Launch(label=label, images=place or None))
    write_json(cell.path / "result.json", result.model_copy(update=said).model_dump(mode="json"))
    return cell.path


def table(folder: Any) -> TableView:
    (only,) = build(rows.read(folder.out)).tables
    return only


def test_one_name_is_no_method(folder: Any) -> None:
    add(folder, A, "train", 40.0, place="/x/methodA/train")
    add(folder, B, "train", 60.0, place="/x/methodB/train")
    found = table(folder)
    assert [(row.name, len(row.sets)) for row in found.rows] == [
        ("train · images made elsewhere (bcbcbcbc, methodB/train)", 1),
        ("train · images made elsewhere (abababab, methodA/train)", 1),
    ]


def test_folders_of_namesakes_are_told_as_far_as_they_differ(folder: Any) -> None:
    add(folder, A, "train", 40.0, place="/x/ipc10/m/train")
    add(folder, B, "train", 60.0, place="/x/ipc50/m/train")
    add(folder, C, "train", 50.0)
    names = sorted(row.qualifiers[0] for row in table(folder).rows)
    assert names == [
        "images made elsewhere (abababab, ipc10/m/train)",
        "images made elsewhere (bcbcbcbc, ipc50/m/train)",
        "images made elsewhere (cdcdcdcd)",
    ]


def test_sets_that_were_said_to_be_of_one_method(folder: Any) -> None:
    add(folder, A, "mine", 40.0)
    add(folder, B, "mine", 60.0, same_method_as=A)
    add(folder, C, "mine", 90.0)
    found = {tuple(sorted(made.image_set_sha256 for made in row.sets)): row for row in table(folder).rows}
    assert set(found) == {(A, B), (C,)}
    assert found[A, B].acc_last is not None
    assert (found[A, B].acc_last.mean, found[A, B].acc_last.n) == (50.0, 2)


@pytest.fixture
def leaked(folder: Any) -> Any:
    folder.method("dmgd", [[50.0], [51.0]])
    folder.method("random", [[40.0], [41.0]])
    folder.method("full", [[99.0]], ipc=None)
    add(folder, A, "leaky", 90.0, with_test_images=True, test_images=7, n_images=100, images_per_class=(10, 10))
    return folder


def test_a_set_with_test_images_takes_no_rank(leaked: Any) -> None:
    found = table(leaked)
    by_name = {row.method: row for row in found.rows}
    row = by_name["leaky (with test images)"]
    assert (row.rank, row.reference, row.with_test_images, row.test_images) == (None, True, True, 7)
    assert (by_name["dmgd"].rank, rank(row), rank(by_name["full"])) == (1, "test", "ref")
    assert all(found.rows[place] is not row for pair in found.pairs for place in (pair.a, pair.b))
    assert "leaky (with test images)" not in [one.method for one in mean_ranks([found]).methods]
    assert any("7 of its images are test images" in note for note in found.notes)
    assert any(line.startswith("test: trained on test images") for line in found.legend)


def test_every_export_says_so(leaked: Any) -> None:
    results = rows.read(leaked.out)
    line = next(line for line in as_csv(leaderboard_frame(build(results))).splitlines() if "leaky" in line)
    assert "leaky (with test images)" in line
    frame = students_frame(results)
    assert frame.loc[frame.method == "leaky", "with_test_images"].tolist() == [True]
    assert not frame.loc[frame.method != "leaky", "with_test_images"].any()


def test_what_is_known_of_a_set_holds_for_its_other_students(leaked: Any) -> None:
    """Those of before the set was looked at."""
    add(leaked, A, "leaky", 91.0, seed=1)
    add(leaked, A, "other name", 91.0, seed=2)
    (row,) = [row for row in table(leaked).rows if "test images" in row.method]
    assert (row.rank, row.sets[0].evaluate_seeds) == (None, [0, 1, 2])


def test_one_set_is_one_row_however_it_was_called(folder: Any) -> None:
    """Its second student was in a row of its own where its folder had another name by then."""
    add(folder, A, "smoke", 40.0)
    add(folder, A, "final", 50.0, seed=1, finished_at="2026-01-02T00:00:00Z")
    add(folder, A, "early", 60.0, seed=2, finished_at="2026-01-01T00:00:00Z")
    add(folder, B, "second", 70.0, seed=1000, same_method_as=A, finished_at="2026-01-03T00:00:00Z")
    add(folder, C, "smoke", 90.0)
    results = rows.read(folder.out)
    named = {row.method: [len(made.acc_last) for made in row.sets] for row in build(results).tables[0].rows}
    assert named == {"final": [3, 1], "smoke": [1]}
    frame = students_frame(results)
    assert dict(Counter(frame.method)) == {"final": 4, "smoke": 1}


def test_a_merged_name_is_not_ours(folder: Any) -> None:
    add(folder, A, "ours", 40.0, finished_at="2026-01-01T00:00:00Z")
    theirs = add(folder, A, "theirs", 50.0, seed=1, finished_at="2026-01-02T00:00:00Z")
    origin = Origin(bundle="theirs.tar.zst", sha256="0" * 64)
    write_json(theirs / PROVENANCE, Provenance(origins=(origin,)).model_dump(mode="json"))
    assert [row.method for row in table(folder).rows] == ["ours"]


def test_numbers_of_images_stand_where_they_differ(folder: Any, tmp_path: Path) -> None:
    def images(found: TableView) -> dict[str, str]:
        column = next((one for one in columns(found, best=False) if one.key == "images"), None)
        return {} if column is None else {row.method: column.cell(row) for row in found.rows}

    folder.method("dmgd", [[50.0]])
    add(folder, A, "even", 50.0, n_images=100, images_per_class=(10, 10))
    assert images(table(folder)) == {}
    add(folder, B, "uneven", 50.0, n_images=64, images_per_class=(2, 10))
    found = table(folder)
    assert images(found) == {"dmgd": "100", "even": "100", "uneven": "64"}
    assert any("uneven: its classes have 2 to 10 images" in note for note in found.notes)


def test_sets_whose_students_share_seeds_are_told(folder: Any) -> None:
    """As two laboratories that evaluate sets of one method, each by itself, and merge."""
    add(folder, A, "mine", 40.0, seed=0)
    add(folder, B, "mine", 41.0, seed=1000, same_method_as=A)
    assert not [note for note in table(folder).notes if "same seeds" in note]
    add(folder, C, "mine", 42.0, seed=1000, same_method_as=A)
    add(folder, C, "mine", 42.0, seed=1001, same_method_as=A)
    (note,) = [note for note in table(folder).notes if "same seeds" in note]
    assert note.endswith("students of the same seeds (1000), whose luck they share: its interval is too narrow.")

"""Arrays beside results are read as numpy reads them, and none that is damaged or hostile stops a report."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.store import Store
from ddbench.reports.results import predictions, rows
from ddbench.reports.results.groups import group
from ddbench.reports.results.predictions import labels_of_test
from ddbench.reports.tables.scores import scores_of

HASH = "c" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = Store(tmp_path).artefacts / "test-labels" / f"{HASH[:16]}.npy"
    found.parent.mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.arange(300, dtype=np.uint16),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros(0),
        np.arange(3, dtype=">i4"),
        np.array(True),
    ],
    ids=str,
)
def test_it_is_what_numpy_wrote(array: np.ndarray, file: Path, tmp_path: Path) -> None:
    np.save(file, array)
    read = labels_of_test(Store(tmp_path), HASH)
    assert read is not None
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (b"(5,), }", b"(5,    "),  # numpy raises what Python's tokenizer does
        (b"(5,)", b"(-1,"),
        (b"(5,), }   ", b"(99**9,), }"[:10]),
        (b"(5,), }            ", b"(999999999999999,)}"),
        (b"<i8", b"<U2"),
        (b"<i8", b"|O8"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
        (b"\x93NUMPY", b"PK\x03\x04\x00\x00"),
    ],
)
def test_a_head_that_lies_gives_no_array(there: bytes, instead: bytes, file: Path, tmp_path: Path) -> None:
    np.save(file, np.arange(5))
    written = file.read_bytes()
    assert there in written
    assert len(there) == len(instead)
    file.write_bytes(written.replace(there, instead))
    assert labels_of_test(Store(tmp_path), HASH) is None


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")  # of Python, which reads the head
def test_no_damage_stops_a_report(file: Path, tmp_path: Path) -> None:
    np.save(file, np.arange(5))
    written, draw = file.read_bytes(), random.Random(0)
    for end in range(len(written)):
        file.write_bytes(written[:end])
        assert labels_of_test(Store(tmp_path), HASH) is None
    for _ in range(2000):
        damaged = bytearray(written)
        for _ in range(draw.choice([1, 2, 5])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        file.write_bytes(damaged)
        read = labels_of_test(Store(tmp_path), HASH)
        assert read is None or read.nbytes <= len(written)


def test_the_labels_of_a_row_are_read_once(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.method("dmgd", [[80.0, 81.0], [82.0, 83.0], [84.0]])
    (table,) = group(rows.read(folder.out))
    opened: list[str] = []
    read = predictions.read_regular
    monkeypatch.setattr(predictions, "read_regular", lambda path: opened.append(Path(path).parent.name) or read(path))
    scores = scores_of(folder.store, table.rows[0])
    assert [score.correct is not None for score in scores] == [True, True, True]
    assert len(opened) == 6
    assert opened.count("test-labels") == 1

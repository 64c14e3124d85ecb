"""How many sets and students are needed: components against planted ones, and designs against the test itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ddbench.benchmark.commands.leaderboard import leaderboard_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.reports.results import groups, rows
from ddbench.reports.tables.how_many import HowMany, how_many

N_TEST = 500


def planted(rng: np.random.Generator, sets: int, students: int, luck: float = 0.03) -> list[list[np.ndarray]]:
    """Sets differ by `luck` (a share), students by chance alone."""
    levels = 0.6 + luck * rng.standard_normal(sets)
    return [[rng.random(N_TEST) < level for _ in range(students)] for level in levels]


def only(folder: Any, points: float = 1.0) -> HowMany | None:
    found = rows.read(folder.out)
    (table,) = groups.group(found)
    return how_many(found.store, table, points)


def test_components_are_those_that_were_planted(folder: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        folder.method(name, planted(rng, 12, 3))
    found = only(folder)
    assert found is not None
    assert (found.methods, found.paired) == (4, True)
    assert found.std_over_sets == pytest.approx(3.0, rel=0.3)
    assert found.std_over_students == pytest.approx(100 * (0.6 * 0.4 / N_TEST) ** 0.5, rel=0.3)
    assert found.std_over_test_images < 0.1, "no method has a taste: more sets average all of it out"


def test_more_sets_and_more_students_show_more(folder: Any) -> None:
    rng = np.random.default_rng(1)
    for name in ("a", "b", "c"):
        folder.method(name, planted(rng, 3, 2))
    found = only(folder, 8)
    assert found is not None
    for few, many in (("2×1", "3×1"), ("3×1", "10×1"), ("10×1", "50×1"), ("5×1", "5×5")):
        assert found.visible[few] > found.visible[many]
    needed = [sets for sets in found.sets_needed.values() if sets is not None]
    assert needed == sorted(needed, reverse=True)
    assert len(needed) == 4


def test_where_test_images_are_too_few_no_number_is_enough(folder: Any) -> None:
    """Two methods that are right about different images, set after set."""
    rng = np.random.default_rng(2)
    for name in ("a", "b"):
        taste = rng.random(N_TEST) < 0.5
        folder.method(name, [[taste ^ (rng.random(N_TEST) < 0.05)] for _ in range(2)])
    found = only(folder, 0.5)
    assert found is not None
    assert found.sets_needed == {1: None}
    assert found.std_over_students is None


def test_one_set_each_says_nothing(folder: Any) -> None:
    for name in ("a", "b"):
        folder.method(name, planted(np.random.default_rng(3), 1, 2))
    assert only(folder) is None
    with pytest.raises(UsageError, match="no table has two methods with two sets each"):
        CliRunner().invoke(leaderboard_app, ["--runs", str(folder.out), "--how-many", "1"], catch_exceptions=False)


def test_the_command_answers_in_a_sentence_and_in_json(folder: Any) -> None:
    rng = np.random.default_rng(4)
    for name in ("a", "b", "c"):
        folder.method(name, planted(rng, 3, 2))
    asked = ["--runs", str(folder.out), "--how-many", "8"]
    printed = " ".join(CliRunner().invoke(leaderboard_app, asked).output.split())
    assert "To see 8 points:" in printed
    assert "3 methods with common seeds" in printed
    (table,) = json.loads(CliRunner().invoke(leaderboard_app, [*asked, "--json"]).output)["tables"]
    assert f"{table['sets_needed']['1']} sets × 1 student (" in printed
    with pytest.raises(UsageError, match="expected points above 0"):
        CliRunner().invoke(leaderboard_app, [*asked[:-1], "0"], catch_exceptions=False)

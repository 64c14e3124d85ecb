"""A small part of `tests/simulation/coverage.py`: bounds that a wrong formula breaks. Its whole: docs/statistics.md."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PROGRAM = Path(__file__).parents[2] / "simulation" / "coverage.py"
RUNS = 300


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_simulation", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_simulation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


coverage = load()


def error(share: float, runs: int = RUNS) -> float:
    """Three Monte-Carlo standard errors."""
    return float(3 * (share * (1 - share) / runs) ** 0.5)


def test_the_truth_is_what_many_draws_show() -> None:
    setting = coverage.Setting(sets=40, students=1, images=2000, paired=False, gain=coverage.GAIN)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        a, b = coverage.simulate(setting, rng).scores
        found.append(np.mean([s.accuracy for s in a]) - np.mean([s.accuracy for s in b]))
    assert np.mean(found) == pytest.approx(setting.truth, abs=3 * np.std(found, ddof=1) / 20**0.5)


@pytest.mark.parametrize("sets", [2, 3])
@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_of_a_difference_covers_and_the_test_keeps_its_level(sets: int, paired: bool) -> None:
    setting = coverage.Setting(sets, 1, 500, paired)
    for one in (setting, replace(setting, gain=coverage.GAIN)):
        found = coverage.measure(one, RUNS)
        assert found["covered"] >= 0.95 - error(0.95)
    assert coverage.measure(setting, RUNS)["separated"] <= 0.05 + error(0.05)
    assert found["equivalent"] <= 0.05 + error(0.05)


def test_where_sets_tell_everything_the_level_is_used() -> None:
    """Many sets and test images: a bound that is safe for few is not much too wide for many."""
    found = coverage.measure(coverage.Setting(10, 1, 5000, False), 150)
    assert 0.95 - error(0.95, 150) <= found["covered"] <= 0.995


def test_the_interval_of_a_mean_covers_for_the_drawn_test_images_and_claims_no_more() -> None:
    found = coverage.measure(coverage.Setting(10, 1, 500, False), RUNS)
    assert found["mean covered"] == pytest.approx(0.95, abs=error(0.95))
    assert found["mean covered anywhere"] < 0.93


def test_the_bootstrap_covers_too_rarely_for_two_sets() -> None:
    """Why it is a second opinion only: two sets give four resamples, whatever their number of draws."""
    found = coverage.measure(coverage.Setting(2, 3, 5000, True), 40, bootstrap=True)
    assert found["bootstrap covered"] < 0.95
    assert found["covered"] > found["bootstrap covered"]


def test_holm_keeps_the_family_wise_level_where_single_tests_do_not() -> None:
    plain, corrected = coverage.family_wise(coverage.Setting(3, 1, 500, True, methods=6), 120)
    assert plain > 0.05
    assert corrected <= 0.05 + error(0.05, 120)


def test_methods_that_like_other_images_are_not_told_apart_by_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test images are a sample, however many sets there are: without their part of the variance this fails."""
    monkeypatch.setattr(coverage, "TASTE", 2.0)
    found = coverage.measure(coverage.Setting(10, 3, 200, True), 2 * RUNS)
    assert found["separated"] <= 0.05 + error(0.05, 2 * RUNS)

"""How often intervals and tests are right whose variance between sets is pooled over a table: `docs/statistics.md`.

    python -P tests/simulation/pooling.py --images 500 5000

Normal sets, students of one set averaged: the percent that set s of method m gets right of test image j is

    58 + luck of the set + taste of the method for the image + chance

all normal and independent, but for half of the variance of luck that sets of one seed have in common where methods are
paired. Luck has a standard deviation of 2 points, times what the method's scenario says. All methods are equal.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product

import numpy as np

from ddbench.benchmark.core.seeds import stream_seed
from ddbench.reports.statistics.crossed import SetScore, compare, summary
from ddbench.reports.statistics.equivalence import visible_in
from ddbench.reports.statistics.pooling import SetVariance

LEVEL, LUCK, TASTE, CHANCE = 58.0, 2.0, 30.0, 30.0
"""Points: mean accuracy, and standard deviations of the luck of a set and, by test image, of taste and chance."""
SHARED = 0.5
SCENARIOS = ("equal", "one 2.5", "one 5", "spread")
"""Luck times 1 for all; one method's times 2.5 or 5; spread evenly on a logarithmic scale from 0.4 to 2."""


@dataclass(frozen=True)
class Setting:
    sets: int
    methods: int
    scenario: str
    images: int
    paired: bool

    @property
    def scales(self) -> np.ndarray:
        """(M,), the noisiest first."""
        if self.scenario == "spread":
            return np.geomspace(2.0, 0.4, self.methods)
        first = {"equal": 1.0, "one 2.5": 2.5, "one 5": 5.0}[self.scenario]
        return np.array([first] + [1.0] * (self.methods - 1))


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[list[list[SetScore]], np.ndarray]:
    """The methods' sets, and each method's expected accuracy on the drawn test images, (M,)."""
    m, s, j = setting.methods, setting.sets, setting.images
    own, common = (math.sqrt(share) for share in ((1 - SHARED, SHARED) if setting.paired else (1.0, 0.0)))
    luck = LUCK * (own * rng.normal(size=(m, s)) * setting.scales[:, None] + common * rng.normal(size=(1, s)))
    of_images = LEVEL + TASTE * rng.standard_normal((m, j), np.float32)
    right = of_images[:, None] + luck[..., None] + CHANCE * rng.standard_normal((m, s, j), np.float32)  # (M, S, J)
    scores = [
        [SetScore((float(right[a, b].mean()),), b if setting.paired else None, right[a, b] / 100) for b in range(s)]
        for a in range(m)
    ]
    return scores, of_images.mean(1)


@dataclass(frozen=True)
class Measured:
    rows_covered: float
    """Share of the intervals of rows that hold the method's expected accuracy on these test images."""
    worst_covered: float
    """Of the method that does worst."""
    size: float
    """Share of the pairs that are told apart, though all are equal."""
    row_ratio: float
    """Median half-width of a row's interval, beside the median with the method's own variance."""
    difference_ratio: float
    """The same for differences."""
    found: float
    """Share of true differences as large as one run prints as visible that the next run finds (equal luck only; else
    nan)."""


def measure(setting: Setting, runs: int) -> Measured:
    rng = np.random.default_rng(stream_seed(0, "pooling", *map(str, vars(setting).values())))
    covered = np.zeros(setting.methods)
    printed: dict[tuple[int, int], float] = {}
    separated, rows, rows_own, pairs, pairs_own, powers = 0, [], [], [], [], []
    for _ in range(runs):
        scores, truth = simulate(setting, rng)
        variance = SetVariance(scores)
        for place, sets in enumerate(scores):
            students = [score.students for score in sets]
            one, own = summary(students, variance.of_mean(place)), summary(students)
            assert one.low is not None
            assert one.high is not None
            assert own.low is not None
            assert own.high is not None
            covered[place] += one.low <= truth[place] <= one.high
            rows.append(one.high - one.low)
            rows_own.append(own.high - own.low)
        for a, b in combinations(range(setting.methods), 2):
            pooled = compare(scores[a], scores[b], setting.images, partial(variance.of_difference, a, b))
            alone = compare(scores[a], scores[b], setting.images)
            separated += pooled.separates
            pairs.append(_width(pooled.low, pooled.high))
            pairs_own.append(_width(alone.low, alone.high))
            if (a, b) in printed:  # were that the truth, the estimate would lie as much higher
                powers.append(pooled.difference + printed[a, b] > _width(pooled.low, pooled.high) / 2)
            printed[a, b] = visible_in(pooled) or math.nan
    return Measured(
        rows_covered=float(covered.mean()) / runs,
        worst_covered=float(covered.min()) / runs,
        size=separated / len(pairs),
        row_ratio=float(np.median(rows) / np.median(rows_own)),
        difference_ratio=float(np.median(pairs) / np.median(pairs_own)),
        found=float(np.mean(powers)) if setting.scenario == "equal" else math.nan,
    )


def _width(low: float | None, high: float | None) -> float:
    assert low is not None
    assert high is not None
    return high - low


def settings(images: Sequence[int], sets: Sequence[int], methods: Sequence[int]) -> list[Setting]:
    chosen = product(images, (True, False), sets, methods, SCENARIOS)
    return [Setting(s, m, scenario, j, paired) for j, paired, s, m, scenario in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--sets", type=int, nargs="+", default=[2, 3, 5, 10])
    parser.add_argument("--methods", type=int, nargs="+", default=[3, 6, 16])
    parser.add_argument("--runs", type=int, default=400)
    arguments = parser.parse_args()
    columns = ("J", "sets", "S", "M", "luck", "rows", "worst", "size", "row width", "difference width", "found")
    print(f"| {' | '.join(columns)} |\n|{' --: |' * len(columns)}", flush=True)
    for setting in settings(arguments.images, arguments.sets, arguments.methods):
        # A table of many methods has many pairs: as many runs would measure its size far better than the others'.
        found = measure(setting, max(100, arguments.runs * 3 // setting.methods))
        cells = [setting.images, "paired" if setting.paired else "independent", setting.sets, setting.methods]
        cells += [setting.scenario, *(f"{100 * x:.1f}" for x in (found.rows_covered, found.worst_covered, found.size))]
        cells += [f"{found.row_ratio:.2f}", f"{found.difference_ratio:.2f}"]
        cells += ["" if math.isnan(found.found) else f"{100 * found.found:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()

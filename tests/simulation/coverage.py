"""How often the referee's statistics are right, on simulated results whose truth is known: `docs/statistics.md`.

    python -P tests/simulation/coverage.py --images 500
    python -P tests/simulation/coverage.py --images 5000 --runs 600 --bootstrap-runs 100

An answer is right with a probability that is logistic in the sum of

    level + gain of the method + difficulty of the image + taste of the method for the image
          + luck of the set + taste of the set for the image + luck of the student

all but the first two normal and independent; each image is met by all sets (crossed), students are nested in sets. The
truth is the expected difference over new sets, students and test images, by quadrature.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from scipy.special import expit

from ddbench.benchmark.core.seeds import stream_seed
from ddbench.reports.statistics.crossed import ALPHA, SetScore, compare, difference_of, summary
from ddbench.reports.statistics.equivalence import equivalence_p_value, holm, pigeonhole_interval

LEVEL = 0.5
DIFFICULTY, TASTE, SET, SET_TASTE, STUDENT = 1.5, 0.5, 0.15, 0.5, 0.1
"""Standard deviations in logits. Sets then differ by about 2.4 points, students of a set by 1.8."""
SHARED = 0.5
"""Share of a set's luck that two methods with the same seed have in common."""
GAIN = 0.25
"""Of the better method, where there is one: about 4 points."""
BOOTSTRAP_DRAWS = 300
FAMILY_IMAGES = 500
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


@dataclass(frozen=True)
class Setting:
    sets: int
    students: int
    images: int
    paired: bool
    """The methods' sets were made with the same seeds."""
    gain: float = 0.0
    methods: int = 2

    @property
    def truth(self) -> float:
        """Expected accuracy of the first method minus another's, percent points."""
        spread = math.sqrt(DIFFICULTY**2 + TASTE**2 + SET**2 + SET_TASTE**2 + STUDENT**2)
        return float(expected(np.array(LEVEL + self.gain), spread) - expected(np.array(LEVEL), spread))


def expected(logits: np.ndarray, spread: float) -> np.ndarray:
    """Mean of the logistic function over a normal, percent; for each logit."""
    return 100 * expit(logits[..., None] + spread * NODES) @ WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Simulated:
    scores: list[list[SetScore]]
    """By method."""
    of_these_images: float
    """Expected accuracy of the first method on the drawn test images."""


def simulate(setting: Setting, rng: np.random.Generator) -> Simulated:
    methods, sets, students, images = setting.methods, setting.sets, setting.students, setting.images

    def normal(std: float, *shape: int) -> np.ndarray:
        return np.float32(std) * rng.standard_normal(shape, dtype=np.float32)

    gains = np.zeros((methods, 1), np.float32)
    gains[0] = setting.gain
    by_method = LEVEL + gains + normal(DIFFICULTY, images) + normal(TASTE, methods, images)
    own, common = (SET * math.sqrt(share) for share in ((1 - SHARED, SHARED) if setting.paired else (1.0, 0.0)))
    luck = normal(own, methods, sets, 1) + normal(common, 1, sets, 1)
    by_set = by_method[:, None] + luck + normal(SET_TASTE, methods, sets, images)
    by_student = by_set[:, :, None] + normal(STUDENT, methods, sets, students, 1)
    right = rng.random(by_student.shape, dtype=np.float32) < expit(by_student)
    accuracies, shares = 100 * right.mean(axis=3), right.mean(axis=2)
    scores = [
        [SetScore(tuple(accuracies[m, s].tolist()), s if setting.paired else None, shares[m, s]) for s in range(sets)]
        for m in range(methods)
    ]
    of_these = expected(by_method[0], math.sqrt(SET**2 + SET_TASTE**2 + STUDENT**2)).mean()
    return Simulated(scores, float(of_these))


def measure(setting: Setting, runs: int, *, bootstrap: bool = False) -> dict[str, float]:
    """Shares of runs: `covered`, `separated`, `equivalent` (at a margin that is the truth), `bootstrap covered`,
    `mean covered` (Student-t of the first method, on the drawn test images) and `mean covered anywhere` (on new ones).
    """
    counts: Counter[str] = Counter()
    rng = np.random.default_rng(stream_seed(0, "coverage", *map(str, vars(setting).values())))
    truth = setting.truth
    for _ in range(runs):
        drawn = simulate(setting, rng)
        a, b = drawn.scores
        found = compare(a, b, setting.images)
        assert found.low is not None
        assert found.high is not None
        counts["covered"] += found.low <= truth <= found.high
        counts["separated"] += found.separates
        if truth:
            p_value = equivalence_p_value(difference_of(a, b, setting.images), truth)
            counts["equivalent"] += p_value is not None and p_value < ALPHA
        mean = summary([score.students for score in a])
        assert mean.low is not None
        assert mean.high is not None
        counts["mean covered"] += mean.low <= drawn.of_these_images <= mean.high
        spread = math.sqrt(DIFFICULTY**2 + TASTE**2 + SET**2 + SET_TASTE**2 + STUDENT**2)
        anywhere = float(expected(np.array(LEVEL + setting.gain), spread))
        counts["mean covered anywhere"] += mean.low <= anywhere <= mean.high
        if bootstrap:
            interval = pigeonhole_interval(a, b, rng, BOOTSTRAP_DRAWS)
            assert interval is not None
            counts["bootstrap covered"] += interval[0] <= truth <= interval[1]
    return {what: counts[what] / runs for what in sorted(counts)}


def family_wise(setting: Setting, runs: int) -> tuple[float, float]:
    """Shares of runs with a false finding among all pairs of equal methods: (uncorrected, after Holm's correction)."""
    rng = np.random.default_rng(stream_seed(0, "family-wise", *map(str, vars(setting).values())))
    plain = corrected = 0
    for _ in range(runs):
        drawn = simulate(setting, rng)
        p_values = [compare(a, b, setting.images).p_value or 0.0 for a, b in combinations(drawn.scores, 2)]
        plain += min(p_values) < ALPHA
        corrected += min(holm(p_values)) < ALPHA
    return plain / runs, corrected / runs


def settings(numbers_of_images: Iterable[int]) -> Iterator[Setting]:
    for images, paired, sets, students in product(numbers_of_images, (True, False), (2, 3, 5, 10), (1, 3)):
        yield Setting(sets, students, images, paired)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--bootstrap-runs", type=int, default=400)
    arguments = parser.parse_args()
    truth = Setting(2, 1, 500, True, GAIN).truth
    print(f"Difference {truth:.2f} points; {arguments.runs} runs, bootstrap {arguments.bootstrap_runs}.\n", flush=True)
    columns = (
        "J", "sets", "S", "R", "coverage, equal", "size", "coverage, different", "power", "TOST size",
        "bootstrap coverage", "t interval, these images", "t interval, new images",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{' --: |' * len(columns)}", flush=True)
    for setting in settings(arguments.images):
        equal, different = measure(setting, arguments.runs), measure(replace(setting, gain=GAIN), arguments.runs)
        resampled = measure(setting, arguments.bootstrap_runs, bootstrap=True)
        shares = (
            equal["covered"], equal["separated"], different["covered"], different["separated"],
            different["equivalent"], resampled["bootstrap covered"], equal["mean covered"],
            equal["mean covered anywhere"],
        )  # fmt: skip
        cells = [str(setting.images), "paired" if setting.paired else "independent", str(setting.sets)]
        cells += [str(setting.students), *(f"{100 * share:.1f}" for share in shares)]
        print(f"| {' | '.join(cells)} |", flush=True)
    if FAMILY_IMAGES not in arguments.images:
        return
    print("\n| J | S | methods | pairs | a false finding, uncorrected | after Holm |\n|" + " --: |" * 6)
    for sets, methods in ((2, 6), (3, 6), (5, 6), (10, 6)):
        plain, corrected = family_wise(Setting(sets, 1, FAMILY_IMAGES, True, methods=methods), arguments.runs)
        pairs = methods * (methods - 1) // 2
        print(
            f"| {FAMILY_IMAGES} | {sets} | {methods} | {pairs} | {100 * plain:.1f} | {100 * corrected:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""`bench tune`: try parameters on the validation part of the training images, under a stated budget.

The trials are an ordinary run on `<dataset>:validation`: cells, resuming and reuse are those of `bench run`,
leaderboards leave its results out, and no test image can be reached from it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from ddbench.benchmark.core.errors import Collector, UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.seeds import sklearn_seed
from ddbench.benchmark.core.spec import DistillSpec, Scalar, brackets, cell_id, types_in
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.contestants import contestants, load_method
from ddbench.benchmark.planning.parameters import in_order
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.run_spec import describe, scalar

CLEARLY = 2.0
"""Standard errors by which a trial must beat the defaults to be preferred."""
DRAWS = 100
"""Times as many values are drawn as are wanted, at most: a short range has no more than it has."""
RANGE = re.compile(r"\s*([^\s.:]\S*?)\.\.([^\s:]+?)(:log)?\s*")


@dataclass(frozen=True)
class Choice:
    """The values that one parameter may take: a list, or a range."""

    name: str
    values: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Choice:
        """`ot_scale=0.05,0.5`, `steps=10..50`, `ot_scale=0.01..10:log`.

        Raises:
            UsageError: none of these, or a range that is empty or cannot be logarithmic.
        """
        name, equals, given = text.partition("=")
        if not equals or not name.strip() or not given.strip():
            raise UsageError(f"--param {text}: expected name=value,value,… or name=low..high or name=low..high:log")
        span = RANGE.fullmatch(given)
        if span is None:
            return cls(name.strip(), tuple(dict.fromkeys(scalar(value) for value in given.split(","))))
        ends = [end for end in (scalar(span[1]), scalar(span[2])) if isinstance(end, int | float)]
        if len(ends) < 2 or any(isinstance(end, bool) for end in ends) or not ends[0] < ends[1]:
            raise UsageError(f"--param {text}: expected two numbers, the lower first, as name=0.1..10")
        if span[3] and ends[0] <= 0:
            raise UsageError(f"--param {text}: expected a range above 0 for :log; leave :log out, or begin above 0")
        whole = all(isinstance(end, int) for end in ends)
        return cls(name.strip(), (), float(ends[0]), float(ends[1]), whole, bool(span[3]))

    def at(self, u: float) -> Scalar:
        """The value at a point 0 ≤ u < 1 of its range, or of its list."""
        if self.values:
            return self.values[int(u * len(self.values))]
        if self.whole and not self.log:
            return min(int(self.low + u * (self.high - self.low + 1)), int(self.high))
        value = self.low * (self.high / self.low) ** u if self.log else self.low + u * (self.high - self.low)
        value = min(max(value, self.low), self.high)  # powers round
        return round(value) if self.whole else float(f"{value:.4g}")


def settings(
    choices: Sequence[Choice],
    trials: int,
    seed: int,
    usual: Mapping[str, Scalar],
    fractions: Collection[str] = (),
) -> list[dict[str, Scalar]]:
    """What is tried: the defaults (an empty mapping) first, then other values, `trials` in all.

    Lists alone are tried in full. With a range, values are spread by a scrambled Halton sequence; none is tried twice.

    Args:
        usual: the defaults, which are not tried twice.
        fractions: parameters that take fractions, also from a range between whole numbers.

    Raises:
        UsageError: fewer trials than the lists have combinations, with the defaults.
    """

    def is_usual(values: Mapping[str, Scalar]) -> bool:
        return all(usual.get(name) == value for name, value in values.items())

    if all(choice.values for choice in choices):
        grid = [
            dict(zip([choice.name for choice in choices], values, strict=True))
            for values in itertools.product(*(choice.values for choice in choices))
        ]
        grid = [values for values in grid if not is_usual(values)]
        if len(grid) + 1 > trials:
            raise UsageError(
                f"{len(grid)} combinations and the defaults are {len(grid) + 1} trials, more than --trials {trials}; "
                "raise the budget, give fewer values, or a range"
            )
        return [{}, *grid]
    from scipy.stats import qmc

    drawing = [replace(choice, whole=choice.whole and choice.name not in fractions) for choice in choices]
    sequence = qmc.Halton(len(choices), rng=np.random.default_rng(sklearn_seed(seed, "tuning")))
    found: dict[str, dict[str, Scalar]] = {}
    for _ in range(DRAWS):
        for point in sequence.random(trials - 1):
            values = {c.name: c.at(float(u)) for c, u in zip(drawing, point, strict=True)}
            if len(found) < trials - 1 and not is_usual(values):
                found.setdefault(brackets(values), values)
        if len(found) == trials - 1:
            break
    return [{}, *found.values()]


def fractions(method: str) -> set[str]:
    """The parameters of a method that take fractions."""
    fields = load_method(method).Params.model_fields
    return {name for name, field in fields.items() if float in types_in(field.annotation)}


def usual_values(method: str, dataset: str) -> dict[str, Scalar]:
    """A method's parameters on a dataset when nothing is said."""
    (contestant,) = contestants(method, DATASETS.load(dataset), {}, set())
    return dict(contestant.spec.params)


def selectors(method: str, dataset: str, tried: Sequence[Mapping[str, Scalar]]) -> list[str]:
    """One selector for each setting of a method's parameters on a dataset.

    Raises:
        Problems: parameters that the method does not have, or values that it refuses.
    """
    entry, known, declaring = METHODS.entry(method), load_method(method), DATASETS.load(dataset)
    problems = Collector()
    for values in tried:
        try:
            known.Params.model_validate(in_order(known.name, declaring, entry.overrides, values, name=method))
        except ValidationError as error:
            problems.add(*describe(error, prefix=f"{method}{brackets(values)}: "))
    problems.raise_any()
    return [method + brackets(values) for values in tried]


@dataclass(frozen=True)
class Trial:
    """One setting of the parameters, and how its students did on the validation part."""

    label: str
    values: dict[str, Scalar]
    by_ipc: dict[int, dict[str, float | int | None]]
    """IPC -> n (sets), mean, std (over sets; percent)."""
    score: float | None
    """The mean over IPCs of the means over sets; None while sets are missing."""
    difference: float | None
    """Score minus the defaults', over the same seeds."""
    standard_error: float | None
    """Standard error of the difference, over sets."""
    default: bool
    """Whether it is the defaults."""


@dataclass(frozen=True)
class Tuned:
    """What a tuning run found."""

    method: str
    dataset: str
    budget: int
    trials: list[Trial]
    """Every setting that was tried, the defaults first."""
    settings_ever_tried: int
    """Settings of this method that this results folder has on this validation part: what the budget really was."""
    chosen: dict[str, Scalar]
    """Parameters that clearly beat the defaults; empty: the defaults stay."""
    reason: str


def report(
    store: Store, plan: Plan, method: str, dataset: str, tried: Sequence[dict[str, Scalar]], budget: int
) -> Tuned:
    """Read the results of a plan whose sets are those of `selectors`, in that order."""
    scores = _scores(store, plan)
    trials: list[Trial] = []
    by_params: dict[str, dict[str, Any]] = {}
    for planned in plan.sets:
        assert planned.spec is not None
        key = brackets(planned.spec.method.params)
        by_params.setdefault(key, {"label": planned.label, "sets": []})["sets"].append(planned.spec)
    reference: list[DistillSpec] = next(iter(by_params.values()))["sets"]
    for key, group in by_params.items():
        trials.append(_trial(group["label"], group["sets"], reference, scores, _values_of(key, group["sets"], tried)))
    ever = {
        brackets(spec.method.params)
        for cell in store.cell_dirs()
        if cell.id.startswith("distill-") and isinstance(spec := cell.spec(), DistillSpec)
        if spec.dataset.name == dataset and spec.method.name == METHODS.load(method).name
    }
    chosen, reason = _choose(trials)
    return Tuned(method, dataset, budget, trials, len(ever), chosen, reason)


def _values_of(key: str, sets: Sequence[DistillSpec], tried: Sequence[dict[str, Scalar]]) -> dict[str, Scalar]:
    params = sets[0].method.params
    return next((dict(v) for v in tried if all(params[name] == value for name, value in v.items()) and v), {})


def _scores(store: Store, plan: Plan) -> dict[str, float]:
    """Distill cell -> accuracy on the validation part, averaged over its students; of whole sets only."""
    found: dict[str, float] = {}
    for planned in plan.sets:
        results = [store.cell(cell_id(student)).result() for student in planned.students]
        values = [r.metrics.acc_last for r in results if isinstance(r, EvaluateResult) and r.metrics is not None]
        if planned.id is not None and values and len(values) == len(results):
            found[planned.id] = sum(values) / len(values)
    return found


def _trial(
    label: str,
    sets: Sequence[DistillSpec],
    reference: Sequence[DistillSpec],
    scores: Mapping[str, float],
    values: dict[str, Scalar],
) -> Trial:
    import pandas as pd

    usual = {(spec.ipc, spec.seed): scores.get(cell_id(spec)) for spec in reference}
    rows = [(spec.ipc or 0, scores.get(cell_id(spec)), usual.get((spec.ipc, spec.seed))) for spec in sets]
    frame = pd.DataFrame(rows, columns=["ipc", "own", "usual"]).astype({"own": float, "usual": float})
    frame["gain"] = frame["own"] - frame["usual"]
    by_ipc = frame.dropna(subset="own").groupby("ipc")
    own, gain = (by_ipc[column].agg(n="count", mean="mean", std="std") for column in ("own", "gain"))
    default, complete = sets is reference, frame["own"].notna().all()
    score = float(own["mean"].mean()) if complete else None
    difference = float(gain["mean"].mean()) if complete and not default and frame["usual"].notna().all() else None
    error = None
    if difference is not None and gain["std"].notna().all():
        error = math.sqrt((gain["std"] ** 2 / gain["n"]).sum()) / len(gain)
    found = {
        int(ipc): {"n": int(n), "mean": float(mean), "std": None if math.isnan(std) else float(std)}
        for ipc, n, mean, std in own.itertuples()
    }
    return Trial(label, {} if default else values, found, score, difference, error, default)


def _choose(trials: Sequence[Trial]) -> tuple[dict[str, Scalar], str]:
    """The best score, if it is clearly better than the defaults'; else the defaults."""
    finished = [trial for trial in trials if trial.score is not None]
    others = [trial for trial in finished if not trial.default and trial.difference is not None]
    if not others:
        return {}, "there is nothing to compare the defaults with"
    best = max(others, key=lambda trial: trial.difference or 0.0)
    assert best.difference is not None
    if best.standard_error is None:
        return {}, "one set per trial has no spread; give more --seeds before anything is chosen"
    said = f"{best.label} is {best.difference:+.2f} ± {best.standard_error:.2f} points from the defaults"
    if best.difference > CLEARLY * best.standard_error and best.difference > 0:
        return (
            best.values,
            f"{said}, more than {CLEARLY:g} standard errors; the best of {len(others)} looks better than it is",
        )
    return {}, f"the defaults stay: {said}, which is not more than {CLEARLY:g} standard errors"

"""DD-Ranking's two scores from the leaderboards' own numbers (Li et al., 2025, arXiv 2505.13300). Imports no torch.

With accuracies as fractions, and everything but the images held fixed by a protocol of this benchmark:

    HLR = full, hard labels − set, hard labels          IOR = set, any labels − random images, those labels
    α = ½ IOR − ½ HLR                                   LRS = 100 (e^α − e^−1) / (e − e^−1)
    β = ½ (set − random, augmented) + ½ (set − random, not augmented)      ARS likewise, from β

They are named `lrs@protocol` and are not DD-Ranking's board: that one tunes learning rates and takes the best epoch on
test images; these take `acc_last` of the protocol. Under a protocol with hard labels "any labels" are hard ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.spec import brackets
from ddbench.benchmark.core.store import Store
from ddbench.reports.results.groups import Row, Table
from ddbench.reports.statistics import crossed
from ddbench.reports.tables.gap import LOWER, UPPER
from ddbench.reports.tables.scores import scores_of

WITHOUT = {"augmentation": False, "cutmix": False}
"""The overrides under which a protocol shows its images as they are."""


class Interval(Record):
    """A score between 0 and 100, and its 95 % interval."""

    value: float
    low: float | None
    """Lower end; None, like the upper end, where no method of the contrast has two sets."""
    high: float | None


class Score(Record):
    """One method in one table."""

    method: str
    qualifiers: list[str]
    sets: int
    hlr: float | None
    """Hard-label recovery, a fraction; None without a table with hard labels."""
    ior: float
    lrs: Interval | None
    ars: Interval | None


class ScoreTable(Record):
    """The scores of one leaderboard."""

    title: str
    name: str
    """Name of the scores, `lrs@quick@1`."""
    dataset: str
    ipc: int
    protocol: str
    student: str
    hard: str | None
    """Protocol and student from which HLR is taken."""
    unaugmented: str | None
    """The protocol from which the second half of ARS is taken."""
    rows: list[Score]
    notes: list[str]
    """Why a score is missing, and what to run for it."""


def normalised(gain: float) -> float:
    """100 (e^α − e^−1) / (e − e^−1) for α in −1 … 1: 0 at −1, 100 at 1."""
    return 100 * (math.exp(gain) - math.exp(-1)) / (math.e - math.exp(-1))


def score_tables(store: Store, grouped: Sequence[Table]) -> list[ScoreTable]:
    """The scores of every leaderboard with augmentation that has `random`: a table with soft labels once for each one
    with hard labels of the same images that it can be compared with."""
    found = []
    for group in grouped:
        if group.key.ipc is None or _is_plain(group) or not _companion(group, LOWER, None):
            continue
        hard: list[Table | None] = [group]
        if group.key.teacher_sha256 is not None:
            hard = [*_with_hard_labels(group, grouped)] or [None]
        for other in hard:
            found.append(_table(store, group, other, _unaugmented(group, grouped)))
    return found


def _table(store: Store, soft: Table, hard: Table | None, plain: Table | None) -> ScoreTable:
    key, notes = soft.key, []
    if hard is None:
        notes.append(
            f"No LRS: {key.protocol} has soft labels, and HLR needs {UPPER} and these methods under a protocol with "
            "hard labels on the same images."
        )
    elif _companion(hard, UPPER, None) is None:
        notes.append(f"No LRS: HLR needs {UPPER} under {hard.key.protocol} (`bench run --method {UPPER}`).")
    if plain is None:
        notes.append(f"No ARS: it needs the same methods under {_plain_label(soft)} too (`bench run --protocol`).")
    rows = [
        score
        for row in soft.rows
        if row.sets and not row.reference and (score := _score(store, soft, row, hard, plain)) is not None
    ]
    names = [score.method for score in rows]
    for score in rows:
        if names.count(score.method) == 1:
            score.qualifiers.clear()
    return ScoreTable(
        title=soft.title,
        name=f"lrs@{key.protocol}",
        dataset=key.dataset,
        ipc=key.ipc or 0,
        protocol=key.protocol,
        student=key.student,
        hard=None if hard is None else f"{hard.key.protocol}, {hard.key.student}",
        unaugmented=None if plain is None else plain.key.protocol,
        rows=sorted(rows, key=lambda score: -(score.lrs.value if score.lrs else score.ior)),
        notes=notes,
    )


def _score(store: Store, soft: Table, row: Row, hard: Table | None, plain: Table | None) -> Score | None:
    lower = _companion(soft, LOWER, row)
    if lower is None:
        return None
    n_test = row.finished[0].data.n_test
    ior = _difference(row, lower)
    hlr, lrs, ars = None, None, None
    twin = row if hard is soft else _same(hard, row)
    upper = None if hard is None else _companion(hard, UPPER, row)
    if twin is not None and upper is not None:
        hlr = _difference(upper, twin)
        terms = [(row, 0.5), (lower, -0.5), (upper, -0.5), (twin, 0.5)]
        lrs = _interval(store, terms, n_test)
    bare, bare_lower = _same(plain, row), None if plain is None else _companion(plain, LOWER, row)
    if bare is not None and bare_lower is not None:
        ars = _interval(store, [(row, 0.5), (lower, -0.5), (bare, 0.5), (bare_lower, -0.5)], n_test)
    key = row.key
    facts = (key.prior_sha256, key.precision, key.distill_device, key.images_sha256 or key.method)
    return Score(
        method=row.label,
        qualifiers=[fact[:8] for fact in facts if fact is not None],
        sets=len(row.sets),
        hlr=hlr,
        ior=ior,
        lrs=lrs,
        ars=ars,
    )


def _interval(store: Store, terms: Sequence[tuple[Row, float]], n_test: int) -> Interval:
    """The score of a weighted sum of accuracies, with sets and test images as crossed random factors. It rises with
    the sum, so the ends of the sum's interval are those of the score's."""
    weights: dict[int, float] = {}
    rows = {id(row): row for row, _ in terms}
    for row, weight in terms:
        weights[id(row)] = weights.get(id(row), 0.0) + weight
    # Where a method is its own reference, nothing of it is left.
    left = [key for key, weight in weights.items() if weight]
    if not left:
        return Interval(value=normalised(0.0), low=None, high=None)
    scores = [scores_of(store, rows[key]) for key in left]
    found = crossed.comparison_of(crossed.contrast_of(scores, [weights[key] for key in left], n_test))
    low, high = (None if end is None else normalised(min(max(end / 100, -1.0), 1.0)) for end in (found.low, found.high))
    return Interval(value=normalised(found.difference / 100), low=low, high=high)


def _difference(a: Row, b: Row) -> float:
    """Of mean accuracies over sets, as a fraction."""
    if a is b:
        return 0.0
    means = [crossed.summary(row.accuracies("acc_last")).mean for row in (a, b)]
    return (means[0] - means[1]) / 100


def _companion(group: Table, name: str, row: Row | None) -> Row | None:
    """The reference row of that name whose students ran on the row's device, else any."""
    rows = [other for other in group.rows if other.label == name and other.method is not None and other.sets]
    near = [other for other in rows if row is None or other.key.evaluate_device == row.key.evaluate_device]
    return next(iter(near or rows), None)


def _same(group: Table | None, row: Row) -> Row | None:
    """The row of the same method as run in another table, its students on whatever device."""
    if group is None:
        return None

    def brought(other: Row) -> tuple[object, ...]:
        one = other.key
        return one.method, one.images_sha256, one.prior_sha256, one.precision, one.distill_device

    rows = [other for other in group.rows if other.sets and brought(other) == brought(row)]
    near = [other for other in rows if other.key.evaluate_device == row.key.evaluate_device]
    return next(iter(near or rows), None)


def _images(group: Table) -> tuple[object, ...]:
    key = group.key
    return key.dataset, key.split, key.resolution, key.ipc, key.content_hash


def _with_hard_labels(group: Table, grouped: Sequence[Table]) -> list[Table]:
    return [
        other
        for other in grouped
        if other.key.teacher_sha256 is None and _images(other) == _images(group) and not _is_plain(other)
    ]


def _is_plain(group: Table) -> bool:
    return group.rows[0].cells[0].spec.protocol.overrides.get("augmentation") is False


def _unaugmented(group: Table, grouped: Sequence[Table]) -> Table | None:
    """The same students on the same images under the same protocol, without augmentation and CutMix."""
    wanted = _plain_label(group)
    same = (
        other
        for other in grouped
        if other.key.protocol == wanted
        and (other.key.student, other.key.teacher_sha256) == (group.key.student, group.key.teacher_sha256)
        and _images(other) == _images(group)
    )
    return next(same, None)


def _plain_label(group: Table) -> str:
    spec = group.rows[0].cells[0].spec.protocol
    entry = PROTOCOLS.entries().get(spec.name)
    without = dict(WITHOUT)
    # An override that changes nothing is not in the label.
    if entry is not None and not PROTOCOLS.load(spec.name).cutmix:
        del without["cutmix"]
    return f"{spec.name}{brackets({**spec.overrides, **without})}@{spec.version}"

"""A leaderboard against what its rows cost: seconds on one kind of device, or bytes, and the Pareto front.

Only what was recorded is placed: a row whose cost is not known is named with the reason. Rows of other hardware have an
axis, and a front, of their own: an hour of one machine is not an hour of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ddbench.benchmark.core.result import Record
from ddbench.reports.results.rows import Problem
from ddbench.reports.results.words import counted
from ddbench.reports.statistics.crossed import Summary
from ddbench.reports.tables.notes import MIXED_HARDWARE
from ddbench.reports.tables.pareto import Rivals, pareto_front, rivals
from ddbench.reports.tables.views import Leaderboard, RowView, TableView

By = Literal["cost", "bytes"]
Standing = Literal["front", "front on means", "not separated", "behind", "no part", "not placed"]
"""Where a row stands to the Pareto front of its axis."""
KEY = ("dataset", "split", "split_hash", "content_hash", "resolution", "ipc", "protocol", "protocol_hash", "student")
DECIMALS = 9
"""Accuracies that agree so far are equal; sums in another order differ by less."""


class CostRow(Record):
    """A row of a leaderboard and what it costs."""

    id: str
    """Id of the row: the method as run has the same in every table."""
    method: str
    """The method as leaderboards call it."""
    qualifiers: tuple[str, ...] = ()
    """What tells this row from others of the table where the name does not: prior, precision, device, version."""
    reference: bool
    """It takes no rank: the whole training set, or a set with test images in it."""
    done: int
    """Finished students."""
    expected: int
    """Students that were asked for."""
    acc_last: Summary | None
    distill_seconds: float | None = None
    """Wall-clock of making one set, cold: what came from a cache at its original cost. Mean over sets."""
    labelling_seconds: float | None = None
    """Wall-clock of labelling for one student: 0 for hard labels; with a teacher that of the student's whole training,
    within which it labels, since that is not timed apart."""
    teacher_passes: float | None = None
    """Images that a teacher labelled for one student, each as often as it passed, of several teachers each one's; mean
    over students."""
    image_bytes: float | None = None
    """What the image files of a set take; mean over sets."""
    label_bytes: float | None = None
    """What the labels of one student take: 0 for hard labels, which are the folders' names; the set's own soft labels,
    if they are used; a teacher's, where the protocol's program stores them, else 0."""
    amount: float | None = None
    """What its axis shows: distilling and labelling in seconds, or images and labels in bytes; none where a part of it
    is not known."""
    standing: Standing = "not placed"
    """`front`: better by the table's test than every row of its axis that costs no more. `front on means`: on the front
    by the means, and not told apart from one that costs no more. `not separated`: off it by the means, and none that
    costs no more is better by the test. `behind`: one is. `no part`: references, and rows with students to come. `not
    placed`: its cost is not known."""
    on_front: bool = False
    """No other row of its axis has at least its mean accuracy at no more cost, one of the two strictly."""
    better: tuple[str, ...] = ()
    """Rows of its axis that cost no more and are better by the test, in the leaderboard's order."""
    not_told_apart: tuple[str, ...] = ()
    """Rows of its axis that cost no more and that the test does not tell it apart from."""
    why_not: str | None = None
    """Why it is on no axis."""

    @property
    def name(self) -> str:
        """The method with its qualifiers: no other row of the table has it."""
        return " · ".join([self.method, *self.qualifiers])


class CostAxis(Record):
    """Rows whose costs can be compared, the cheapest first."""

    unit: Literal["seconds", "bytes"]
    """What its amounts are: seconds, bytes."""
    device: str | None
    """Type of the device whose seconds these are: cpu, cuda; none for bytes."""
    hardware: str | None
    """Model of that device, of a CPU with its threads; none for bytes."""
    rows: list[CostRow]

    @property
    def shared(self) -> list[str]:
        """The qualifiers that all of several rows have."""
        common = set.intersection(*(set(row.qualifiers) for row in self.rows)) if len(self.rows) > 1 else set()
        return [one for one in (self.rows[0].qualifiers if common else ()) if one in common]

    @property
    def names(self) -> dict[str, str]:
        """Id of a row -> the method with the qualifiers that not all rows share."""
        shared = self.shared
        return {r.id: " · ".join([r.method, *(q for q in r.qualifiers if q not in shared)]) for r in self.rows}


class CostTable(Record):
    """One leaderboard by what its rows cost; the keys that both have mean the same (`TableView`)."""

    title: str
    dataset: str
    split: str
    split_hash: str | None
    content_hash: str | None
    resolution: int
    ipc: int | None
    protocol: str
    protocol_hash: str
    modified_protocol: bool
    student: str
    settings: list[str]
    by: By
    """What an axis shows: cost, the seconds of distilling and labelling; bytes, those of images and labels."""
    axes: list[CostAxis]
    """One for each kind of hardware; the one with the most rows first."""
    not_placed: list[CostRow]
    """Rows whose cost is not known."""
    counted: list[str]
    """What is counted as cost, and what is not."""
    legend: list[str]
    """How to read where rows stand."""
    notes: list[str]
    """What a reader must know before comparing costs."""
    table_notes: list[str]
    """What one must know before believing the leaderboard's numbers; not that times are of several machines, which have
    axes of their own here."""


class CostBoard(Record):
    schema_version: int = 1
    tables: list[CostTable]
    problems: list[Problem]
    """Files that could not be used, and stale evaluations."""


def cost_board(board: Leaderboard, by: By) -> CostBoard:
    """All tables of a leaderboard by cost."""
    return CostBoard(tables=[cost_table(table, by) for table in board.tables], problems=board.problems)


def cost_table(table: TableView, by: By) -> CostTable:
    """A table by cost: the rows whose cost is known, on one axis for each kind of hardware, with the front of each.

    Args:
        by: `cost`, the seconds of distilling one set cold and of labelling for one student; or `bytes`, what images
            and labels take.
    """
    groups, not_placed = _placed(table, by)
    better = _better_by(table)
    unit: Literal["seconds", "bytes"] = "seconds" if by == "cost" else "bytes"
    made = CostTable(
        **{name: getattr(table, name) for name in ("title", "settings", "modified_protocol", *KEY)},
        by=by,
        axes=[
            CostAxis(unit=unit, device=device, hardware=hardware, rows=_with_front(members, better))
            for (device, hardware), members in sorted(groups.items(), key=lambda one: (-len(one[1]), str(one[0])))
        ],
        not_placed=not_placed,
        counted=_counted(table, by),
        legend=[],
        notes=[],
        table_notes=[note for note in table.notes if not note.startswith(MIXED_HARDWARE)],
    )
    made.legend, made.notes = _legend(made), _notes(made)
    return made


Members = list[tuple[int, CostRow]]
"""(index into the table's rows, row) of rows that one axis shows."""


def _placed(table: TableView, by: By) -> tuple[dict[tuple[str | None, str | None], Members], list[CostRow]]:
    """((type of device, hardware) -> rows, the rows whose cost is not known)."""
    groups: dict[tuple[str | None, str | None], Members] = {}
    not_placed = []
    for index, row in enumerate(table.rows):
        costs = _costs(table, row)
        amount, why_not = _seconds(table, row, costs) if by == "cost" else _bytes(costs)
        if row.acc_last is None:
            amount, why_not = None, "no student has finished"
        if amount is None:
            not_placed.append(costs.model_copy(update={"why_not": why_not}))
            continue
        place = (row.distill_device, _where(row)) if by == "cost" else (None, None)
        groups.setdefault(place, []).append((index, costs.model_copy(update={"amount": amount})))
    return groups, not_placed


# What a row costs -----------------------------------------------------------------------------------------------------


def _costs(table: TableView, row: RowView) -> CostRow:
    """A row with those of its costs that are known."""
    labelling, label_bytes = _labels(table, row)
    return CostRow(
        id=row.id,
        method=row.method,
        qualifiers=tuple(row.qualifiers),
        reference=row.reference,
        done=row.done,
        expected=row.expected,
        acc_last=row.acc_last,
        distill_seconds=row.cost.distill_cold_seconds,
        labelling_seconds=labelling,
        teacher_passes=row.teacher_passes,
        image_bytes=row.image_bytes,
        label_bytes=label_bytes,
    )


def _labels(table: TableView, row: RowView) -> tuple[float | None, float | None]:
    """(seconds, bytes) of the labels of one student; None where they were not recorded."""
    if row.own_labels_used:
        return None, row.label_bytes
    if table.teacher is None:
        return 0.0, 0.0
    stored = 0.0 if row.teacher_passes is not None and row.stored_label_bytes is None else row.stored_label_bytes
    return row.cost.evaluate_seconds_per_student, stored


Amount = tuple[float | None, str | None]
"""(what an axis shows of a row, why it cannot): one of the two."""


def _seconds(table: TableView, row: RowView, costs: CostRow) -> Amount:
    if row.distill_device is None:
        return None, "made elsewhere: what distilling it cost is not recorded"
    for stage, seconds in (("distilling", costs.distill_seconds), ("labelling", costs.labelling_seconds)):
        if seconds is None:
            shared = "was measured on a GPU that others were using" if row.cost.shared_gpu else "is not recorded"
            return None, f"what {stage} cost {shared}"
    made = _devices(row.distill_device, row.cost.distill_hardware, row.cost.distill_threads)
    if len(made) != 1:
        return None, f"its sets were made on {_named(made)}"
    labelled = _devices(row.evaluate_device, row.cost.evaluate_hardware, row.cost.evaluate_threads)
    if table.teacher is not None and labelled != made:
        return None, f"its sets were made on {_named(made)}, its labels on {_named(labelled)}: not summed"
    return (costs.distill_seconds or 0.0) + (costs.labelling_seconds or 0.0), None


def _bytes(costs: CostRow) -> Amount:
    for what, taken in (("images", costs.image_bytes), ("labels", costs.label_bytes)):
        if taken is None:
            return None, f"what its {what} take is not recorded"
    return (costs.image_bytes or 0.0) + (costs.label_bytes or 0.0), None


def _devices(device: str, models: Sequence[str], threads: Sequence[int]) -> list[str]:
    """What cells ran on; seconds of a CPU are those of so many threads of it."""
    if device != "cpu":
        return list(models)
    return [f"{model}, {counted(n, 'thread')}" for model in models for n in threads]


def _named(devices: Sequence[str]) -> str:
    return " and ".join(devices) or "hardware that is not recorded"


def _where(row: RowView) -> str:
    """The one kind of hardware of a row whose seconds are known."""
    (where,) = _devices(row.distill_device or "", row.cost.distill_hardware, row.cost.distill_threads)
    return where


# Where it stands ------------------------------------------------------------------------------------------------------


def _better_by(table: TableView) -> Callable[[int, int], bool]:
    """Whether the first row (index into the table's rows) is better than the second beyond what chance explains."""
    separated = [pair for pair in table.pairs if pair.comparison.separates]
    better = {(pair.a, pair.b) if pair.comparison.difference > 0 else (pair.b, pair.a) for pair in separated}
    return lambda a, b: (a, b) in better


def _with_front(members: Members, better: Callable[[int, int], bool]) -> list[CostRow]:
    """The rows of one axis with their standing, the cheapest first. References and rows with students to come are shown
    without a part in it, as they take no rank above complete rows.

    Args:
        better: of two indices into the table's rows.
    """
    part = [(index, row) for index, row in members if not row.reference and row.done >= row.expected]
    points = [_point(row) for _, row in part]
    front = pareto_front(points)
    tested = rivals([cost for cost, _ in points], lambda i, j: better(part[i][0], part[j][0]))
    found = {row.id: row.model_copy(update={"standing": "no part"}) for _, row in members}
    for place, ((_, row), beside) in enumerate(zip(part, tested, strict=True)):
        found[row.id] = row.model_copy(
            update={
                "standing": _standing(place in front, beside),
                "on_front": place in front,
                "better": tuple(part[i][1].name for i in beside.better),
                "not_told_apart": tuple(part[i][1].name for i in beside.untold),
            }
        )
    return sorted(found.values(), key=lambda row: (_point(row)[0], -_point(row)[1], row.name))


def _standing(on_front: bool, beside: Rivals) -> Standing:
    if beside.better:
        return "behind"
    if not on_front:
        return "not separated"
    return "front on means" if beside.untold else "front"


def _point(row: CostRow) -> tuple[float, float]:
    """(cost, mean accuracy) of a row that is placed."""
    assert row.amount is not None
    assert row.acc_last is not None
    return row.amount, round(row.acc_last.mean, DECIMALS)


# What is said of it ---------------------------------------------------------------------------------------------------


def _counted(table: TableView, by: By) -> list[str]:
    own = any(row.own_labels_used for row in table.rows)
    if by == "cost":
        labels = (
            "; hard labels cost nothing."
            if table.teacher is None
            else ", and that of one student's whole training: the teacher labels within it and is not timed apart, so "
            "labelling costs at most this."
        )
        return [
            "Cost: wall-clock of distilling one set, cold: what came from a cache at its original cost, without waiting"
            + (labels if not own else "."),
            "Not counted: training priors and teachers that were there before, and choosing parameters.",
        ]
    if own:
        labels = ", and the soft labels that came with them."
    elif table.teacher is None:
        labels = "; hard labels are the folders' names and count nothing."
    elif any(row.stored_label_bytes is not None for row in table.rows):
        labels = ", and the labels of one student as the protocol's program stores them."
    else:
        labels = "; the teacher labels while a student trains and nothing is stored, so labels count nothing."
    teacher = [] if table.teacher is None else ["Not counted: the teacher's weights."]
    return [
        "Bytes: a set's image files as they are stored (compressed, so sets of as many images differ)" + labels,
        *teacher,
    ]


def _legend(made: CostTable) -> list[str]:
    shown = {row.standing for axis in made.axes for row in axis.rows}
    said = {
        "front": "front: better by the test than every row that costs no more (the cheapest has no such rival).",
        "front on means": "front on means: no other row has at least its mean at no more cost, but the test does not "
        "tell it apart from one that costs no more.",
        "not separated": "not separated: a row that costs no more has at least its mean, but none is better by the "
        "test.",
        "behind": "behind: a row that costs no more is better by the test.",
    }
    found = [text for standing, text in said.items() if standing in shown]
    if found:
        chance = ": small differences of times may be chance." if made.by == "cost" else "."
        found.append("The test is the leaderboard's: two-sided 5 %, per pair.")
        found.append(f"Costs are means, taken as they are{chance}")
    return found


def _notes(made: CostTable) -> list[str]:
    found = []
    if len(made.axes) > 1:
        found.append(f"Times of different hardware are not compared: {len(made.axes)} kinds, each with its own front.")
    for row in (row for axis in made.axes for row in axis.rows):
        if row.done < row.expected and not row.reference:
            found.append(f"{row.name}: {row.done} of {row.expected} students done, so it takes no part in the front.")
    return found

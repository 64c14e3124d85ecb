"""Leaderboards by cost as text: terminal and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.text import Text

from ddbench.reports.output.columns import Column, accuracy_text, spread
from ddbench.reports.output.formats import Fitted, escaped, left_out_markdown, markdown_table, too_narrow
from ddbench.reports.output.number_text import NONE, NOTHING, digits, number
from ddbench.reports.output.terminal import hanging, left_out, print_table
from ddbench.reports.tables.cost_board import CostAxis, CostBoard, CostRow, CostTable

HOUR = 3600
KIB = 1024


@dataclass(frozen=True)
class Unit:
    """What the numbers of an axis are shown in."""

    name: str
    """`GPU h`, `CPU s`, `MiB`."""
    size: float
    """Seconds or bytes of one."""

    def text(self, amount: float | None) -> str:
        return NONE if amount is None else digits(amount / self.size)


def unit_of(axis: CostAxis) -> Unit:
    """The unit that suits the dearest row."""
    most = max((row.amount or 0.0 for row in axis.rows), default=0.0)
    if axis.unit == "seconds":
        of = "GPU" if axis.device == "cuda" else (axis.device or "").upper()
        return Unit(f"{of} h", HOUR) if most >= HOUR / 10 else Unit(f"{of} s", 1)
    names = ("bytes", "KiB", "MiB", "GiB")
    power = next((power for power in range(4) if most < 10 * KIB ** (power + 1)), 3)
    return Unit(names[power], KIB**power)


def heading(axis: CostAxis) -> str:
    """What an axis shows, and what all its rows share: `GPU hours on NVIDIA H200`."""
    if axis.unit == "bytes":
        return " · ".join(["Bytes of images and labels", *axis.shared])
    of = "GPU" if axis.device == "cuda" else (axis.device or "").upper()
    what = f"{of} {'hours' if unit_of(axis).size == HOUR else 'seconds'} on {axis.hardware}"
    return " · ".join([what, *axis.shared])


@dataclass(frozen=True)
class Part:
    """A column of what a cost is made of."""

    key: str
    header: str
    value: Callable[[CostRow], float | None]
    unit: Unit | None = None
    """None: a plain number."""

    def text(self, row: CostRow) -> str:
        value = self.value(row)
        return number(value, 0) if self.unit is None else self.unit.text(value)


def parts(table: CostTable, axis: CostAxis) -> list[Part]:
    """What the costs of this axis are made of, where it is more than one thing, and the passes of a teacher."""
    unit, rows, found = unit_of(axis), axis.rows, list[Part]()
    if table.by == "cost" and any(row.labelling_seconds for row in rows):
        found.append(Part("distill", f"distilling {unit.name}", lambda row: row.distill_seconds, unit))
        found.append(Part("labelling", f"labelling ≤ {unit.name}", lambda row: row.labelling_seconds, unit))
    elif table.by == "bytes" and any(row.label_bytes for row in rows):
        found.append(Part("images", f"images {unit.name}", lambda row: row.image_bytes, unit))
        found.append(Part("labels", f"labels {unit.name}", lambda row: row.label_bytes, unit))
    if any(row.teacher_passes is not None for row in rows):
        found.append(Part("passes", "teacher passes", lambda row: row.teacher_passes))
    return found


def columns(table: CostTable, axis: CostAxis) -> list[Column[CostRow]]:
    """The columns that this axis needs."""
    unit, names = unit_of(axis), axis.names
    behind = any(row.better for row in axis.rows)
    return [
        Column("method", "method", lambda row: marked(row, names[row.id]), left=True, folds=True),
        Column("accuracy", "acc %", lambda row: spread(row.acc_last)),
        Column("interval", "95 % interval", lambda row: accuracy_text(row.acc_last), keep=1),
        Column("amount", unit.name, lambda row: unit.text(row.amount)),
        *(Column(part.key, part.header, part.text, keep=3 if part.unit else 4) for part in parts(table, axis)),
        Column("standing", "Pareto front", standing, left=True),
        *([Column("behind", "behind", lambda row: first_better(axis, row), keep=2, left=True)] if behind else []),
    ]


def marked(row: CostRow, name: str) -> str:
    """A row's name with the sign of one set."""
    return f"{name} †" if row.acc_last is not None and row.acc_last.n == 1 else name


def standing(row: CostRow) -> str:
    """Where a row stands, or why it takes no part."""
    if row.standing != "no part":
        return row.standing
    return "not ranked" if row.reference else f"{row.done} of {row.expected} done"


def first_better(axis: CostAxis, row: CostRow) -> str:
    """The first of the rows that are better at no more cost, and how many more there are."""
    if not row.better:
        return ""
    name = next(axis.names[other.id] for other in axis.rows if other.name == row.better[0])
    return name + (f" +{len(row.better) - 1}" if len(row.better) > 1 else "")


def reading(table: CostTable) -> list[str]:
    """How to read where rows stand."""
    single = any(row.acc_last is not None and row.acc_last.n == 1 for axis in table.axes for row in axis.rows)
    mark = ["† one set: ± over its students; where it stands holds for this set, not for the method."] if single else []
    return [*table.legend, *mark]


def not_placed(table: CostTable) -> list[str]:
    """The rows whose cost is not known by reason, each with its accuracy."""
    names: dict[str, list[str]] = {}
    for row in table.not_placed:
        accuracy = "" if row.acc_last is None else f" ({row.acc_last.mean:.2f} %)"
        names.setdefault(row.why_not or "", []).append(row.name + accuracy)
    return [f"{', '.join(of)}: {why}" for why, of in names.items()]


NOT_PLACED = "On no axis:"


def print_terminal(board: CostBoard, console: Console) -> None:
    """Print all tables, each as wide as it needs and no wider than the console."""
    for table in board.tables:
        _print_table(table, console)
    if not board.tables:
        console.print(NOTHING)
    if board.problems:
        console.print(left_out(board.problems))


def _print_table(table: CostTable, console: Console) -> None:
    settings = [Text(" · ".join(table.settings), style="dim")] if table.settings else []
    console.print(Group(Text(table.title, style="bold"), *settings))
    dropped: dict[str, None] = {}
    for axis in table.axes:
        names = [marked(row, axis.names[row.id]) for row in axis.rows]
        fitted = Fitted.to(console.width, columns(table, axis), axis.rows, names)
        console.print(Text(heading(axis)))
        print_table(fitted.drawn(axis.rows, _style), console)
        dropped |= dict.fromkeys(fitted.dropped)
    if table.not_placed:
        console.print(Group(Text(NOT_PLACED), *map(hanging, not_placed(table))))
    notes = [*table.notes, *table.table_notes, *too_narrow(list(dropped))]
    said = [hanging(note, style="dim") for note in notes]
    console.print(Group(Text(" ".join([*table.counted, *reading(table)]), style="dim"), *said, Text()))


def _style(row: CostRow) -> str:
    return {"front": "bold", "front on means": "bold", "no part": "italic" if row.reference else "dim"}.get(
        row.standing, ""
    )


def markdown(board: CostBoard) -> str:
    blocks = [_markdown_table(table) for table in board.tables] or [NOTHING]
    if board.problems:
        blocks.append(left_out_markdown(board.problems))
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: CostTable) -> str:
    lines = [f"### {escaped(table.title)}", ""]
    if table.settings:
        lines += [escaped(" · ".join(table.settings)), ""]
    for axis in table.axes:
        lines += [f"{escaped(heading(axis))}:", "", *markdown_table(columns(table, axis), axis.rows), ""]
    if table.not_placed:
        lines += [NOT_PLACED, "", *_items(not_placed(table)), ""]
    lines += [escaped(" ".join([*table.counted, *reading(table)])), "", *_items([*table.notes, *table.table_notes])]
    return "\n".join(lines).rstrip()


def _items(texts: Sequence[str]) -> list[str]:
    return [f"- {escaped(text)}" for text in texts]

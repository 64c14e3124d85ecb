"""Every published number that is carried, and what can be done about it here: it was run, it can be run, or why not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS, Registry
from ddbench.benchmark.core.result import Record
from ddbench.reports.results import groups
from ddbench.reports.results.paper_numbers import (
    KNOWN_PRIORS,
    PAPERS_PRIOR,
    RESOLUTIONS,
    STUDENTS,
    Key,
    PaperNumber,
    all_published,
    crops_of,
    key_of,
    stands_beside,
)
from ddbench.reports.results.settings import selector_of
from ddbench.reports.statistics import crossed

Standing = Literal["run", "can be run", "cannot"]
CROPS = "soft-rded-half"
"""What is offered where it is not known how images were cropped: the form for whole images."""
TEXT_TO_IMAGE = {"SDXL": "sdxl", "(SD)": "sd-1.5"}
"""What printed names say of the prior -> its name here."""
PRINTED_HERE = {
    ("2512.03844", "CoDA (SDXL)"): "coda",
    ("2512.03844", "CoDA as released (ImageNet split)"): "coda-real",
    ("2512.03844", "SDXL unguided (gamma=0)"): "coda[guidance_scale=0]",
}
"""(paper, what it prints) -> what runs it here. Shown with its command, and joined with nothing: its rows are carried
without a method."""


class FieldCell(Record):
    """One published number."""

    method: str | None
    """What runs it, a name or a selector; None for a method that is not here."""
    prior: str | None = None
    """The prior that it takes, where that is not the dataset's own."""
    dataset: str
    ipc: str
    student: str
    """As the paper calls it."""
    protocol: str
    """The evaluator that made the number; empty or `unknown` where its source does not say."""
    paper: PaperNumber
    year: int | None
    """In which the paper appeared, by its arXiv number; None where that is not known."""
    standing: Standing
    acc_best: float | None = None
    """Best look here, mean over sets, percent; None unless it was run."""
    table: str | None = None
    """Title of the table in which it was run."""
    how: str
    """The command that runs it, or why it cannot be run here."""


def build(tables: Sequence[groups.Table]) -> list[FieldCell]:
    """All published accuracies, by dataset, IPC, protocol, student and method."""
    here = _run_here(tables)
    cells = [_cell(key, number, here) for key, number in all_published()]
    return sorted(cells, key=lambda c: (c.dataset, _number(c.ipc), c.protocol, c.student, c.paper.printed_as.lower()))


def counts(cells: Sequence[FieldCell]) -> dict[Standing, int]:
    """Standing -> numbers."""
    found = Counter(cell.standing for cell in cells)
    return {"run": found["run"], "can be run": found["can be run"], "cannot": found["cannot"]}


Here = dict[Key, list[tuple[groups.Table, groups.Row]]]
"""Published cell -> the finished rows that have its conditions, on whatever prior."""


def _run_here(tables: Sequence[groups.Table]) -> Here:
    found: Here = {}
    for table in tables:
        for row in table.rows:
            spec = row.cells[0].spec
            if spec.protocol.overrides or not row.finished:
                continue
            key = key_of(row.label, **table.key.conditions(spec.protocol.name, whole_set=row.whole_set))
            if key is not None:
                found.setdefault(key, []).append((table, row))
    return found


def _run(number: PaperNumber, rows: Sequence[tuple[groups.Table, groups.Row]]) -> tuple[str, float] | None:
    """The table that has a row of a published number, and its best look, mean over sets."""
    for table, row in rows:
        if stands_beside(number, row.label, row.prior, row.cells[0].spec.protocol.name):
            return table.title, crossed.summary(row.accuracies("acc_best")).mean
    return None


def _cell(key: Key, number: PaperNumber, here: Here) -> FieldCell:
    name, dataset, ipc, student, protocol = key
    method = name or selector_of(number) or PRINTED_HERE.get((number.arxiv, number.printed_as))
    prior = number.prior if method is not None and number.prior != PAPERS_PRIOR else None
    why = _why_not(method, number, dataset, ipc, student, protocol)
    # A row without a name has the key of all of its cell's: what ran under a name is not it.
    run = _run(number, here.get(key, ())) if name else None
    standing: Standing = "run" if run else "cannot" if why else "can be run"
    return FieldCell(
        method=method,
        prior=prior,
        dataset=dataset,
        ipc=ipc,
        student=student,
        protocol=protocol,
        paper=number,
        year=_year(number.arxiv),
        standing=standing,
        table=run[0] if run else None,
        acc_best=run[1] if run else None,
        how=why
        or _command(method or "", dataset, ipc, student, protocol_here(method or "", protocol, number.arxiv), prior),
    )


def _command(method: str, dataset: str, ipc: str, student: str, protocol: str, prior: str | None) -> str:
    """What makes the number here, at the number of sets and students that is the dataset's headline."""
    count = "" if ipc == "full" else f" --ipc {ipc}"
    chosen = f"'{method}'" if "[" in method else method
    trained = student_here(protocol, student)
    on = "" if prior is None else f" --prior {prior}"
    return f"bench run -m {chosen} -d {dataset}{count} --protocol {protocol} --student {trained}{on}"


def protocol_here(method: str, protocol: str, arxiv: str) -> str:
    """The registered protocol of the evaluator that a paper's row of a method names."""
    if protocol != "soft-rded":
        return protocol
    return crops_of(arxiv, method) or CROPS


def student_here(protocol: str, student: str) -> str:
    """A student under its name here: evaluators of one family call ResNets with BatchNorm as others call
    theirs without."""
    known: Any = PROTOCOLS.load(protocol)
    if student in known.students:
        return student
    return next((ours for ours in known.students if STUDENTS.get(ours) == student), student)


def _why_not(
    method: str | None, number: PaperNumber, dataset: str, ipc: str, student: str, protocol: str
) -> str | None:
    """Why a published cell cannot be run here; None where it can."""
    if method is None:
        return _of_unknown(number.printed_as)
    if method.partition("[")[0] not in METHODS:
        return _unavailable(METHODS, method)
    if number.because is not None:
        return number.because
    if number.prior not in KNOWN_PRIORS:
        return f"it was made on {number.prior}"
    if dataset not in DATASETS:
        return _unavailable(DATASETS, dataset)
    if protocol in ("", "unknown"):
        return "its source does not say which evaluator made it"
    name = protocol_here(method, protocol, number.arxiv)
    if name not in PROTOCOLS:
        return _unavailable(PROTOCOLS, protocol)
    known: Any = PROTOCOLS.load(name)
    if student_here(known.name, student) not in known.students:
        return f"{known.id} does not train {student}"
    return _of_another_size(known, dataset) or _without_a_rate(known, dataset, student_here(known.name, student), ipc)


def _without_a_rate(protocol: Any, dataset: str, student: str, ipc: str) -> str | None:
    """Why a protocol with learning rates of its program's cells does not train in this one; None where it does."""
    try:
        protocol.rate_of(dataset, student, None if ipc == "full" else int(ipc))
    except UsageError:
        return f"the program of {protocol.id} has no learning rate for {student} on {dataset} at IPC {ipc}"
    return None


def _of_another_size(protocol: Any, dataset: str) -> str | None:
    """Why a protocol is not the evaluator that papers use on small images under its name; None where it is."""
    declared: Any = DATASETS.load(dataset)
    trained_at = protocol.image_size_for(declared.resolution)
    if declared.resolution in RESOLUTIONS or trained_at == declared.resolution:
        return None
    return (
        f"{protocol.id} trains at {trained_at} px, and the published students of {dataset} are networks for its "
        f"{declared.resolution} px"
    )


def _of_unknown(printed_as: str) -> str:
    """Of a row whose method has no name here: it may be a setting of one that is known."""
    if near := known_of(printed_as):
        return f"{near}: {METHODS.unavailable[near]}"
    for mark, prior in TEXT_TO_IMAGE.items():
        if mark in printed_as:
            return f"made on a text-to-image prior (--prior {prior}) under a setting that has no name here"
    return "the setting of this row has no name here"


def known_of(printed_as: str) -> str | None:
    """The method that is not here, and known by name, whose setting a paper prints; the longest of several."""
    begins = [name for name in METHODS.unavailable if re.match(rf"{re.escape(name)}(?![a-z0-9])", printed_as.lower())]
    return max(begins, key=len, default=None)


def _unavailable(registry: Registry[Any], name: str) -> str:
    return registry.unavailable.get(name, f"{name}: no such {registry.kind} is registered")


def _year(arxiv: str) -> int | None:
    match = re.match(r"(\d\d)\d\d\.", arxiv)
    return 2000 + int(match[1]) if match else None


def _number(ipc: str) -> int:
    return int(ipc) if ipc.isdigit() else 10**6

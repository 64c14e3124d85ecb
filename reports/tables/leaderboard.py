"""Leaderboards as data: one table per ranking, every number unrounded. Imports no torch.

How numbers become a row (architecture.md section 6): students of one set are averaged, n counts sets; rows rank by
what a test over sets and test images can tell apart; an incomplete row ranks below complete ones and never vanishes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np

from ddbench.benchmark.core.result import Cost, DistillResult, PriorRecord, TeacherRecord
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.core.store import Store
from ddbench.reports.results import groups, rows
from ddbench.reports.results.paper_numbers import published
from ddbench.reports.results.paths import without_paths
from ddbench.reports.tables import statistics
from ddbench.reports.tables.notes import legend, notes
from ddbench.reports.tables.statistics import Comparison, SetScore
from ddbench.reports.tables.views import (
    CostRecord,
    Guidance,
    Leaderboard,
    LeaderboardRow,
    Pair,
    ProblemRecord,
    SetRecord,
    Table,
)

LOWER, UPPER = "random", "full"
"""The companions of every table, between which the gap is measured."""


def build(results: rows.Results) -> Leaderboard:
    """All tables of a results folder."""
    problems = [ProblemRecord(path=problem.path, reason=problem.reason) for problem in results.problems]
    for cell in results.evaluates.values():
        if cell.state == rows.STALE:
            problems.append(ProblemRecord(path=str(results.store.cell(cell.id).path), reason=f"stale: {cell.reason}"))
    return Leaderboard(tables=build_tables(results.store, groups.group(results)), problems=problems)


def build_tables(store: Store, grouped: Sequence[groups.Group]) -> list[Table]:
    """One table for each group, in their order."""
    named = titles([group.key for group in grouped])
    return [_table(store, group, title) for group, title in zip(grouped, named, strict=True)]


def titles(keys: Sequence[groups.TableKey]) -> list[str]:
    """What each table is called; hashes are added only where two would be called the same."""
    plain = []
    for key in keys:
        ipc = "whole training set" if key.ipc is None else f"IPC {key.ipc}"
        where = f"{key.dataset} ({key.split} split)"
        plain.append(" · ".join([where, ipc, key.protocol, key.student, f"{key.resolution} px"]))
    return [
        title
        if plain.count(title) == 1
        else f"{title} · data {(key.content_hash or 'unknown')[:8]} · protocol hash {key.protocol_hash[:8]}"
        + ("" if key.teacher_sha256 is None else f" · teacher {key.teacher_sha256[:8]}")
        for title, key in zip(plain, keys, strict=True)
    ]


def _table(store: Store, group: groups.Group, title: str) -> Table:
    key, members = group.key, group.rows
    students = [student for row in members for student in row.finished]
    n_test = students[0].data.n_test if students else 0
    scores = [[score_of(store, made) for made in row.sets] for row in members]
    comparisons = {
        (i, j): statistics.compare(scores[i], scores[j], n_test)
        for i, j in combinations(range(len(members)), 2)
        if n_test > 1 and scores[i] and scores[j] and not members[i].reference and not members[j].reference
    }
    ranks = _ranks(members, comparisons)
    settings, qualifiers = settings_of(members)
    teacher = next((student.result.teacher for student in students if student.result.teacher is not None), None)
    if teacher is not None:
        settings.append(_teacher(teacher))
    built = [
        _row(row, scores[i], qualifiers[i], rank=ranks[i], tied=ranks[i] is not None and ranks.count(ranks[i]) > 1)
        for i, row in enumerate(members)
    ]
    gap_notes = _close_gaps(built)
    protocol, modified = members[0].cells[0].spec.protocol, group.modified_protocol
    for one in built if not modified else ():
        one.papers = tuple(published(one.method, **key.conditions(protocol.name, whole_set=one.reference)))
    order = sorted(range(len(built)), key=lambda i: _place(built[i]))
    pairs = [Pair(a=order.index(i), b=order.index(j), comparison=pair) for (i, j), pair in comparisons.items()]
    table = Table(
        title=title,
        dataset=key.dataset,
        split=key.split,
        split_hash=key.split_hash,
        content_hash=key.content_hash,
        resolution=key.resolution,
        ipc=key.ipc,
        protocol=key.protocol,
        protocol_hash=key.protocol_hash,
        modified_protocol=modified,
        student=key.student,
        teacher=teacher,
        n_train=students[0].data.n_train if students else None,
        n_test=n_test or None,
        settings=settings,
        rows=[built[i] for i in order],
        pairs=pairs,
        legend=[],
        notes=[],
    )
    warnings = {rows.printable(student.data.warning) for student in students if student.data.warning}
    table.legend = legend(table)
    table.notes = [*notes(table, protocol.name, sorted(warnings)), *gap_notes]
    return table


def _teacher(teacher: TeacherRecord) -> str:
    accuracy = "of unknown accuracy" if teacher.accuracy is None else f"{teacher.accuracy:.2f} %"
    return f"teacher {teacher.network} {accuracy} ({teacher.sha256[:8]})"


def score_of(store: Store, made: groups.DistilledSet) -> SetScore:
    """What the statistics need of one distilled set; without predictions where a student's are missing."""
    arrays = [groups.correct(store, student) for student in made.students]
    known = [array for array in arrays if array is not None]
    return SetScore(
        students=tuple(student.metrics.acc_last for student in made.students),
        seed=made.seeds[0] if made.seeds else None,
        correct=np.mean(known, axis=0) if len(known) == len(arrays) else None,
    )


def _ranks(members: Sequence[groups.Row], comparisons: dict[tuple[int, int], Comparison]) -> list[int | None]:
    """Complete rows first, then incomplete ones; None for references and rows with nothing finished."""
    ranks: list[int | None] = [None] * len(members)
    above = 0
    for complete in (True, False):
        these = [i for i, row in enumerate(members) if row.complete is complete and row.finished and not row.reference]
        better = [[_better(comparisons, i, j) for j in these] for i in these]
        for i, rank in zip(these, statistics.ranks(better), strict=True):
            ranks[i] = above + rank
        above = len(these)
    return ranks


def _better(comparisons: dict[tuple[int, int], Comparison], i: int, j: int) -> bool:
    """Whether row i is better than row j beyond what chance explains."""
    sign, pair = (1, comparisons.get((i, j))) if i < j else (-1, comparisons.get((j, i)))
    return pair is not None and pair.separates and sign * pair.difference > 0


def _place(row: LeaderboardRow) -> tuple[bool, float, float, str]:
    rank = math.inf if row.rank is None else row.rank
    mean = row.acc_last.mean if row.acc_last else -math.inf
    return (row.reference, rank, -mean, row.method)


# Rows -----------------------------------------------------------------------------------------------------------------


def _row(
    row: groups.Row, scores: Sequence[SetScore], qualifiers: list[str], *, rank: int | None, tied: bool
) -> LeaderboardRow:
    sets, contestant = row.sets, row.contestant
    metrics = [[student.metrics for student in made.students] for made in sets]
    top5 = [[m.top5_last for m in students if m.top5_last is not None] for students in metrics]
    distills = _distills(row)
    return LeaderboardRow(
        id=contestant_id(contestant),
        rank=rank,
        tied=tied,
        reference=row.reference,
        method=row.label,
        qualifiers=qualifiers,
        spec=row.method,
        cost_class=next((made.cost_class for made in distills if made.cost_class), None),
        prior=_prior(row),
        prior_sha256=contestant.prior_sha256,
        precision=contestant.precision,
        distill_device=contestant.distill_device,
        evaluate_device=contestant.evaluate_device,
        done=len(row.finished),
        expected=len(row.cells),
        states=dict(sorted(Counter(cell.standing for cell in row.cells).items())),
        reasons=list(dict.fromkeys(why for cell in row.cells if not cell.ok and (why := cell.why))),
        students_per_set=sorted({len(made.students) for made in sets}),
        acc_last=statistics.summary([[m.acc_last for m in students] for students in metrics]) if sets else None,
        acc_best=statistics.summary([[m.acc_best for m in students] for students in metrics]) if sets else None,
        top5_last=statistics.summary(top5) if top5 and all(top5) else None,
        gap_closed_percent=None,
        cost=_cost(row, distills),
        guidance=_guidance(distills),
        sets=[
            SetRecord(
                image_set_sha256=made.image_set_sha256,
                seeds=list(made.seeds),
                acc_last=[student.metrics.acc_last for student in made.students],
                evaluate_seeds=[student.result.evaluate_seed for student in made.students],
                cells=tuple(sorted({s.cell.distill.id for s in made.students if s.cell.distill is not None})),
            )
            for made in sets
        ],
        has_predictions=all(score.correct is not None for score in scores),
    )


def contestant_id(contestant: groups.Contestant) -> str:
    return digest(asdict(contestant))[:12]


def _distills(row: groups.Row) -> list[DistillResult]:
    """The finished distill cells of a row, also of sets whose students are still to come."""
    cells = {cell.distill.id: cell.distill for cell in row.cells if cell.distill is not None}
    return [cell.result for cell in cells.values() if cell.result is not None and cell.result.status == "ok"]


def _prior(row: groups.Row) -> PriorRecord | None:
    results = [*_distills(row), *(student.result for student in row.finished)]
    return next((result.prior for result in results if result.prior is not None), None)


def _cost(row: groups.Row, distills: Sequence[DistillResult]) -> CostRecord:
    students = [student.result for student in row.finished]
    made, trained = [d.cost for d in distills if d.cost], [s.cost for s in students if s.cost]
    # Costs are compared only where nothing else used the GPU.
    alone, trained_alone = [c for c in made if not _shared(c)], [c for c in trained if not _shared(c)]
    return CostRecord(
        distill_cold_seconds=_mean(c.cold_seconds for c in alone),
        distill_spent_seconds=_mean(c.seconds for c in alone),
        evaluate_seconds_per_student=_mean(c.seconds for c in trained_alone),
        distill_gpu_peak_allocated_mib=_highest(c.gpu_peak_allocated_mib for c in alone),
        distill_gpu_peak_reserved_mib=_highest(c.gpu_peak_reserved_mib for c in alone),
        distill_host_peak_mib=_highest(c.host_peak_mib for c in alone),
        distill_gpu_seconds=_mean(c.gpu_seconds for c in alone),
        distill_energy_joules=_mean(c.energy_joules for c in alone),
        distill_batch_sizes=sorted({c.batch_size for c in alone}),
        distill_hardware=_hardware(d.environment for d in distills),
        evaluate_hardware=_hardware(s.environment for s in students),
        shared_gpu=any(map(_shared, [*made, *trained])),
    )


def _shared(cost: Cost) -> bool:
    return cost.exclusive_gpu is False


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _hardware(environments: Iterable[dict[str, object] | None]) -> list[str]:
    """Models of the devices that cells ran on: the GPUs of a cell on CUDA, else the CPU."""
    found: set[str] = set()
    for environment in environments:
        hardware = (environment or {}).get("hardware")
        if not isinstance(hardware, dict):
            continue
        gpus = hardware.get("gpus")
        if str((environment or {}).get("device", "")).startswith("cuda") and isinstance(gpus, list) and gpus:
            found |= {str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict)}
        elif hardware.get("cpu"):
            found.add(str(hardware["cpu"]))
    return sorted(map(rows.printable, found))


def _guidance(distills: Sequence[DistillResult]) -> dict[str, Guidance]:
    terms = sorted({term for made in distills for term, nats in made.guidance.items() if nats})
    summed = {}
    for term in terms:
        by_set = [made.guidance[term] for made in distills if made.guidance.get(term)]
        summed[term] = Guidance(
            mean_nats=float(np.mean([np.mean(nats) for nats in by_set])),
            first_image_nats=float(np.mean([nats[0] for nats in by_set])),
            last_image_nats=float(np.mean([nats[-1] for nats in by_set])),
        )
    return summed


def settings_of(members: Sequence[groups.Row]) -> tuple[list[str], list[list[str]]]:
    """(what all rows share, what each row is marked with).

    Prior, its precision and devices are said once where one value holds for all rows that have one, else at each row.
    What else makes a method is said only where two rows would otherwise bear the same name.
    """
    # A folder's own name will do: the hash tells it from others.
    priors = [prior for row in members if (prior := _prior(row)) is not None]
    names = {prior.sha256: without_paths(rows.printable(prior.name)) for prior in priors}
    facts = [_facts(row, names) for row in members]
    shared: list[str] = []
    marks: list[list[str]] = [[] for _ in members]
    for kind in ("prior", "precision", "distill device", "evaluate device"):
        values = {fact[kind] for fact in facts} - {None}
        shared += [value for value in values if value is not None and len(values) == 1]
        for mark, fact in zip(marks, facts, strict=True):
            mark += [value] if len(values) > 1 and (value := fact[kind]) is not None else []
    for kind in ("precision without prior", "images", "version", "source", "parameters"):
        for mark, fact, row in zip(marks, facts, members, strict=True):
            namesakes = {other[kind] for other, named in zip(facts, members, strict=True) if named.label == row.label}
            mark += [value] if len(namesakes) > 1 and (value := fact[kind]) is not None else []
    return shared, marks


def _facts(row: groups.Row, prior_names: dict[str, str]) -> dict[str, str | None]:
    contestant, method = row.contestant, row.method
    prior, precision = contestant.prior_sha256, f"sampled in {contestant.precision}"
    return {
        "prior": None if prior is None else f"prior {prior_names.get(prior, 'unknown')} ({prior[:8]})",
        "precision": None if prior is None else precision,
        "precision without prior": precision if prior is None else None,
        "distill device": contestant.distill_device and f"distilled on {contestant.distill_device}",
        "evaluate device": f"students on {contestant.evaluate_device}",
        "images": contestant.images,
        "version": None if method is None else f"version {method.version}",
        "source": None if method is None or not method.source_sha256 else f"source {method.source_sha256[:8]}",
        "parameters": None if method is None else f"parameters {digest(method.params)[:8]}",
    }


# Gap ----------------------------------------------------------------------------------------------------------------


def _close_gaps(table: Sequence[LeaderboardRow]) -> list[str]:
    """Fill in `gap_closed_percent`; returns why there is none, where there is none."""
    missing = [name for name in (LOWER, UPPER) if not any(_is_companion(row, name) for row in table)]
    if missing:
        run = f"`bench run --method {','.join(missing)}`"
        return [f"No gap closed: it needs {' and '.join(missing)} in this table ({run})."]
    found: set[str] = set()
    for row in table:
        lower, upper = _companion(table, LOWER, row), _companion(table, UPPER, row)
        if row.acc_last is None:
            continue
        if upper <= lower:
            found.add(f"No gap closed: {UPPER} ({upper:.2f}) is not above {LOWER} ({lower:.2f}).")
            continue
        row.gap_closed_percent = 100 * (row.acc_last.mean - lower) / (upper - lower)
    unfinished = [row for row in table if row.method in (LOWER, UPPER) and row.acc_last and row.done < row.expected]
    found |= {f"The gap uses {row.method} as far as it is done ({row.done}/{row.expected})." for row in unfinished}
    return sorted(found)


def _is_companion(row: LeaderboardRow, name: str) -> bool:
    return row.method == name and row.spec is not None and row.acc_last is not None


def _companion(table: Sequence[LeaderboardRow], name: str, row: LeaderboardRow) -> float:
    """Mean accuracy of the companion nearest to `row`: its students' device, then most done, then newest version."""
    nearest = max(
        (other for other in table if _is_companion(other, name)),
        key=lambda other: (
            other.evaluate_device == row.evaluate_device,
            other.done,
            other.spec.version if other.spec else 0,
        ),
    )
    assert nearest.acc_last is not None
    return nearest.acc_last.mean

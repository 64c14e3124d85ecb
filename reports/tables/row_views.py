"""A row of a leaderboard, from its cells: accuracies, costs and guidance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from ddbench.benchmark.core.result import Cost, DistillResult
from ddbench.reports.results.groups import Row
from ddbench.reports.results.hardware import hardware
from ddbench.reports.results.origins import origin_of
from ddbench.reports.statistics.crossed import SetScore, Summary
from ddbench.reports.tables.scores import summary_of
from ddbench.reports.tables.views import CostRecord, Guidance, RowView, SetRecord


def row_view(
    row: Row,
    scores: Sequence[SetScore],
    qualifiers: list[str],
    acc_last: Summary | None,
    rank: int | None,
    last_rank: int | None,
) -> RowView:
    key, distills = row.key, row.distilled
    return RowView(
        id=key.id,
        rank=rank,
        last_rank=last_rank,
        reference=row.reference,
        with_test_images=row.with_test_images,
        test_images=row.test_images,
        n_images=row.n_images,
        images_per_class=row.images_per_class,
        method=row.label,
        qualifiers=qualifiers,
        spec=row.method,
        cost_class=next((made.cost_class for made in distills if made.cost_class), None),
        prior=row.prior,
        prior_sha256=key.prior_sha256,
        precision=key.precision,
        distill_device=key.distill_device,
        evaluate_device=key.evaluate_device,
        done=len(row.finished),
        expected=len(row.cells),
        states=dict(sorted(Counter(cell.standing for cell in row.cells).items())),
        reasons=list(dict.fromkeys(why for cell in row.cells if not cell.ok and (why := cell.why))),
        image_bytes=row.image_bytes,
        label_bytes=None if row.soft_labels is None else row.soft_labels.label_bytes,
        own_labels_used=None if row.soft_labels is None else row.soft_labels.used,
        teacher_passes=row.teacher_passes,
        stored_label_bytes=row.stored_label_bytes,
        students_per_set=sorted({len(made.students) for made in row.sets}),
        acc_last=acc_last,
        acc_best=summary_of(row, "acc_best"),
        top5_last=summary_of(row, "top5_last"),
        gap_closed_percent=None,
        gap_closed_low_percent=None,
        gap_closed_high_percent=None,
        cost=_cost(row, distills),
        origin=origin_of(chain.from_iterable((cell, cell.distill) for cell in row.cells)),
        guidance=_guidance(distills),
        sets=[
            SetRecord(
                image_set_sha256=made.image_set_sha256,
                seeds=list(made.seeds),
                acc_last=[student.metrics.acc_last for student in made.students],
                evaluate_seeds=[student.result.evaluate_seed for student in made.students],
                cells=tuple(sorted({s.cell.distill.id for s in made.students if s.cell.distill is not None})),
            )
            for made in row.sets
        ],
        has_predictions=all(score.correct is not None for score in scores),
    )


def _cost(row: Row, distills: Sequence[DistillResult]) -> CostRecord:
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
        distill_threads=tuple(sorted({c.threads for c in alone})),
        evaluate_threads=tuple(sorted({c.threads for c in trained_alone})),
        distill_batch_sizes=sorted({c.batch_size for c in alone}),
        cells_at_once=sorted({c.cells_at_once for c in (*alone, *trained_alone)}),
        distill_hardware=hardware(distills),
        evaluate_hardware=hardware(students),
        shared_gpu=any(map(_shared, [*made, *trained])),
    )


def _shared(cost: Cost) -> bool:
    return cost.exclusive_gpu is False


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


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

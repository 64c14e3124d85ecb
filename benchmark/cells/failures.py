"""The result of a cell that did not finish: who it was, and why."""

from __future__ import annotations

import contextlib
import sys

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import DistillResult, EvaluateResult, Status
from ddbench.benchmark.core.spec import DistilledBy, DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import CellDir, Launch, Store


def write_failure(cell: CellDir, status: Status, reason: str, *, retriable: bool = False) -> None:
    """Write `result.json` for a cell that failed or was ended; a disk too full even for that leaves none. A result that
    is `ok` stays: an attempt that came to nothing takes nothing away."""
    done = cell.result()
    if done is not None and done.status == "ok":
        return
    spec, launch = cell.spec(), cell.launch()
    result = (
        _failed_distill(cell, spec, launch, status, reason, retriable)
        if isinstance(spec, DistillSpec)
        else _failed_evaluation(cell, spec, launch, status, reason, retriable)
    )
    try:
        write_json(cell.path / "result.json", result.model_dump(mode="json"))
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"cannot write {cell.path / 'result.json'}: {error}", file=sys.stderr)


def _failed_distill(
    cell: CellDir, spec: DistillSpec, launch: Launch, status: Status, reason: str, retriable: bool
) -> DistillResult:
    return DistillResult(
        cell=cell.id,
        status=status,
        reason=reason,
        retriable=retriable,
        label=launch.label,
        method=spec.method,
        dataset=None,
        ipc=spec.ipc,
        distill_seed=spec.seed,
        precision=spec.precision,
        device_type=spec.device_type,
    )


def _failed_evaluation(
    cell: CellDir, spec: EvaluateSpec, launch: Launch, status: Status, reason: str, retriable: bool
) -> EvaluateResult:
    source = distill_spec(Store(cell.path.parent.parent), spec)
    return EvaluateResult(
        cell=cell.id,
        status=status,
        reason=reason,
        retriable=retriable,
        label=launch.label,
        method=None if source is None else source.method,
        dataset=None,
        ipc=spec.ipc,
        distill_seed=None if source is None else source.seed,
        distill_cell=spec.images.cell if isinstance(spec.images, DistilledBy) else None,
        protocol=spec.protocol,
        protocol_label=spec.protocol.label,
        modified_protocol=bool(spec.protocol.overrides),
        student=spec.student,
        evaluate_seed=spec.seed,
        device_type=spec.device_type,
    )


def distill_spec(store: Store, spec: EvaluateSpec) -> DistillSpec | None:
    """The specification of the cell that makes an evaluate cell's images; None for images made elsewhere."""
    if not isinstance(spec.images, DistilledBy):
        return None
    source = store.cell(spec.images.cell).spec()
    assert isinstance(source, DistillSpec), f"{source.kind} cell {spec.images.cell} cannot be a source of images"
    return source

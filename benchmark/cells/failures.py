"""What every result says of its cell, and the result of a cell that did not finish: who it was, and why."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import DistillResult, EvaluateResult, Status, utc_now
from ddbench.benchmark.core.spec import DistilledBy, DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import CellDir, Launch, Store


def write_failure(cell: CellDir, status: Status, reason: str, *, retriable: bool = False) -> None:
    """Write `result.json` for a cell that failed or was ended; a disk too full even for that leaves none. A result that
    is `ok` stays: an attempt that came to nothing takes nothing away."""
    done = cell.result()
    if done is not None and done.status == "ok":
        return
    spec = cell.spec()
    kind = DistillResult if isinstance(spec, DistillSpec) else EvaluateResult
    known = identity(cell, spec, cell.launch())
    result = kind(**known, status=status, reason=reason, retriable=retriable, dataset=None, finished_at=utc_now())
    try:
        write_json(cell.path / "result.json", result.model_dump(mode="json"))
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"cannot write {cell.path / 'result.json'}: {error}", file=sys.stderr)


def identity(cell: CellDir, spec: DistillSpec | EvaluateSpec, launch: Launch) -> dict[str, Any]:
    """The keys of a cell's result that are known before it runs."""
    known = {"cell": cell.id, "label": launch.label, "ipc": spec.ipc, "device_type": spec.device_type}
    if isinstance(spec, DistillSpec):
        return known | {"method": spec.method, "distill_seed": spec.seed, "precision": spec.precision}
    made_by: dict[str, Any] = {"method": None, "distill_seed": None, "distill_cell": None}
    if isinstance(spec.images, DistilledBy):
        source = Store(cell.path.parent.parent).cell(spec.images.cell).spec()
        assert isinstance(source, DistillSpec), f"{source.kind} cell {spec.images.cell} cannot be a source of images"
        made_by = {"method": source.method, "distill_seed": source.seed, "distill_cell": spec.images.cell}
    return (
        known
        | made_by
        | {
            "protocol": spec.protocol,
            "protocol_label": spec.protocol.label,
            "modified_protocol": bool(spec.protocol.overrides),
            "student": spec.student,
            "evaluate_seed": spec.seed,
        }
    )

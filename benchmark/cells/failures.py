"""What every result says of its cell, and the result of a cell that did not finish: who it was, and why."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from ddbench.benchmark.core.result import DistillResult, EvaluateResult, Status, utc_now
from ddbench.benchmark.core.sharing.attempts import MOST_ATTEMPTS, Cause
from ddbench.benchmark.core.sharing.locks import Busy
from ddbench.benchmark.core.spec import DistilledBy, DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import RESULT, CellDir, Launch, Store


def write_failure(cell: CellDir, status: Status, reason: str, *, retriable: bool = False) -> None:
    """Write the result of a cell that failed or was ended, under its lease: while another process is at the cell, its
    fate is not this one's to tell. A result that is `ok` stays: an attempt that came to nothing takes nothing away. A
    disk too full even for that leaves none.

    Raises:
        LeaseLost: this process held the lease, and was taken for dead.
    """
    try:
        with cell.lock():
            write_failure_held(cell, status, reason, retriable=retriable)
    except Busy:
        return
    except OSError as error:
        _tell(cell, error)


def write_failure_held(cell: CellDir, status: Status, reason: str, *, retriable: bool = False) -> None:
    """The same, for whoever holds the lease."""
    done = cell.result_seen()
    if done is not None and done.status == "ok":
        return
    spec = cell.spec()
    kind = DistillResult if isinstance(spec, DistillSpec) else EvaluateResult
    known = identity(cell, spec, cell.launch())
    result = kind(**known, status=status, reason=reason, retriable=retriable, dataset=None, finished_at=utc_now())
    try:
        cell.commit(result)
        cell.attempts.end(Cause.DONE)
    except OSError as error:
        _tell(cell, error)


def _tell(cell: CellDir, error: OSError) -> None:
    """What becomes of a cell that cannot even keep why it failed; its log may lie on a full disk, too."""
    with contextlib.suppress(OSError):
        said = f"cannot write {cell.path / RESULT}: {error.strerror}; mend that, and the same command goes on"
        print(said, file=sys.stderr, flush=True)


def lost_too_often(cell: CellDir) -> str:
    """Why a cell is given up whose attempts were lost."""
    lost = [attempt for attempt in cell.attempts.all() if attempt.cause is not Cause.DONE][-MOST_ATTEMPTS:]
    hosts = ", ".join(dict.fromkeys(attempt.host for attempt in lost if attempt.host))
    where = f" (on {hosts})" if hosts else ""
    return f"its process ended {MOST_ATTEMPTS} times without a word{where}; the same command tries again"


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

"""Results of cells that computed nothing."""

from __future__ import annotations

from ddbench.benchmark.core.result import DistillResult, EvaluateResult, Metrics
from ddbench.benchmark.core.spec import DistilledBy, DistillSpec
from ddbench.benchmark.core.store import CellDir, Store


def of(cell: CellDir) -> DistillResult | EvaluateResult:
    """The result of a cell that went well; a distill cell's set, named by its seed, then lies in the store."""
    spec, launch = cell.spec(), cell.launch()
    if isinstance(spec, DistillSpec):
        sha = f"{spec.seed:02d}" * 32
        folder = Store(cell.path.parents[1]).set_dir(sha)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text("{}")
        return DistillResult(
            cell=cell.id, status="ok", label=launch.label, method=spec.method, dataset=None, ipc=spec.ipc,
            distill_seed=spec.seed, image_set_sha256=sha, n_images=10,
        )  # fmt: skip
    assert isinstance(spec.images, DistilledBy)
    source = Store(cell.path.parents[1]).cell(spec.images.cell).result()
    assert source is not None
    return EvaluateResult(
        cell=cell.id, status="ok", label=launch.label, method=source.method, dataset=None, ipc=spec.ipc,
        distill_seed=source.distill_seed, image_set_sha256=source.image_set_sha256, distill_cell=source.cell,
        protocol=spec.protocol, protocol_label=spec.protocol.label, modified_protocol=False, student=spec.student,
        evaluate_seed=spec.seed, metrics=Metrics(acc_last=50.0, acc_best=51.0, top5_last=None, curve=[]),
    )  # fmt: skip

"""Which cells of a results folder are shown."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.reports.results.rows import DistillCell, EvaluateCell, Results, printable


@dataclass(frozen=True)
class Filters:
    """Which cells to show; an empty filter lets all pass."""

    datasets: tuple[str, ...] = ()
    ipcs: tuple[int, ...] = ()
    protocols: tuple[str, ...] = ()
    """`name`, `name@version` or a full label."""
    students: tuple[str, ...] = ()

    def passes(self, cell: EvaluateCell | DistillCell) -> bool:
        """A distill cell has no protocol and no student: those filters pass it. The whole set passes any IPC."""
        if self.datasets and cell.spec.dataset.name not in self.datasets:
            return False
        if self.ipcs and cell.spec.ipc is not None and cell.spec.ipc not in self.ipcs:
            return False
        if isinstance(cell, DistillCell):
            return True
        if self.students and cell.spec.student not in self.students:
            return False
        protocol = cell.spec.protocol
        names = {protocol.name, f"{protocol.name}@{protocol.version}", protocol.label}
        return not self.protocols or not names.isdisjoint(self.protocols)

    def apply(self, results: Results) -> Results:
        """Raises UsageError if there are cells and none passes; the message says what there is."""
        evaluates = {id: cell for id, cell in results.evaluates.items() if self.passes(cell)}
        wanted = {cell.distill.id for cell in evaluates.values() if cell.distill is not None}
        narrow = bool(self.protocols or self.students)
        distills = {
            id: cell for id, cell in results.distills.items() if self.passes(cell) and (id in wanted or not narrow)
        }
        # The whole training set accompanies any IPC, but is no answer to a question about one.
        ipcs = [cell.spec.ipc for cell in evaluates.values()] + [cell.spec.ipc for cell in distills.values()]
        answered = any(ipc is not None or not self.ipcs for ipc in ipcs)
        if not answered and (results.evaluates or results.distills):
            raise UsageError(f"nothing in {results.store.out} matches these filters. There is: {_contents(results)}")
        return replace(results, evaluates=evaluates, distills=distills)


def _contents(results: Results) -> str:
    specs = [cell.spec for cell in results.evaluates.values()]
    all_specs: list[DistillSpec | EvaluateSpec] = [*specs, *(cell.spec for cell in results.distills.values())]
    there: dict[str, list[str]] = {
        "--dataset": sorted({spec.dataset.name for spec in all_specs}),
        "--ipc": [str(ipc) for ipc in sorted({spec.ipc for spec in all_specs if spec.ipc is not None})],
        "--protocol": sorted({printable(spec.protocol.label) for spec in specs}),
        "--student": sorted({spec.student for spec in specs}),
    }
    return "; ".join(f"{option} {', '.join(values)}" for option, values in there.items() if values)

"""What each part of a method is worth: parts on and off, as 2 x 2 designs, and one parameter at a time, as curves."""

from __future__ import annotations

from collections.abc import Sequence

from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.store import Store
from ddbench.reports.analyses.ablation_rows import AblationTable, families
from ddbench.reports.analyses.factorials import Design, designs
from ddbench.reports.analyses.sweeps import Sweep, sweeps
from ddbench.reports.results import groups, settings


class Ablation(Record):
    designs: list[Design]
    sweeps: list[Sweep]


def build(store: Store, tables: Sequence[groups.Table]) -> Ablation:
    """All designs and sweeps of a results folder. A row counts from its first finished student on."""
    found = Ablation(designs=[], sweeps=[])
    for table in tables:
        alike = families(table)
        if not alike:
            continue
        place = AblationTable(store, table)
        for family in alike:
            of_family = [
                design
                for published in settings.factorials()
                if published.method == family[0].name
                for design in designs(place, family, published)
            ]
            in_full = {
                (factor.parameter, cell.label)
                for design in of_family
                if not design.missing
                for factor in design.factors
                for cell in design.cells
            }
            found.designs += of_family
            # A design says more of its own two parameters than the pairs of rows along its edges.
            found.sweeps += [
                sweep
                for sweep in sweeps(place, family)
                if any((sweep.parameter, point.label) not in in_full for point in sweep.points)
            ]
    found.designs.sort(key=lambda design: (bool(design.missing), not any(cell.paper for cell in design.cells)))
    found.sweeps.sort(key=lambda sweep: (not sweep.numeric, -len(sweep.points)))
    return found

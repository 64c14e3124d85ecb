"""Shards of a distilled set: found again when they are merged, and what the merged set cost."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.result import Cost, DistillResult, Phase, ShardRecord, cold_seconds
from ddbench.benchmark.core.spec import DistillSpec
from ddbench.benchmark.core.store import CellDir, Store


def finished_shards(store: Store, cells: Iterable[str], content_hash: str) -> list[tuple[CellDir, DistillResult]]:
    """The shards of a set, to be merged.

    Raises:
        RunError: one is not finished, or was distilled from other images.
    """
    found = []
    for name in cells:
        cell = store.cell(name)
        result = cell.result()
        if not isinstance(result, DistillResult) or result.status != "ok":
            raise RunError(f"shard {name} of this set is not finished; run that cell first")
        if cell.content_hash() != content_hash:
            raise RunError(
                f"shard {name} was distilled from images with content hash {cell.content_hash()}, "
                f"expected {content_hash}: the dataset has changed since. Run the same command again."
            )
        found.append((cell, result))
    return found


def shard_record(cell: CellDir, result: DistillResult, n_classes: int) -> ShardRecord:
    """What a merged set's result says of one of its shards. `n_classes`: of the dataset."""
    spec = cell.spec()
    assert isinstance(spec, DistillSpec)
    assert result.cost is not None
    assert result.n_images is not None
    classes = spec.classes(n_classes)
    return ShardRecord(
        cell=cell.id,
        first_class=classes.start,
        n_classes=len(classes),
        n_images=result.n_images,
        seconds=result.cost.seconds,
        batch_size=result.cost.batch_size,
        attempts=result.cost.attempts,
    )


def artefacts_made(cells: Iterable[CellDir]) -> set[str]:
    """Names of the artefacts that these cells made themselves."""
    return {name for cell in cells for name in json.loads((cell.path / "spent.json").read_bytes())["made"]}


def merged_cost(merging: Cost, shards: Sequence[Cost], made: Collection[str]) -> Cost:
    """What a set cost that shards made: times and energy summed, peaks of memory the highest of any process.

    An artefact that one shard made and another found is work of this set, and no saving; one that several shards
    found is saved once.

    Args:
        merging: of the cell that merged the shards.
        made: names of the artefacts that the shards or the merging cell made.
    """
    costs = [*shards, merging]
    spent: dict[str, float] = {}
    found: dict[str, Phase] = {}
    for phase in (phase for cost in costs for phase in cost.phases):
        if phase.cached_from is None:
            spent[phase.name] = spent.get(phase.name, 0.0) + phase.seconds
        elif phase.cached_from not in made:
            found.setdefault(phase.cached_from, phase)
    phases = [*(Phase(name=name, seconds=round(s, 4)) for name, s in spent.items()), *found.values()]
    alone = [cost.exclusive_gpu for cost in costs]
    return merging.model_copy(
        update={
            "phases": phases,
            "seconds": round(sum(phase.seconds for phase in phases), 4),
            "cold_seconds": round(cold_seconds(phases), 4),
            "gpu_peak_allocated_mib": _highest(cost.gpu_peak_allocated_mib for cost in costs),
            "gpu_peak_reserved_mib": _highest(cost.gpu_peak_reserved_mib for cost in costs),
            "host_peak_mib": max(cost.host_peak_mib for cost in costs),
            "gpu_seconds": _sum([cost.gpu_seconds for cost in costs]),
            "energy_joules": _sum([cost.energy_joules for cost in costs]),
            "batch_size": min(cost.batch_size for cost in shards),
            "oom_batch_sizes": sorted({size for cost in costs for size in cost.oom_batch_sizes}, reverse=True),
            "cells_at_once": max(cost.cells_at_once for cost in costs),
            "exclusive_gpu": False if False in alone else None if None in alone else True,
            "measured": {
                name: max(cost.measured[name] for cost in costs if name in cost.measured)
                for name in sorted({name for cost in costs for name in cost.measured})
            },
        }
    )


def merged_records(recorded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a method recorded in each shard: a value where all that recorded it agree, else the list of theirs."""
    found: dict[str, list[Any]] = {}
    for records in recorded:
        for name, value in records.items():
            found.setdefault(name, []).append(value)
    return {name: some[0] if all(value == some[0] for value in some) else some for name, some in found.items()}


def merged_arithmetic(merging: Mapping[str, Any], shards: Sequence[DistillResult]) -> dict[str, Any]:
    """What made the prior's network faster in the cells that sampled a set: as `priors.CompiledDenoiser` notes it.

    Args:
        merging: of the cell that merged the shards, which samples what they lack.
    """
    flags: list[Mapping[str, Any]] = [(result.environment or {}).get("determinism") or {} for result in shards]
    told = [*flags, merging]
    problems = [one["not_compiled"] for one in told if "not_compiled" in one]
    compiled = sorted({name for one in told for name in one.get("compiled", ())})
    without = sum(not one.get("compiled") for one in flags)
    if compiled and without and not problems:
        problems = [f"{without} of {len(shards)} shards were begun without"]
    return ({"compiled": compiled} if compiled or problems else {}) | (
        {"not_compiled": problems[0]} if problems else {}
    )


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _sum(values: Sequence[float | None]) -> float | None:
    """None where a part is not known: a sum of the others would be too little."""
    known = [value for value in values if value is not None]
    return round(sum(known), 4) if len(known) == len(values) else None

"""Where cells come from: who ran them, when, with which versions, and whether that was recomputed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from ddbench.benchmark.core.environment import differences
from ddbench.benchmark.core.provenance import Provenance
from ddbench.benchmark.core.result import OtherEnvironment, Record, Result
from ddbench.reports.results.rows import DistillCell, EvaluateCell, printable

PACKAGES = ("torch", "ddbench")
"""What decides a number besides the machine: cells of several versions share a table, and a note says so."""

MOST_NAMES = 3
"""Shards or artefacts from another environment that are named one by one."""


class Origin(Record):
    """Where one or more cells come from."""

    bundles: list[str]
    """Bundles that brought cells, `name (first 8 digits of its SHA-256)`; empty where all were run in this folder."""
    by: list[str]
    """Who made those bundles, in their own words."""
    finished_at: str | None
    """When the last of the cells was finished, UTC, ISO 8601; where results do not say it, as their bundles have it."""
    torch: list[str]
    """Versions of PyTorch that cells ran with."""
    ddbench: list[str]
    """Versions of ddbench that cells ran with."""
    unverified: list[str]
    """What could not be recomputed of cells from bundles, and why; empty where everything was that can be."""
    mixed: list[str]
    """Of cells that several environments had a hand in, which parts were made in another one, and what differs."""

    @property
    def verified(self) -> bool | None:
        """Whether all that can be recomputed of cells from bundles was, and agreed; None where none is from one."""
        return not self.unverified if self.bundles else None


def origin_of(cells: Iterable[EvaluateCell | DistillCell | None]) -> Origin:
    """Of finished and unfinished cells together."""
    known = {cell.id: cell for cell in cells if cell is not None}.values()
    came = [cell.provenance for cell in known if cell.provenance is not None]
    firsts = [provenance.first for provenance in came]
    unverified = (why for provenance in came for why in provenance.last.unverified)
    finished = (_finished_at(cell.result, cell.provenance) for cell in known)
    return Origin(
        bundles=_once(f"{first.bundle} ({first.sha256[:8]})" for first in firsts),
        by=_once(map(_by, came)),
        finished_at=max(filter(None, finished), default=None),
        unverified=_once(unverified),
        torch=_versions(known, "torch"),
        ddbench=_versions(known, "ddbench"),
        mixed=_once(text for cell in known if cell.result is not None for text in mixed(cell.result)),
    )


def mixed(result: Result) -> list[str]:
    """Which parts of a cell were made in another environment than that in which it ended, and what differs; empty where
    there was one."""
    return _mixed(result.environment or {}, result.other_environments)


def mixed_so_far(noted: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same of a cell without a result, from what its attempts have noted (`environments` in `spent.json`); what is
    not of that form is passed over."""
    found = []
    for one in noted:
        with suppress(ValidationError):
            found.append(OtherEnvironment.model_validate(one))
    tried = [one for one in found if one.attempts]
    if not tried:
        return []
    last = max(tried, key=lambda one: one.attempts[-1])
    return _mixed(last.environment, [one for one in found if one is not last])


def _mixed(own: Mapping[str, Any], others: Iterable[OtherEnvironment]) -> list[str]:
    return [printable(f"{_parts(other)}: {', '.join(differences(other.environment, own))}") for other in others]


def _parts(other: OtherEnvironment) -> str:
    named: dict[str, Sequence[int | str]] = {
        "attempt": other.attempts,
        "shard": other.shards,
        "artefact": other.artefacts,
    }
    return ", ".join(
        f"{what}{'' if len(names) == 1 else 's'} {', '.join(map(str, names))}"
        if len(names) <= MOST_NAMES
        else f"{len(names)} {what}s"
        for what, names in named.items()
        if names
    )


def _by(provenance: Provenance) -> str | None:
    """Who ran it; of a cell that others passed on, that they say so."""
    first, last = provenance.first, provenance.last
    if first == last:
        return first.by
    return f"{first.by or first.bundle}, as {last.by or last.bundle} has it"


def _versions(cells: Iterable[EvaluateCell | DistillCell], package: str) -> list[str]:
    found: list[str | None] = []
    for environment in (one for cell in cells if cell.result is not None for one in cell.result.environments):
        noted = environment.get("versions")
        found.append(str(noted[package]) if isinstance(noted, dict) and noted.get(package) else None)
    return _once(found)


def _finished_at(result: Result | None, provenance: Provenance | None) -> str | None:
    if result is None:
        return None
    return result.finished_at or (None if provenance is None else provenance.first.made_at)


def _once(texts: Iterable[str | None]) -> list[str]:
    return sorted({printable(text) for text in texts if text})


def several_versions(origins: Sequence[tuple[str, Origin]], package: str) -> dict[str, list[str]]:
    """Version -> the names that have it; empty where there is one version."""
    names: dict[str, list[str]] = {}
    for name, origin in origins:
        for version in getattr(origin, package):
            names.setdefault(version, []).append(name)
    return dict(sorted(names.items())) if len(names) > 1 else {}

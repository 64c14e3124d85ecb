"""The page of students and protocols: does the evaluation decide who wins?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from ddbench.reports.analyses import agreement
from ddbench.reports.analyses.agreement import Arena
from ddbench.reports.analyses.findings import Check, Finding, Standing
from ddbench.reports.analyses.rank_agreement import DRAWS, Agreement
from ddbench.reports.analyses.student_matrix import Matrix, MatrixRow
from ddbench.reports.analyses.where import Where
from ddbench.reports.results.words import told_apart
from ddbench.reports.site.model import Site
from ddbench.reports.site.render import Page

SECTION = "Students"
PATH = "students.html"
SHOWN = 150
"""The most findings listed of one dataset and IPC, those that another setup turns round first; the rest is counted."""
STANDINGS: tuple[Standing, ...] = get_args(Standing)
BY_GRAVITY = {standing: place for place, standing in enumerate(reversed(STANDINGS))}


@dataclass(frozen=True)
class MatrixView:
    matrix: Matrix
    columns: list[tuple[Where, str, str]]
    """(setup, path of its table, what the column is called)."""
    rows: list[MatrixRow]
    """Methods that two columns or more have."""
    alone: int
    """Methods that one column has."""


@dataclass(frozen=True)
class Survival:
    """What became of one setup's findings."""

    setup: Where
    findings: int
    unchecked: int
    """Findings that no other setup has sets for."""
    survive: int
    """Findings that every setup which can check them separates too."""
    counts: dict[Standing, int]
    """How often each standing is among all checks."""


@dataclass(frozen=True)
class ArenaView:
    arena: Arena
    paths: list[str]
    """Paths of the setups' tables."""
    names: list[str]
    """Names of the setups, as short as tells them apart."""
    matrices: list[MatrixView]
    taus: list[list[Agreement | None]]
    """Agreement by setup and setup; empty for two."""
    survival: list[Survival]
    findings: list[tuple[Finding, list[tuple[str, Check]]]]
    """Findings with (setup's name, check), the gravest first."""
    hidden: int
    """Findings that are not listed."""


def pages(site: Site) -> list[Page]:
    paths = {view.table.title: view.path for view in site.tables}
    known = {view.group.key: view.comparison for view in site.tables}
    arenas = agreement.build(site.results.store, [view.group for view in site.tables], known)
    values = {
        "arenas": [_arena(arena, [paths[setup.table] for setup in arena.setups]) for arena in arenas],
        "standings": STANDINGS,
        "draws": DRAWS,
    }
    return [Page(PATH, "students.html", "Students and protocols", SECTION, values)]


def _arena(arena: Arena, paths: list[str]) -> ArenaView:
    names = setup_names(arena.setups)
    findings = sorted(arena.findings, key=lambda found: (_gravity(found), -found.difference))
    matrices = [
        MatrixView(
            one,
            [
                (arena.setups[i], paths[i], name)
                for i, name in zip(one.setups, _column_names(arena, one, names), strict=True)
            ],
            shown := [row for row in one.rows if sum(cell is not None for cell in row.cells) > 1],
            len(one.rows) - len(shown),
        )
        for one in arena.matrices
    ]
    return ArenaView(
        arena=arena,
        paths=paths,
        names=names,
        matrices=matrices,
        taus=_taus(arena) if len(arena.setups) > 2 else [],
        survival=[_survival(arena, index) for index in range(len(arena.setups))],
        findings=[(found, [(names[check.setup], check) for check in found.checks]) for found in findings[:SHOWN]],
        hidden=max(0, len(findings) - SHOWN),
    )


def _column_names(arena: Arena, matrix: Matrix, names: Sequence[str]) -> list[str]:
    """What varies; the setups' own names where that is the same for two (other teachers, say)."""
    plain = [str(getattr(arena.setups[i], matrix.varies)) for i in matrix.setups]
    return plain if len(set(plain)) == len(plain) else [names[i] for i in matrix.setups]


def setup_names(setups: Sequence[Where]) -> list[str]:
    """What varies: protocol, student or both; a number is added where that is not enough (other teachers, say)."""
    facts = [[setup.protocol for setup in setups], [setup.student for setup in setups]]
    varying = [values for values in facts if len(set(values)) > 1] or facts
    plain = [" · ".join(parts) for parts in zip(*varying, strict=True)]
    return told_apart(plain, [f"{name} ({i + 1})" for i, name in enumerate(plain)])


def _taus(arena: Arena) -> list[list[Agreement | None]]:
    found = {(pair.a, pair.b): pair for pair in arena.pairs}
    n = range(len(arena.setups))
    return [[found.get((min(a, b), max(a, b))) if a != b else None for b in n] for a in n]


def _survival(arena: Arena, index: int) -> Survival:
    own = [finding for finding in arena.findings if finding.setup == index]
    counts = Counter(check.standing for finding in own for check in finding.checks)
    return Survival(
        setup=arena.setups[index],
        findings=len(own),
        unchecked=sum(not finding.checks for finding in own),
        survive=sum(finding.survives for finding in own),
        counts={standing: counts[standing] for standing in STANDINGS},
    )


def _gravity(finding: Finding) -> int:
    return min((BY_GRAVITY[check.standing] for check in finding.checks), default=len(STANDINGS))

"""The field: every published number that is carried, and which of them was run here, can be, or cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ddbench.reports.analyses import field
from ddbench.reports.analyses.field import FieldCell
from ddbench.reports.site.model import Site
from ddbench.reports.site.render import Page

SECTION = "Field"
PATH = "field.html"


def pages(site: Site) -> list[Page]:
    cells = field.build([view.group for view in site.tables])
    reasons = Counter(cell.how for cell in cells if cell.standing == "cannot").most_common()
    values = {
        "cells": cells,
        "counts": field.counts(cells),
        "families": _families(cells),
        "datasets": sorted({cell.dataset for cell in cells}),
        "protocols": sorted({cell.protocol for cell in cells if cell.protocol}),
        "years": sorted({cell.year for cell in cells if cell.year}, reverse=True),
        "reasons": reasons,
        "numbers": {reason: number for number, (reason, _) in enumerate(reasons, start=1)},
        "paths": {view.table.title: view.path for view in site.tables},
        "n_papers": len({cell.paper.arxiv for cell in cells if cell.paper.arxiv}),
    }
    return [Page(PATH, "field.html", "The field: published numbers and what stands behind them", SECTION, values)]


def _families(cells: Sequence[FieldCell]) -> list[tuple[str, str, dict[field.Standing, int]]]:
    """(dataset, evaluator, standing -> numbers), the most numbers first."""
    found: dict[tuple[str, str], list[FieldCell]] = defaultdict(list)
    for cell in cells:
        found[cell.dataset, cell.protocol or "unknown"].append(cell)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(*where, field.counts(members)) for where, members in ordered]

"""What must be run to see a difference: the question before GPU hours are spent."""

from __future__ import annotations

from ddbench.reports.output import how_many_text
from ddbench.reports.site.model import Site
from ddbench.reports.site.render import Page
from ddbench.reports.tables.how_many import SETS, how_many

SECTION = "How many?"
PATH = "how-many.html"
POINTS = 1.0
"""What papers argue about."""


def pages(site: Site) -> list[Page]:
    found = [
        (one, view, how_many_text.sentences(one))
        for view in site.tables
        if (one := how_many(site.results.store, view.group, POINTS)) is not None
    ]
    return [Page(PATH, "how_many.html", "How many sets and students?", SECTION, {"found": found, "sizes": SETS})]

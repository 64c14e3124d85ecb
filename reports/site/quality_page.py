"""The quality page: what `bench quality` measured of the distilled sets, and DD-Ranking's scores."""

from __future__ import annotations

from ddbench.reports.quality import tables, text
from ddbench.reports.quality.sets import finished_sets
from ddbench.reports.site.model import Site
from ddbench.reports.site.render import Page

SECTION = "Quality"
PATH = "quality.html"


def pages(site: Site) -> list[Page]:
    sets, problems = finished_sets(site.results)
    report = tables.build(site.results, sets, site.quality, problems)
    used = {key for table in report.tables for row in table.rows for key in row.values}
    values = {
        "report": report,
        "measured": text.cell,
        "score_setting": text.score_setting,
        "measures": [measure for measure in report.measures if measure.key in used],
    }
    return [Page(PATH, "quality.html", "Quality of the distilled sets", SECTION, values)]

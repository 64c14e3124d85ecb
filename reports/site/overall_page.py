"""All tables at once: mean ranks over common cells, and wins, ties and losses of every two methods."""

from __future__ import annotations

from collections.abc import Mapping

from ddbench.reports.site.model import Site
from ddbench.reports.site.render import Page
from ddbench.reports.tables.mean_rank import MeanRanks, mean_ranks
from ddbench.reports.tables.win_tie_loss import Pairing

SECTION = "Overall"
PATH = "overall.html"


def pages(site: Site) -> list[Page]:
    ranks = mean_ranks([view.table for view in site.tables])
    return [Page(PATH, "overall.html", "All tables at once", SECTION, {"ranks": ranks, "matrix": _matrix(ranks)})]


def _matrix(ranks: MeanRanks) -> list[tuple[str, list[str]]]:
    """Rows and columns in the order of the mean ranks: wins–ties–losses of the row's method against the column's."""
    order = [one.method for one in ranks.methods]
    found: Mapping[tuple[str, str], str] = {
        ends: text
        for pairing in ranks.pairings
        for ends, text in (
            ((pairing.a, pairing.b), _text(pairing)),
            ((pairing.b, pairing.a), _text(pairing, turned=True)),
        )
    }
    return [(row, [found.get((row, column), "") for column in order]) for row in order]


def _text(pairing: Pairing, *, turned: bool = False) -> str:
    wins, losses = (pairing.losses, pairing.wins) if turned else (pairing.wins, pairing.losses)
    if not wins + pairing.ties + losses:
        return "not tested"
    untested = f" ({pairing.not_tested} not tested)" if pairing.not_tested else ""
    return f"{wins}–{pairing.ties}–{losses}{untested}"

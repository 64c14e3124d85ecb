"""Mean ranks for the terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from ddbench.reports.output.number_text import interval, p_value
from ddbench.reports.output.terminal import hanging, ruled
from ddbench.reports.results.words import counted
from ddbench.reports.tables.mean_rank import MeanRanks


def print_terminal(found: MeanRanks, console: Console) -> None:
    """Print mean ranks with wins, ties and losses, and what they do not say."""
    datasets = dict.fromkeys(cluster.dataset for cluster in found.clusters)
    tables = {title for cluster in found.clusters for title in cluster.tables}
    console.print(Text(f"Mean ranks · {', '.join(datasets)} · {counted(len(tables), 'table')}", style="bold"))
    drawn = ruled()
    drawn.add_column("method", overflow="fold")
    for header in ("mean rank", "95 % interval", "wins", "ties", "losses"):
        drawn.add_column(header, justify="right", no_wrap=True)
    outcomes = _outcomes(found)
    for one in found.methods:
        counts = (str(outcomes[one.method, what]) for what in ("win", "tie", "loss"))
        drawn.add_row(Text(one.method), f"{one.mean_rank:.2f}", interval(one.low, one.high), *counts)
    console.print(drawn)
    cells, clusters = counted(found.cells, "cell"), counted(len(found.clusters), "cluster")
    console.print(
        Text(
            f"Over {cells} (a table and a seed) that all {len(found.methods)} methods have, averaged within {clusters} "
            "(a dataset and a seed: its sets share images). Ties are mid-ranks, intervals Student-t over clusters. "
            "Wins, losses: a two-sided 5 % test separates the method from another of these in a table.",
            style="dim",
        )
    )
    notes = list(found.caveats)
    if found.p_value is not None:
        notes.insert(
            0, f"That no method differs from another: p = {p_value(found.p_value)} (Friedman's test by permutation)."
        )
    else:
        notes.insert(0, "One cluster: nothing tells how the ranks would differ with another seed.")
    if found.left_out:
        told = ", ".join(f"{one.method} ({one.cells} of {found.cells} cells)" for one in found.left_out)
        notes.append(f"Not compared, for want of cells: {told}.")
    if found.cells_left_out:
        cells = counted(found.cells_left_out, "cell")
        notes.append(f"{cells} left out, since one of these methods has no result there.")
    for note in notes:
        console.print(hanging(note, style="dim"))


def _outcomes(found: MeanRanks) -> Counter[tuple[str, str]]:
    """(method, win, tie or loss) -> tables and opponents, among the methods that are ranked."""
    ranked = {one.method for one in found.methods}
    counts: Counter[tuple[str, str]] = Counter()
    for pair in found.pairings:
        if {pair.a, pair.b} <= ranked:
            for method, wins, losses in ((pair.a, pair.wins, pair.losses), (pair.b, pair.losses, pair.wins)):
                counts[method, "win"] += wins
                counts[method, "tie"] += pair.ties
                counts[method, "loss"] += losses
    return counts

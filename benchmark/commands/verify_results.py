"""`bench verify-results`."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import DataFolder, Plugins
from ddbench.benchmark.core.registry import load_plugin

if TYPE_CHECKING:
    from ddbench.benchmark.transfer.proof import Finding

verify_results_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@verify_results_app.command()
def verify_results(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Results folder.")] = Path("runs"),
    data: DataFolder = None,
    retrain: Annotated[
        int, typer.Option("--retrain", min=0, metavar="N", help="Train N students again, drawn at random.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
    plugin: Plugins = None,
) -> None:
    """Recompute what can be of a results folder's numbers: ids, hashes, accuracies. Exit status 1 if any is wrong."""
    from ddbench.benchmark.core.store import Store
    from ddbench.benchmark.transfer.data_at_hand import DataAtHand
    from ddbench.benchmark.transfer.proof import prove

    for file in plugin or []:
        load_plugin(file)
    store, screen = Store(runs), reading.console()
    store.require()
    cells = store.cell_dirs()
    checked = count(1)
    with reading.progress() as progress:

        def done() -> None:
            progress("checking cells", next(checked), len(cells))

        proof = prove(store, cells, DataAtHand(data), done)
    agreed = ", ".join(f"{n} × {what}" for what, n in proof.agreed.items())
    screen.print(f"recomputed, and equal: {agreed or 'nothing'}", soft_wrap=True)
    findings = list(proof.findings)
    if retrain:
        from ddbench.benchmark.transfer.retrain import retrain as train_again

        for again in train_again(store, retrain, seed=seed, data_dir=data):
            screen.print(str(again), markup=False, soft_wrap=True)
            findings += again.findings
    _show(findings, screen)
    wrong = sum(finding.wrong for finding in findings)
    unverified = len({finding.cell for finding in findings if not finding.wrong})
    if wrong:
        screen.print(f"{wrong} wrong")
    elif unverified:
        which = "1 cell has" if unverified == 1 else f"{unverified} cells have"
        screen.print(f"Nothing is wrong of what could be recomputed; {which} more that could not.", soft_wrap=True)
    else:
        screen.print("Nothing is wrong.")
    if wrong:
        raise typer.Exit(1)


def _show(findings: list[Finding], screen: Console) -> None:
    """One row for each thing that is wrong, and for each reason why something could not be recomputed."""
    from ddbench.reports.output.terminal import ruled
    from ddbench.reports.results.rows import printable

    alike: dict[tuple[bool, str, str], list[str]] = {}
    for finding in findings:
        alike.setdefault((not finding.wrong, finding.what, printable(finding.why)), []).append(finding.cell)
    if not alike:
        return
    table = ruled()
    for column in ("", "what", "why", "cells"):
        table.add_column(column, overflow="fold")
    for (unverified, what, why), cells in sorted(alike.items()):
        named = printable(cells[0]) + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")
        style = "" if unverified else "red"
        table.add_row(*map(Text, ("not verified" if unverified else "wrong", what, why, named)), style=style)
    screen.print(table)

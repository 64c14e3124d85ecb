"""`bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import AsJson

compare_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@compare_app.command(cls=reading.ReadingCommand)
def compare(
    methods: Annotated[
        list[str], typer.Argument(metavar="A B…", help="Two or more methods, as leaderboards call them.")
    ],
    runs: reading.Runs = Path("runs"),
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    protocol: reading.Protocols = None,
    student: reading.Students = None,
    margin: reading.Margin = 1.0,
    as_json: AsJson = False,
) -> None:
    """Compare the first method with each of the others: difference, interval, equivalence, and what could be seen."""
    from ddbench.reports.output import compare_text
    from ddbench.reports.tables.compare import compare_methods

    found = compare_methods(reading.read_filtered(runs, dataset, ipc, protocol, student), methods, margin)
    reading.show(found, compare_text.print_terminal, json=as_json)

"""`bench compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands.reading import (
    AsJson,
    Datasets,
    Ipcs,
    Protocols,
    ReadingCommand,
    Runs,
    Students,
    console,
    read_filtered,
)

compare_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@compare_app.command(cls=ReadingCommand)
def compare(
    methods: Annotated[
        list[str], typer.Argument(metavar="A B…", help="Two or more methods, as leaderboards call them.")
    ],
    runs: Runs = Path("runs"),
    dataset: Datasets = None,
    ipc: Ipcs = None,
    protocol: Protocols = None,
    student: Students = None,
    margin: Annotated[float, typer.Option("--margin", help="Points within which two methods count as equal.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Compare the first method with each of the others: difference, interval, equivalence, and what could be seen."""
    from ddbench.reports.output import compare_text
    from ddbench.reports.tables.compare import compare_methods

    found = compare_methods(read_filtered(runs, dataset, ipc, protocol, student), methods, margin)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=1) + "\n")
    else:
        compare_text.print_terminal(found, console())

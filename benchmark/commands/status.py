"""`bench status`."""

from __future__ import annotations

import sys
from pathlib import Path

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

status_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@status_app.command(cls=ReadingCommand)
def status(
    runs: Runs = Path("runs"),
    dataset: Datasets = None,
    ipc: Ipcs = None,
    protocol: Protocols = None,
    student: Students = None,
    as_json: AsJson = False,
) -> None:
    """What was asked for and where each cell stands: progress, attempts, failures and their reasons."""
    from ddbench.reports.output import status as report

    found = report.build(read_filtered(runs, dataset, ipc, protocol, student))
    if as_json:
        sys.stdout.write(report.as_json(found))
    else:
        report.print_terminal(found, console())

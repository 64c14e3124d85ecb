"""`bench status`."""

from __future__ import annotations

from pathlib import Path

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import AsJson

status_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@status_app.command(cls=reading.ReadingCommand)
def status(
    runs: reading.Runs = Path("runs"),
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    protocol: reading.Protocols = None,
    student: reading.Students = None,
    as_json: AsJson = False,
) -> None:
    """What was asked for and where each cell stands: progress, attempts, failures and their reasons."""
    from ddbench.reports.output import status as report

    found = report.build(reading.read_filtered(runs, dataset, ipc, protocol, student))
    reading.show(found, report.print_terminal, json=as_json)

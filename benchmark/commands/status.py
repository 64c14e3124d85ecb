"""`bench status`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

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
    every_cell: Annotated[
        bool, typer.Option("--every-cell", help="A line for each cell, also where they are more than 200.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What was asked for and where each cell stands: progress, attempts, failures and their reasons.

    Of more than 200 cells, those that are done or not begun are counted by method, dataset and IPC.
    """
    from ddbench.reports.output import status as report

    found = report.build(reading.read_filtered(runs, dataset, ipc, protocol, student))
    reading.show(found, partial(report.print_terminal, every_cell=every_cell), json=as_json)

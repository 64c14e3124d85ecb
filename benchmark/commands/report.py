"""`bench report`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ddbench.benchmark.commands import reading

report_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@report_app.command(cls=reading.ReadingCommand)
def report(
    runs: reading.Runs = Path("runs"),
    to: Annotated[Path, typer.Option("--to", help="Folder for the site; new, empty, or made by this command.")] = Path(
        "site"
    ),
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    protocol: reading.Protocols = None,
    student: reading.Students = None,
    margin: reading.Margin = 1.0,
    public: Annotated[
        bool,
        typer.Option("--public", help="For everybody: no picture that shows a real image, no path of this machine."),
    ] = False,
) -> None:
    """Build a static site: leaderboards, comparisons, ablations, reproduction of papers, and a page for each run.

    It opens from disk and on any static host.
    """
    from ddbench.reports.output.formats import left_out
    from ddbench.reports.site.build import build_site

    filters = reading.filters_of(dataset, ipc, protocol, student)
    screen = reading.console()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=screen, transient=True
    ) as live:
        tasks = {what: live.add_task(what, total=None) for what in ("pages", "pictures")}
        built = build_site(
            runs,
            to,
            filters=filters,
            public=public,
            margin=margin,
            made=f"ddbench {version('ddbench')}",
            progress=lambda what, done, total: live.update(tasks[what], completed=done, total=total),
        )
    if built.left_out:
        screen.print(left_out(built.left_out))
    screen.print(
        f"{built.pages} pages ({built.page_bytes / 2**20:.1f} MiB) and {built.pictures} pictures: {built.index}",
        soft_wrap=True,
    )

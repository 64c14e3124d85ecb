"""`bench report`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import DataFolder

if TYPE_CHECKING:
    from ddbench.reports.results.rows import Problem

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
    bundles: Annotated[
        Path | None,
        typer.Option(
            "--bundles",
            help="Instead of --runs, a folder of bundles: each is checked, and those that are right are the board.",
        ),
    ] = None,
    data: DataFolder = None,
) -> None:
    """Build a static site: leaderboards, comparisons, ablations, reproduction of papers, and a page for each run.

    It opens from disk and on any static host.
    """
    from ddbench.reports.output.terminal import left_out
    from ddbench.reports.site.build import build_site

    filters = reading.filters_of(dataset, ipc, protocol, student)
    screen = reading.console()
    with ExitStack() as stack:
        live = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=screen, transient=True
        )
        stack.enter_context(live)
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = live.add_task(what, total=None)
            live.update(tasks[what], completed=done, total=total)

        refused: list[Problem] = []
        if bundles is not None:
            runs = Path(stack.enter_context(TemporaryDirectory(prefix="ddbench-board-"))) / "runs"
            refused = _gathered(bundles, runs, data, progress)
        built = build_site(
            runs,
            to,
            filters=filters,
            public=public,
            margin=margin,
            left_out=refused,
            made=f"ddbench {version('ddbench')}",
            progress=progress,
        )
    if built.left_out:
        screen.print(left_out(built.left_out))
    screen.print(
        f"{built.pages} pages ({built.page_bytes / 2**20:.1f} MiB) and {built.pictures} pictures: {built.index}",
        soft_wrap=True,
    )
    if refused:
        raise typer.Exit(1)


def _gathered(bundles: Path, runs: Path, data: Path | None, progress: Callable[[str, int, int], None]) -> list[Problem]:
    """The bundles that are right as a results folder; what is left out of it."""
    from ddbench.benchmark.core.store import Store
    from ddbench.benchmark.transfer.board import gather
    from ddbench.benchmark.transfer.data_at_hand import DataAtHand
    from ddbench.reports.results.rows import Problem, printable

    left = gather(
        bundles, Store(runs), data=DataAtHand(data), done=lambda done, total: progress("bundles", done, total)
    )
    return [Problem(printable(str(one.bundle)), printable(one.why)) for one in left]

"""What the commands that read a results folder share: their options, what they select, and the console."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.result import Record
from ddbench.benchmark.core.shown_progress import ShownProgress
from ddbench.benchmark.planning.run_spec import integers, split_outside_brackets
from ddbench.reports.output.files import as_json
from ddbench.reports.results import rows
from ddbench.reports.results.filters import Filters
from ddbench.reports.results.rows import Results

PIPE_WIDTH = 160
"""Columns of output that is no terminal and says nothing of its width."""

Runs = Annotated[Path, typer.Option("--runs", help="Results folder.")]
Datasets = Annotated[str | None, typer.Option("--dataset", "-d", help="Only these datasets, separated by commas.")]
Ipcs = Annotated[str | None, typer.Option("--ipc", help="Only these images per class: 1,10 or 1-3.")]
Protocols = Annotated[str | None, typer.Option("--protocol", help="Only these protocols: quick, or name@version.")]
Students = Annotated[str | None, typer.Option("--student", help="Only these student networks.")]
Margin = Annotated[float, typer.Option("--margin", help="Points within which two methods count as equal.")]


class ReadingCommand(TyperCommand):
    """Takes `--out` for `--runs`, as earlier versions had it, and says so; for one release."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(arg == "--out" or arg.startswith("--out=") for arg in args):
            typer.echo(f"bench {self.name}: --out is now called --runs here; --out will go", err=True)
        return super().parse_args(ctx, [re.sub(r"^--out(?==|$)", "--runs", arg) for arg in args])


def read_filtered(
    runs: Path, dataset: str | None, ipc: str | None, protocol: str | None, student: str | None
) -> Results:
    filters = filters_of(dataset, ipc, protocol, student)
    with rows.nothing_collected():
        results = rows.read(runs)
        gc.freeze()  # it stays until the command ends
    return filters.apply(results)


def filters_of(dataset: str | None, ipc: str | None, protocol: str | None, student: str | None) -> Filters:
    try:
        ipcs = () if ipc is None else tuple(integers(ipc))
    except ValueError as error:
        raise UsageError(f"--ipc: {error}") from error
    return Filters(
        datasets=tuple(map(DATASETS.canonical, names(dataset))),
        ipcs=ipcs,
        protocols=names(protocol),
        students=names(student),
    )


def names(text: str | None) -> tuple[str, ...]:
    return tuple(split_outside_brackets(text or ""))


def show(found: Record, draw: Callable[[Any, Console], None], *, json: bool) -> None:
    """On standard output: key by key, or as `draw` has it for people."""
    if json:
        sys.stdout.write(as_json(found))
    else:
        draw(found, console())


def progress() -> AbstractContextManager[Callable[[str, int, int], None]]:
    """Called with (what, done, total): a bar on a terminal; other output has results only."""
    err = Console(emoji=False, stderr=True)
    return ShownProgress(err) if err.is_terminal else nullcontext(lambda what, done, total: None)


def console() -> Console:
    """Standard output as it is now; wide where it is no terminal, so that files and pipes get whole tables."""
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(emoji=False, width=None if terminal else PIPE_WIDTH, highlight=False)

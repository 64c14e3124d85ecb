"""Whoever is told how a run goes: the run says it, a reporter shows it on a console, in a notebook, or nowhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.markup import escape

from ddbench.benchmark.core.shown_progress import ShownProgress
from ddbench.benchmark.running import live
from ddbench.benchmark.running.runner import Item, Observer
from ddbench.datasets.file_dataset import Progress, silent


class Reporter:
    """Whoever is told how a run goes. As it is, for Python: warnings as Python warns, and bars and the live view where
    there is a console to show them on; what is said and what fails is in the outcome."""

    def __init__(self, out: Console | None = None) -> None:
        self.out = out

    def say(self, text: str) -> None:
        """What people may want to know."""

    def warn(self, text: str) -> None:
        """What people should not miss."""
        warnings.warn(text, stacklevel=2)

    def failed(self, item: Item) -> None:
        """A cell failed, or could not be run because another one did."""

    def planned(self, items: Sequence[Item]) -> None:
        """The cells of a dry run."""

    def progress(self) -> AbstractContextManager[Progress]:
        """Shows work before the cells while the block runs."""
        return nullcontext(silent) if self.out is None else ShownProgress(self.out)

    def view(self, items: list[Item]) -> AbstractContextManager[Observer]:
        """Shows the cells while the block runs them."""
        return nullcontext(Observer()) if self.out is None else live.view(self.out, items)


class ConsoleReporter(Reporter):
    """For the command line: everything, warnings and failures on standard error."""

    out: Console

    def __init__(self, out: Console, err: Console, *, quiet: bool = False) -> None:
        super().__init__(out)
        self.err, self.quiet = err, quiet
        """Quiet: one line for each cell that this run made, and what went wrong."""

    def say(self, text: str) -> None:
        if self.quiet:
            return
        self.out.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.err.print(f"[bold yellow]Warning: {escape(text)}[/]", highlight=False, soft_wrap=True)

    def failed(self, item: Item) -> None:
        self.err.print(f"[red]{item.fate}[/red] {escape(item.complaint)}", highlight=False, soft_wrap=True)

    def view(self, items: list[Item]) -> AbstractContextManager[Observer]:
        return nullcontext(live.OwnCells(self.out)) if self.quiet else super().view(items)

    def progress(self) -> AbstractContextManager[Progress]:
        return nullcontext(silent) if self.quiet else super().progress()

    def planned(self, items: Sequence[Item]) -> None:
        self.out.print(live.dry_run_table(list(items)))

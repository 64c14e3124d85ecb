"""A plan on the command line: run it, show what came of it, and end with the exit code that says how it went."""

from __future__ import annotations

from collections.abc import Callable

import typer
from rich.console import Console

from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.running.reporter import ConsoleReporter
from ddbench.benchmark.running.run_plan import run_plan


def reporter(*, errors_only: bool = False, quiet: bool = False) -> ConsoleReporter:
    """Whoever shows a run on the terminal; with `errors_only`, all of it on standard error; `quiet`, what it made."""
    return ConsoleReporter(Console(emoji=False, stderr=errors_only), Console(emoji=False, stderr=True), quiet=quiet)


def execute(
    spec: RunSpec,
    planned: Planned,
    reporter: ConsoleReporter,
    *,
    dry_run: bool,
    show: Callable[[], None] | None = None,
) -> None:
    """Run a plan and show what came of it: by `show`, else as leaderboards.

    Raises:
        typer.Exit: 130 after an interruption, 1 if a cell failed.
    """
    outcome = run_plan(spec, planned, reporter, dry_run=dry_run)
    if dry_run:
        return
    if planned.plan.has_students:
        if not reporter.quiet:
            (show or (lambda: _leaderboards(spec)))()
        if spec.track is not None:
            from ddbench.benchmark.running.tracking import track_board
            from ddbench.reports.tables.means import means

            track_board(spec.track, spec.out, means(spec.out))
    if outcome.left:
        reporter.err.print(
            f"{outcome.left} cells go on there. `bench status --runs {spec.out}` shows them; the same command goes on "
            "with the rest.",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return
    if outcome.interrupted:
        reporter.err.print("Interrupted. The same command goes on where this run stopped.")
        raise typer.Exit(130)
    if not outcome.ok:
        raise typer.Exit(1)


def _leaderboards(spec: RunSpec) -> None:
    from ddbench.benchmark.commands.leaderboard import leaderboard

    for name in spec.datasets:
        leaderboard(spec.out, name)
    if spec.test_on:
        typer.echo(f"`bench robust --runs {spec.out}` shows how far they fall on {', '.join(spec.test_on)}")

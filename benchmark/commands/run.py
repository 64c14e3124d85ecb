"""`bench run`, and `bench distill`, its first stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddbench.benchmark.commands.options import DryRun, run_options

run_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
distill_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Config = Annotated[Path | None, typer.Option("--config", help="YAML study with the same options; flags win.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Print a line for each cell that this run made and what failed, no leaderboard."),
]
StudyName = Annotated[
    str | None, typer.Option("--study", help="A paper's table as one command; see `bench list studies`. Flags win.")
]


@run_app.command()
@run_options()
def run(
    given: dict[str, Any],
    config: Config = None,
    study: StudyName = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Distill, train students, show the leaderboard. What is not said comes from the dataset's headline.

    The same command may run any number of times at once on one results folder, on any machines that see it: the runs
    share the cells.
    """
    _run(given, config, study, dry_run=dry_run, quiet=quiet, students=True)


@distill_app.command()
@run_options(without=("repeats", "protocol", "student", "teacher", "test_on", "test_data", "per_gpu"))
def distill(
    given: dict[str, Any],
    config: Config = None,
    study: StudyName = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """The first stage alone: make distilled sets, train no students."""
    _run(given, config, study, dry_run=dry_run, quiet=quiet, students=False)


def _run(
    given: dict[str, Any], config: Path | None, study: str | None, *, dry_run: bool, quiet: bool, students: bool
) -> None:
    from ddbench.benchmark.commands.execute import execute, reporter
    from ddbench.benchmark.planning.planner import plan_request

    request = plan_request(given, config=config, study=study, students=students)
    execute(*request, reporter(quiet=quiet), dry_run=dry_run)

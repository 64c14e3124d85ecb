"""`bench stop`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

stop_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@stop_app.command()
def stop(
    runs: Annotated[Path, typer.Option("--runs", help="Results folder.")] = Path("runs"),
) -> None:
    """Cancel what `bench submit` queued for a results folder, and have its running pilots stop, resumably."""
    from ddbench.benchmark.cluster import slurm
    from ddbench.benchmark.cluster.jobs import submissions, tasks
    from ddbench.benchmark.core.errors import UsageError

    found = submissions(runs)
    arrays = [array.array for one in found for array in one.arrays()]
    if not arrays:
        raise UsageError(f"nothing was submitted for {runs}")
    waiting = [task for task in tasks(runs) if task.state in ("queued", "held")]
    slurm.stop(arrays)
    by_number = {int(one.folder.name): one for one in found}
    for task in waiting:
        by_number[task.submission].claim(task.task)
        by_number[task.submission].cancelled(task.task)
    typer.echo("stopped; the same `bench submit` goes on where its pilots stopped")

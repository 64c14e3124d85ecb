"""`bench pilot`: what the tasks of `bench submit` run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

pilot_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Stage(StrEnum):
    DISTILL = "distill"
    EVALUATE = "evaluate"


@pilot_app.command()
def pilot(
    job: Annotated[Path, typer.Argument(help="Folder of the submission, OUT/jobs/N.")],
    stage: Annotated[Stage, typer.Argument(help="Which cells it takes on.")],
) -> None:
    """One task of an array that `bench submit` queued. Its exit status is for the shell around it."""
    from ddbench.benchmark.cluster.jobs import Submission
    from ddbench.benchmark.cluster.pilot import Pilot

    raise typer.Exit(Pilot(Submission(job), "distill" if stage is Stage.DISTILL else "evaluate").run())

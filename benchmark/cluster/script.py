"""The batch script of a stage's pilots: what Slurm starts, in bash, from one template."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from string import Template

from ddbench.benchmark.cluster.site import Site, Stage

TEMPLATE = Path(__file__).with_name("pilot.sbatch")
AGAIN, HELD = 85, 86
"""Exit statuses of a pilot that wants to go back to the queue, and of one that wants to wait there to be released."""


def script(site: Site, stage: Stage, job: Path, folder: Path, tasks: int, title: str) -> str:
    """The text of a batch script.

    Args:
        job: folder of the submission.
        folder: where pilots run, as `bench submit` did.
        title: what is run, for people.
    """
    resources = site.of(stage)
    command = site.command or shlex.join([sys.executable, "-P", "-m", "ddbench"])
    return Template(TEMPLATE.read_text()).substitute(
        title=" ".join(title.split()),
        stage=stage,
        last=tasks - 1,
        cpus=resources.cpus,
        memory=resources.memory,
        time=resources.time,
        gres=f" --gres=gpu:{resources.gpus}" if resources.gpus else "",
        warning=site.warning_seconds,
        options="\n".join(f"#SBATCH {option}" for option in site.options),
        environment="\n".join(f"export {name}={shlex.quote(text)}" for name, text in site.environment.items()),
        setup="\n".join(site.setup),
        job=shlex.quote(str(job)),
        folder=shlex.quote(str(folder)),
        command=command,
        rc_again=AGAIN,
        rc_held=HELD,
    )

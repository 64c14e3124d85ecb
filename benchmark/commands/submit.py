"""`bench submit`: the same run, by pilots in a Slurm cluster's queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddbench.benchmark.commands.options import run_options
from ddbench.benchmark.commands.run import Config, StudyName

submit_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        help="Settings of the cluster, YAML.",
        show_default="$DDBENCH_SITE, OUT/site.yaml, ~/.config/ddbench/site.yaml",
    ),
]
Pilots = Annotated[
    int | None, typer.Option("--pilots", min=1, help="Pilots of each stage, in place of what the settings say.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show scripts, pilots, expected time and limits; queue nothing.")
]
Init = Annotated[
    bool, typer.Option("--init", help="Write a settings file with every setting explained, to --site or OUT/site.yaml.")
]


@submit_app.command()
@run_options(without=("engine", "address", "track"))
def submit(
    given: dict[str, Any],
    config: Config = None,
    study: StudyName = None,
    site: SiteFile = None,
    pilots: Pilots = None,
    dry_run: DryRun = False,
    init: Init = False,
) -> None:
    """Queue pilots on a Slurm cluster that run what `bench run` with the same options would.

    The same command again adopts what is queued or running, and queues what is missing. `bench status` shows how it
    stands, `bench stop` ends it, resumably.
    """
    from ddbench.benchmark.cluster import foretold
    from ddbench.benchmark.cluster.site import EXAMPLE, find_site, read_site
    from ddbench.benchmark.cluster.submit import resolve, said
    from ddbench.benchmark.cluster.submit import submit as queue
    from ddbench.benchmark.core.errors import UsageError

    out = Path(said("out", given, config, study, "runs")).expanduser()
    if init:
        path = site or out / EXAMPLE.name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x") as file:
                file.write(EXAMPLE.read_text())
        except FileExistsError:
            raise UsageError(f"{path} is there already; name another file with --site, or edit it") from None
        _say(f"wrote {path}: say there what your cluster needs, then `bench submit … --dry-run`")
        return
    wanted = resolve(given, config=config, study=study, site=read_site(find_site(site, out)), pilots=pilots)
    for note in wanted.planned.notes:
        _say(note)
    for line in foretold.lines(wanted):
        _say(line)
    if dry_run:
        for name, text in foretold.scripts(wanted):
            _say(f"\n{name}:\n{text}")
        return
    arrays = queue(wanted)
    for array in arrays:
        _say(f"queued: array {array.array}, {array.tasks} pilots of {array.stage}")
    if not arrays:
        _say("nothing to queue" + (": the pilots that are needed are there" if any(wanted.active.values()) else ""))
    _say(f"`bench status --runs {wanted.spec.out}` shows how it stands; `bench stop --runs {wanted.spec.out}` ends it")


def _say(text: str) -> None:
    typer.echo(text)

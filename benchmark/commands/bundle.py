"""`bench bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import DataFolder, Plugins
from ddbench.benchmark.core.registry import load_plugin

bundle_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@bundle_app.command()
def bundle(
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: NAME.tar.zst.", dir_okay=False)],
    runs: reading.Runs = Path("runs"),
    dataset: reading.Datasets = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="The distilled sets too.")] = True,
    by: Annotated[str | None, typer.Option("--by", help="Who you are, for those who read it.")] = None,
    data: DataFolder = None,
    plugin: Plugins = None,
) -> None:
    """Put results, with all that proves them, into one file for others to merge."""
    from ddbench.benchmark.core.store import Store
    from ddbench.benchmark.transfer.bundle import write_bundle
    from ddbench.benchmark.transfer.data_at_hand import DataAtHand

    for file in plugin or []:
        load_plugin(file)
    screen = reading.console()
    with reading.progress() as progress:
        made = write_bundle(
            Store(runs),
            out,
            datasets=reading.names(dataset),
            images=images,
            by=by,
            data=DataAtHand(data),
            done=lambda done, total: progress("checking cells", done, total),
        )
    for note in made.notes:
        screen.print(note, markup=False, soft_wrap=True)
    mib = out.stat().st_size / 2**20
    screen.print(f"{made.cells} cells and {made.sets} sets, {mib:.2f} MiB: {out}", markup=False, soft_wrap=True)
    screen.print(f"SHA-256 {made.sha256}", soft_wrap=True)

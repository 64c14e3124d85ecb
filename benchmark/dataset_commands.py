"""`bench prepare` and `bench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

prepare_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
verify_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset; see `bench list datasets`.")]
Split = Annotated[str | None, typer.Option("--split", help="Split of the dataset.", show_default="its first")]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        "--data",
        help="Folder or archive with its files.",
        show_default="$DDBENCH_DATA, else what `bench prepare` found",
    ),
]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="Python file with a dataset of your own.")]


@prepare_app.command()
def prepare(
    dataset: Dataset,
    source: Source = None,
    split: Split = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=1, help="Decode its images at this side in pixels, once.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out training images that cannot be decoded.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Find a dataset's files, check that they are all there, and remember where they are.

    With --resolution, also decode them into the cache. A killed preparation goes on where it stopped.
    """
    from ddbench.benchmark import prepare as preparation

    _load(plugin)
    preparation.prepare(dataset, split, source, resolution, skip_corrupt=skip_corrupt, console=Console())


@verify_app.command()
def verify(dataset: Dataset, source: Source = None, split: Split = None, plugin: Plugins = None) -> None:
    """Count a dataset's images class by class, and compare numbers and names with the whole split."""
    from ddbench.benchmark import prepare as preparation

    _load(plugin)
    if not preparation.verify(dataset, split, source, console=Console()):
        raise typer.Exit(1)


def _load(plugins: list[Path] | None) -> None:
    from ddbench.benchmark.registry import load_plugin

    for file in plugins or []:
        load_plugin(file)

"""`bench prepare` (a dataset's files, or a prior's) and `bench verify`."""

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
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET|prior", help="A dataset (see `bench list datasets`), or the word prior.")
    ],
    prior: Annotated[
        str | None,
        typer.Argument(
            metavar="PRIOR", help="After the word prior: its name; `bench list priors` shows what there is."
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            "--data",
            help="Folder or archive with a dataset's files; of a prior: a diffusers folder or an original .pt.",
            show_default="$DDBENCH_DATA, else what was prepared before; of a prior: the hub",
        ),
    ] = None,
    split: Split = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=1, help="Decode its images at this side in pixels, once.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out training images that cannot be decoded.")
    ] = False,
    vae: Annotated[
        Path | None, typer.Option("--vae", help="Of a prior: folder of its autoencoder, if it lies elsewhere.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Of a prior: commit on the hub, instead of the pinned one.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Find a dataset's files, check that they are all there, and remember where they are; or install a prior.

    `bench prepare woof --from DIR`: with --resolution, also decode the images into the cache.

    `bench prepare prior dit-xl-2-256`: download it, or with --from take files that are here; `bench prepare prior NAME
    --from DIR` installs a prior of your own. Whatever was killed goes on where it stopped.
    """
    from ddbench.benchmark.core.errors import UsageError
    from ddbench.benchmark.running import prepare as preparation

    _load(plugin)
    if dataset == "prior":
        if prior is None:
            raise UsageError("bench prepare prior NAME: give the name of a prior; `bench list priors` shows them")
        if split is not None or resolution is not None or skip_corrupt:
            raise UsageError("--split, --resolution and --skip-corrupt are for datasets, not for priors")
        preparation.prepare_prior(prior, source, vae, revision, console=Console())
        return
    if prior is not None or vae is not None or revision is not None:
        raise UsageError(f"a second name, --vae and --revision are for priors: bench prepare prior {prior or 'NAME'} …")
    preparation.prepare(dataset, split, source, resolution, skip_corrupt=skip_corrupt, console=Console())


@verify_app.command()
def verify(dataset: Dataset, source: Source = None, split: Split = None, plugin: Plugins = None) -> None:
    """Count a dataset's images class by class, and compare numbers and names with the whole split."""
    from ddbench.benchmark.running import prepare as preparation

    _load(plugin)
    if not preparation.verify(dataset, split, source, console=Console()):
        raise typer.Exit(1)


def _load(plugins: list[Path] | None) -> None:
    from ddbench.benchmark.core.registry import load_plugin

    for file in plugins or []:
        load_plugin(file)

"""`bench prepare`: a dataset's files, or a prior's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ddbench.benchmark.commands.options import Plugins, Split
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.shown_progress import ShownProgress
from ddbench.benchmark.running.prepare import kept
from ddbench.datasets.base import Dataset
from ddbench.datasets.file_dataset import FileDataset

if TYPE_CHECKING:
    from ddbench.methods.diffusion.priors.sources import Said

prepare_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
            help="Folder or archive with a dataset's files; of a prior: a diffusers folder or a checkpoint.",
            show_default="$DDBENCH_DATA, else what was prepared before; of a prior: the hub",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="As --from; of a prior: files of the dataset of --check-on.")
    ] = None,
    split: Split = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=1, help="Decode its images at this side in pixels, once.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out training images that cannot be decoded.")
    ] = False,
    vae: Annotated[
        Path | None, typer.Option("--vae", help="Folder of a prior's autoencoder, if it lies elsewhere.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit of a prior on the hub, instead of the pinned one.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="PRIOR", help="A known prior of whose kind the weights are: its metadata."),
    ] = None,
    class_ids: Annotated[
        Path | None,
        typer.Option(
            "--class-ids", help="File of a prior's class list: a class id a line in label order, or `label class-id`."
        ),
    ] = None,
    check_on: Annotated[
        str | None,
        typer.Option(
            "--check-on",
            metavar="DATASET|FOLDER|none",
            help="Real images on which a prior's class list is checked.",
            show_default="a dataset of its classes that is at hand",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Text-to-image priors: a class's text, {name} in it.",
            show_default="{name}",
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(
            "--negative", metavar="TEXT", help="Text-to-image priors: the text for no class.", show_default="none"
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Find a dataset's files, check that they are all there, and remember where they are; or install a prior.

    `bench prepare woof --from DIR`: with --resolution, also decode the images into the cache.

    `bench prepare prior dit-xl-2-256`: download it, or with --from take files that are here; `bench prepare prior NAME
    --from DIR` installs a prior of your own. Whatever was killed goes on where it stopped.
    """
    for file in plugin or []:
        load_plugin(file)
    if dataset == "prior":
        if prior is None:
            raise UsageError("bench prepare prior NAME: give the name of a prior; `bench list priors` shows them")
        if split is not None or resolution is not None or skip_corrupt:
            raise UsageError("--split, --resolution and --skip-corrupt are for datasets, not for priors")
        from ddbench.methods.diffusion.priors.sources import Said

        _prepare_prior(prior, source, vae, revision, Said(like, class_ids, check_on, data, prompt, negative))
        return
    if any(given is not None for given in (prior, vae, revision, like, class_ids, check_on, prompt, negative)):
        raise UsageError(
            "a second name, --vae, --revision, --like, --class-ids, --check-on, --prompt and --negative are for "
            f"priors: bench prepare prior {prior or 'NAME'} …"
        )
    if source is not None and data is not None:
        raise UsageError("--from and --data name the same thing for a dataset; give one of them")
    _prepare(DATASETS.canonical(dataset), split, source or data, resolution, skip_corrupt=skip_corrupt)


def _prepare(name: str, split: str | None, source: Path | None, resolution: int | None, *, skip_corrupt: bool) -> None:
    dataset: Dataset = DATASETS.load(name)()
    split = split or dataset.splits[0]
    if not isinstance(dataset, FileDataset):
        opened = dataset.load(split, source, dataset.resolution if resolution is None else resolution)
        typer.echo(f"{name}, split {split}: {len(opened.train):,} training and {len(opened.test):,} test images")
        where = "" if source is None else f", and nothing is remembered: runs find its files by --data {source}"
        typer.echo(f"{name} needs no preparing{where}")
        return
    with ShownProgress(Console(emoji=False)) as progress:
        prepared = dataset.prepare(
            split, source, resolution, skip_corrupt=skip_corrupt, remember=True, progress=progress
        )
    typer.echo(f"{name}, split {split}: {prepared.n_train:,} training and {prepared.n_test:,} test images")
    typer.echo(f"source {prepared.source}, remembered for runs that name none")
    typer.echo(f"split hash {prepared.split_hash}")
    for left_out in prepared.skipped:
        typer.echo(f"left out: {left_out}")
    if resolution is None:
        typer.echo(f"Not decoded; the first run does it, or `bench prepare {name} --resolution {dataset.resolution}`.")
    else:
        typer.echo(kept(prepared))
    if prepared.warning:
        typer.echo(f"Warning: {prepared.warning}")


def _prepare_prior(name: str, source: Path | None, vae: Path | None, revision: str | None, said: Said) -> None:
    from ddbench.methods.diffusion.priors.install import install

    files = install(name, source, vae, revision, said=said, say=typer.echo)
    known = sum(class_id is not None for class_id in files.metadata.class_ids)
    typer.echo(f"{name}: {files.metadata.resolution} px, {known} classes, in {files.folder}")
    typer.echo(f"SHA-256 {files.sha256}")
    typer.echo(f"trained on {files.trained_on}")
    typer.echo(f"`bench run --prior {name} …` uses it; export DDBENCH_PRIOR={name} makes it the default.")

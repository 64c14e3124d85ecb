"""`bench train-prior`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ddbench.benchmark.commands.options import Plugins
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.datasets.base import Dataset
from ddbench.datasets.file_dataset import load_anew

train_prior_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@train_prior_app.command()
def train_prior(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Dataset whose training images it learns.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the prior; must not exist.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, batches and noise.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Training steps.", show_default="the recipe's")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the dataset.", show_default="the dataset's first")
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option("--resolution", min=1, help="Side of its images in pixels.", show_default="the dataset's"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder or archive with the dataset's files, if it needs any.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Train a small pixel-space prior on a dataset's training images, by the recipe of the bundled one.

    The split's validation images are left out, so that methods can be tuned on them (`bench tune`). Its folder gets a
    model card that says how well a classifier recognises its samples.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # told before minutes of training, not after
        raise RunError(f"cannot write a prior to {out}: {error.strerror}. Choose another folder with --out.") from error
    from dataclasses import replace

    import torch

    from ddbench.benchmark.core.environment import cpu_model
    from ddbench.benchmark.planning.run_prior import names_of
    from ddbench.methods.diffusion.priors.card import quality_table, write_card
    from ddbench.methods.diffusion.priors.training import PriorTraining
    from ddbench.methods.diffusion.priors.training import train_prior as train

    console = Console(emoji=False)
    for file in plugin or []:
        load_plugin(file)
    dataset = DATASETS.canonical(dataset)
    opened: Dataset = DATASETS.load(dataset)()
    settings = PriorTraining()
    if steps is not None:
        if steps < 1:
            raise UsageError(f"--steps {steps}: expected at least 1")
        settings = replace(settings, steps=steps)
    chosen = opened.splits[0] if split is None else split
    if chosen not in opened.splits:
        raise UsageError(f"--split {chosen}: {dataset} has {' and '.join(opened.splits)}")
    images = load_anew(opened, chosen, data, opened.resolution if resolution is None else resolution)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        shown = bar.add_task("train", total=settings.steps, loss="")
        report = train(
            images,
            opened.class_ids,
            settings,
            out,
            seed=seed,
            trained_on=f"{dataset}, split {images.name}",
            names_of=names_of(dataset),
            on_step=lambda done, _, loss: bar.update(shown, completed=done, loss=f"loss {loss:.4f}"),
        )
    with console.status("measuring") as status:
        quality = write_card(
            out,
            images,
            opened.class_ids,
            report,
            title=f"{dataset.capitalize()} prior",
            hardware=f"{torch.get_num_threads()} threads of {cpu_model()}, torch {torch.__version__}",
            progress=lambda note: status.update(f"measuring: {note}"),
        )
    held_out = "" if report.held_out_loss is None else f", {report.held_out_loss:.4f} on held-out training images"
    console.print(
        f"{out}: {report.parameters:,} parameters, {report.images} images, {report.seconds:.0f} s; "
        f"ε error {report.loss:.4f}{held_out}\n\n{quality_table(quality)}\n\n"
        f"`bench run --prior {out} --dataset {dataset} …` uses it.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )

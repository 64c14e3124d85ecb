"""`bench train-prior`: the recipe of the bundled priors on a dataset's training images, with progress."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ddbench.benchmark.errors import UsageError
from ddbench.benchmark.registry import DATASETS
from ddbench.datasets.base import Dataset


def train(dataset_name: str, out: Path, *, seed: int, steps: int | None, data: Path | None, console: Console) -> None:
    """Train a prior, write its folder, and say how well a classifier recognises its samples.

    Raises:
        UsageError: unknown dataset, a folder that exists, or settings that do not fit the images.
    """
    from dataclasses import replace

    from ddbench.methods.diffusion.train_prior import PriorTraining, train_prior

    dataset: Dataset = DATASETS.load(dataset_name)()
    settings = PriorTraining()
    if steps is not None:
        if steps < 1:
            raise UsageError(f"--steps {steps}: expected at least 1")
        settings = replace(settings, steps=steps)
    split = dataset.load(dataset.splits[0], data, dataset.resolution)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        shown = bar.add_task("train", total=settings.steps, loss="")
        report = train_prior(
            split,
            dataset.class_ids,
            settings,
            out,
            seed=seed,
            trained_on=f"{dataset_name}, split {split.name}",
            on_step=lambda done, _, loss: bar.update(shown, completed=done, loss=f"loss {loss:.4f}"),
        )
    held_out = "" if report.held_out_loss is None else f", {report.held_out_loss:.4f} on held-out training images"
    console.print(
        f"{out}: {report.parameters:,} parameters, {report.images} images, {report.seconds:.0f} s; "
        f"ε error {report.loss:.4f}{held_out}",
        highlight=False,
    )

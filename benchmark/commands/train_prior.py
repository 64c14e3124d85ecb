"""`bench train-prior`: the recipe of the bundled priors on a dataset's training images, with progress."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.datasets.base import Dataset


def train(dataset_name: str, out: Path, *, seed: int, steps: int | None, data: Path | None, console: Console) -> None:
    """Train a prior, write its folder with a model card, and say how well a classifier recognises its samples.

    Raises:
        UsageError: unknown dataset, a folder that exists, or settings that do not fit the images.
        RunError: a place that cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # told before minutes of training, not after
        raise RunError(f"cannot write a prior to {out}: {error.strerror}. Choose another folder with --out.") from error
    from dataclasses import replace

    import torch

    from ddbench.benchmark.core.environment import cpu_model
    from ddbench.methods.diffusion.priors.card import quality_table, write_card
    from ddbench.methods.diffusion.priors.training import PriorTraining, train_prior

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
    with console.status("measuring") as status:
        quality = write_card(
            out,
            split,
            dataset.class_ids,
            report,
            title=f"{dataset_name.capitalize()} prior",
            hardware=f"{torch.get_num_threads()} threads of {cpu_model()}, torch {torch.__version__}",
            progress=lambda note: status.update(f"measuring: {note}"),
        )
    held_out = "" if report.held_out_loss is None else f", {report.held_out_loss:.4f} on held-out training images"
    console.print(
        f"{out}: {report.parameters:,} parameters, {report.images} images, {report.seconds:.0f} s; "
        f"ε error {report.loss:.4f}{held_out}\n\n{quality_table(quality)}\n\n"
        f"`bench run --prior {out} --dataset {dataset_name} …` uses it.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )

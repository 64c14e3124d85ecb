"""`bench train-teacher`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ddbench.benchmark.commands.options import Plugins, Split
from ddbench.benchmark.core.errors import UsageError

if TYPE_CHECKING:
    from ddbench.benchmark.planning.teacher_files import TeacherCard

train_teacher_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

PLAIN_STEPS = 10
"""Lines of progress where the output is no terminal."""


@train_teacher_app.command()
def train_teacher(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Dataset whose training images it learns.")],
    network: Annotated[
        str | None,
        typer.Option(
            "--network", help="Its network; see `bench list networks`.", show_default="the soft protocols': resnet18_bn"
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=8, help="Side in pixels of its images.", show_default="the protocols': 224"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Training epochs.", show_default="the recipe's: 200")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, batches and augmentation.")] = 0,
    split: Split = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder or archive with the dataset's files.",
            show_default="$DDBENCH_DATA, else what `bench prepare` found",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for a copy, for --from on another machine.")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Train nothing: take over a folder that --out filled; for imagenet-1k, torchvision's file."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0.")] = "auto",
    plugin: Plugins = None,
) -> None:
    """Train the teacher of a dataset for the protocols with soft labels, by a pinned recipe, and keep it for runs.

    The validation part of the training images is withheld and says how good it is. The last teacher trained or taken
    over is the one that runs use; results name it by its hash.
    """
    from ddbench.benchmark.cells import teachers
    from ddbench.benchmark.core.registry import DATASETS, load_plugin
    from ddbench.benchmark.planning.setting import resolve_device
    from ddbench.benchmark.planning.teacher_files import TORCHVISION_FILE
    from ddbench.benchmark.protocols import network_names
    from ddbench.benchmark.protocols.base import Teacher
    from ddbench.benchmark.protocols.definitions import soft_rded
    from ddbench.datasets.imagenet.classes import IMAGENET_1K

    for file in plugin or []:
        load_plugin(file)
    dataset = DATASETS.canonical(dataset)
    declared = DATASETS.load(dataset)
    protocol = soft_rded.HALF
    assert isinstance(protocol.teacher, Teacher)
    console = Console(emoji=False)
    if source is not None:
        card = teachers.take_over(declared, source, imagenet_1k=soft_rded.RESNET18_IMAGENET1K_V1)
        typer.echo(_what(card) if card else f"{TORCHVISION_FILE} is kept for runs on {dataset}")
        return
    if network is None and declared.class_ids == IMAGENET_1K:
        raise UsageError(
            f"the teacher of {dataset} is torchvision's {TORCHVISION_FILE} and is not trained here; take it "
            "over with --from FILE, or name another network with --network for a protocol that overrides its teacher"
        )
    if network is not None and network_names.find(network).comes_trained:
        raise UsageError(
            f"{network} comes trained: use it as it is, with --teacher {network} of `bench run` and `eval`"
        )
    import torch

    image_size = image_size or protocol.image_size_for(declared.resolution)
    given = {} if epochs is None else {"epochs": epochs}
    recipe = teachers.recipe(network or protocol.teacher.network, image_size, seed=seed, **given)
    began = time.monotonic()
    resolution = image_size if declared.resolutions is None else declared.resolution
    with console.status(f"teacher of {dataset}: reading its images") as status:

        def on_epoch(epoch: int, loss: float) -> None:
            if epoch * PLAIN_STEPS // recipe.epochs > (epoch - 1) * PLAIN_STEPS // recipe.epochs:
                seconds = time.monotonic() - began
                typer.echo(f"epoch {epoch} of {recipe.epochs}, loss {loss:.3f}, {seconds:.0f} s")

        card = teachers.train(
            dataset,
            split=split,
            data=data,
            recipe=recipe,
            resolution=resolution,
            device=torch.device(resolve_device(device)),
            progress=status.update,
            on_epoch=on_epoch,
        )
    typer.echo(_what(card))
    if out is not None:
        teachers.export(card, out)
        typer.echo(f"copied to {out}")


def _what(card: TeacherCard) -> str:
    accuracy = ""
    if card.validation_accuracy is not None:
        accuracy = f", {card.validation_accuracy:.2f} % of the {card.n_validation} images of the validation part"
        guessing = 100 / len(card.class_ids)
        if card.validation_accuracy <= 1.2 * guessing:
            accuracy += f" (guessing gives {guessing:.2f} %: it has learnt next to nothing, and its labels say as much)"
    return (
        f"teacher of {card.dataset}, split {card.split}: {card.recipe.network} at {card.recipe.image_size} px, "
        f"{card.recipe.epochs} epochs on {card.n_train:,} images{accuracy}; SHA-256 {card.sha256}. "
        "Soft protocols use it."
    )

"""`bench eval`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from ddbench.benchmark.commands.options import DryRun, run_options
from ddbench.benchmark.core.subsets import How
from ddbench.benchmark.planning.run_spec import run_spec

eval_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@eval_app.command()
@run_options(without=("methods", "datasets", "ipc", "seeds", "prior", "precision", "set", "shards", "batch_size"))
def evaluate(
    images: Annotated[
        str,
        typer.Option(
            "--images",
            metavar="FOLDER|FILE|hf:OWNER/NAME",
            help="Folder with one sub-folder per class of image files; file of tensors (.pt, .pth, .npz, .npy, "
            ".safetensors); or hf:OWNER/NAME\\[@revision]\\[:path] on the hub (`bench list sets`).",
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset whose classes and test images count.")],
    given: dict[str, Any],
    name: Annotated[str | None, typer.Option("--name", help="What leaderboards call it; its own name.")] = None,
    ipc: Annotated[
        int | None, typer.Option("--ipc", min=1, help="Images per class that count.", show_default="all")
    ] = None,
    subset: Annotated[
        How | None,
        typer.Option(
            "--subset",
            help="Which, where there are more: first by number, first by file name as text (as published loaders: "
            "0, 1, 10, 11), or drawn at random.",
        ),
    ] = None,
    subset_seed: Annotated[int, typer.Option("--subset-seed", min=0, help="Seed of --subset random.")] = 0,
    class_order: Annotated[
        str | None,
        typer.Option(
            "--class-order",
            metavar="FILE|imagenet|sorted|dataset",
            help="Which class is which, where folders are not named by class id: a file of lines `folder class-id` (or "
            "class ids, the first number 0); imagenet: by name, or number in ImageNet's order; sorted: number among "
            "the sorted class ids; dataset: number in the dataset's own order.",
        ),
    ] = None,
    flatten: Annotated[
        str | None,
        typer.Option("--flatten", metavar="white|black|R,G,B", help="What lies behind transparent pixels."),
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            "--normalisation",
            metavar="none|imagenet|cifar10|cifar100|zca|mean=…,std=…",
            help="How the floats of a file of tensors were made from pixels in 0…1.",
        ),
    ] = None,
    set_index: Annotated[
        int | None, typer.Option("--set-index", min=0, help="Which set of a file of tensors that holds several.")
    ] = None,
    labels: Annotated[
        Literal["probabilities", "logits"] | None,
        typer.Option("--labels", help="What the set's soft labels are.", show_default="probabilities, where they are"),
    ] = None,
    allow_test_images: Annotated[
        bool, typer.Option("--allow-test-images", help="Take a set with test images in it; it is never ranked.")
    ] = False,
    same_method_as: Annotated[
        str | None,
        typer.Option(
            "--same-method-as",
            metavar="NAME",
            help="Another set of the method of the set called NAME: one row of two sets. Else each set is a row.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Train students on a distilled set that anything has made."""
    from ddbench.benchmark.commands.execute import execute, reporter
    from ddbench.benchmark.running.foreign_set import plan_images

    spec = run_spec({}, {**given, "methods": ["images"], "datasets": [dataset]})
    shown = reporter()
    planned = plan_images(
        spec,
        images,
        shown,
        name=name,
        ipc=ipc,
        subset=subset,
        subset_seed=subset_seed,
        class_order=class_order,
        flatten=flatten,
        normalisation=normalisation,
        set_index=set_index,
        labels=labels,
        allow_test_images=allow_test_images,
        same_method_as=same_method_as,
        dry_run=dry_run,
    )
    execute(spec, planned, shown, dry_run=dry_run)

"""`bench verify`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ddbench.benchmark.commands.options import Plugins, Split
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.datasets.base import Dataset
from ddbench.datasets.file_dataset import FileDataset, Inspection

verify_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

ALL_CLASSES = 100
"""Classes up to which a table shows each; beyond, it shows those with another number of images than expected."""


@verify_app.command()
def verify(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset; see `bench list datasets`.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            "--data",
            help="Folder or archive with its files.",
            show_default="$DDBENCH_DATA, else what `bench prepare` found",
        ),
    ] = None,
    split: Split = None,
    plugin: Plugins = None,
) -> None:
    """Count a dataset's images class by class, and compare numbers and names with the whole split."""
    for file in plugin or []:
        load_plugin(file)
    if not _verify(DATASETS.canonical(dataset), split, source, Console(emoji=False)):
        raise typer.Exit(1)


def _verify(name: str, split: str | None, source: Path | None, console: Console) -> bool:
    """Show a split's images class by class; True if it is whole."""
    dataset: Dataset = DATASETS.load(name)()
    split = split or dataset.splits[0]
    found = dataset.inspect(split, source) if isinstance(dataset, FileDataset) else _opened(dataset, split, source)
    typer.echo(f"{name}, split {split}, from {found.source}")
    _class_table(dataset, found, console)
    for part, counts in (("training", found.train), ("test", found.test)):
        typer.echo(f"{sum(counts.values()):,} {part} images")
    expected = found.expected_split_hash
    compared = (
        "" if expected is None else " (as expected)" if expected == found.split_hash else f" (expected {expected})"
    )
    typer.echo(f"split hash {found.split_hash}{compared}")
    if isinstance(dataset, FileDataset):
        sides = ", ".join(f"{image_size} px" for image_size in found.decoded)
        typer.echo(f"decoded: {sides or 'at no resolution yet'}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    for problem in found.problems:
        console.print(f"[red]wrong:[/] {problem}", highlight=False, soft_wrap=True)
    typer.echo("This is not the whole split." if found.problems else "All there.")
    return not found.problems


def _opened(dataset: Dataset, split: str, source: Path | None) -> Inspection:
    """A dataset that checks its own files when it is opened."""
    if split not in dataset.splits:
        raise UsageError(f"{dataset.name} has no split {split!r}; known: {', '.join(dataset.splits)}")
    data = dataset.load(split, source, dataset.resolution)
    train, test = (
        {class_id: Counter(part.labels.tolist())[label] for label, class_id in enumerate(dataset.class_ids)}
        for part in (data.train, data.test)
    )
    return Inspection(
        source="the dataset itself" if source is None else str(source),
        split=split,
        train=train,
        test=test,
        expected_train=None,
        expected_test=test,
        split_hash=data.split_hash,
        expected_split_hash=None,
        problems=(),
        notes=() if data.warning is None else (data.warning,),
        decoded=(),
    )


def _class_table(dataset: Dataset, found: Inspection, console: Console) -> None:
    table = Table("class", "name", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("train", "expected", "test", "expected"):
        table.add_column(column, justify="right")
    named = dict(zip(dataset.class_ids, dataset.class_names, strict=True))
    hidden = 0
    for class_id, class_name in named.items():
        train, test = found.train[class_id], found.test[class_id]
        expected_train = None if found.expected_train is None else found.expected_train[class_id]
        expected_test = found.expected_test[class_id]
        right = train == (train if expected_train is None else expected_train) and test == expected_test
        if right and len(named) > ALL_CLASSES:
            hidden += 1
            continue
        style = "" if right else "red"
        known = "–" if expected_train is None else str(expected_train)
        table.add_row(class_id, class_name, str(train), known, str(test), str(expected_test), style=style)
    if table.row_count:
        console.print(table)
    if hidden:
        typer.echo(f"{hidden} classes with the expected number of images are not shown")

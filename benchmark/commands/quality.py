"""`bench quality`: measure the distilled sets of a results folder and show what was found."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.sharing.locks import lock_or_refuse
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.run_spec import split_outside_brackets
from ddbench.datasets.base import Dataset
from ddbench.reports.output import files
from ddbench.reports.quality.measures import VERSION
from ddbench.reports.quality.records import Measured, folder_of, read_quality
from ddbench.reports.quality.sets import FinishedSet, by_dataset, finished_sets
from ddbench.reports.quality.spaces import Wanted, wanted
from ddbench.reports.results.rows import Problem, printable

quality_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

REAL_IMAGES = 50_000
"""Training images that are looked at in all, where nothing is said: as many as FID is usually taken of."""


class Format(StrEnum):
    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


@quality_app.command(cls=reading.ReadingCommand)
def quality(
    runs: reading.Runs = Path("runs"),
    dataset: reading.Datasets = None,
    ipc: reading.Ipcs = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Only these methods, as leaderboards call them.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Feature space: a student network that is trained on the real images, such as convnet3 or "
            "convnet3\\[epochs=30,augmentation=affine] (parameters as of herding); efficientnet_lite0, "
            "which comes trained; or inception:FILE with weights.",
            show_default="the classifier of herding's recipe for the dataset",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder or archive with the dataset's files.", show_default="where the cells had it"
        ),
    ] = None,
    limit_real: Annotated[
        int | None,
        typer.Option(
            "--limit-real",
            min=0,
            help="The most real images of a class to look at, drawn at random; 0: all.",
            show_default=f"{REAL_IMAGES:,} over the number of classes",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0.")] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Measure also what has been measured.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Measure nothing: show what has been measured, in every feature space.")
    ] = False,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="Python file with a dataset of your own.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TERMINAL,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Measure distilled sets: coverage, diversity, distances to the real images, labels, copies, size.

    Every measurement is kept in the results folder (quality/), with a sheet of the nearest real images, and is made
    once. What each measure is and does not say: docs/quality.md.
    """
    from ddbench.reports.quality import tables, text

    for file in plugin or []:
        load_plugin(file)
    asked, methods = wanted(features), split_outside_brackets(method or "")
    results = reading.read_filtered(runs, dataset, ipc, None, None)
    sets, problems = finished_sets(results, methods)
    failed: list[Problem] = []
    spaces: list[str] | None = None
    if not show:
        spaces, failed = _measure(results.store, sets, asked, data, limit_real, device, again=again)
    report = tables.build(
        results, sets, read_quality(results.store), [*problems, *failed], spaces=spaces, methods=methods
    )
    match Format.JSON if as_json else format:
        case Format.TERMINAL:
            text.print_terminal(report, reading.console())
        case Format.MARKDOWN:
            sys.stdout.write(text.markdown(report))
        case Format.CSV:
            from ddbench.reports.quality.frames import quality_frame

            sys.stdout.write(files.as_csv(quality_frame(report)))
        case Format.JSON:
            sys.stdout.write(files.as_json(report))
    if failed:
        raise typer.Exit(1)


def _measure(
    store: Store,
    sets: Sequence[FinishedSet],
    asked: Wanted,
    data: Path | None,
    limit_real: int | None,
    device: str,
    *,
    again: bool,
) -> tuple[list[str], list[Problem]]:
    """Measure what has not been measured: (the feature spaces' hashes, what could not be measured)."""
    spaces: list[str] = []
    problems: list[Problem] = []
    there = read_quality(store)
    waiting: list[tuple[type[Dataset], int | None, list[FinishedSet]]] = []
    for members in by_dataset(sets).values():
        try:
            images: type[Dataset] = DATASETS.load(members[0].dataset.name)
        except UsageError as error:
            problems.append(Problem(str(store.out), printable(str(error))))
            continue
        per_class = max(1, REAL_IMAGES // len(images.class_ids)) if limit_real is None else limit_real or None
        space = asked.space(images, members[0].dataset)
        spaces.append(space.sha256)
        todo = {
            made.image_set_sha256: made
            for made in members
            if again or not _is_measured(there, made, space.sha256, per_class)
        }
        if todo:
            waiting.append((images, per_class, list(todo.values())))
    if not waiting:
        return spaces, problems
    folder = folder_of(store)
    folder.mkdir(exist_ok=True)
    advice = f" is measuring in {store.out}; wait for it"
    with lock_or_refuse(folder / ".lease", "another `bench quality`", advice) as lease:
        for images, per_class, todo_sets in waiting:
            problems += _measure_dataset(store, images(), todo_sets, asked, per_class, data, device)
        lease.require()
        shutil.rmtree(folder / ".scratch", ignore_errors=True)
    return spaces, problems


def _is_measured(there: Measured, made: FinishedSet, space: str, real_per_class: int | None) -> bool:
    return any(
        record.features.space.sha256 == space
        and record.version == VERSION
        and record.sample.real_per_class == real_per_class
        and record.is_of(made.image_set_sha256, made.dataset, made.ipc)
        for record in there.records.get(made.image_set_sha256, ())
    )


def _measure_dataset(
    store: Store,
    dataset: Dataset,
    sets: Sequence[FinishedSet],
    asked: Wanted,
    real_per_class: int | None,
    data: Path | None,
    device: str,
) -> list[Problem]:
    import torch

    from ddbench.benchmark.commands.measuring_progress import shown
    from ddbench.benchmark.planning.setting import resolve_device
    from ddbench.reports.quality.measure import open_measuring

    problems = []
    with shown(dataset.name) as progress:
        try:
            measuring = open_measuring(
                sets, dataset, asked, store,
                real_per_class=real_per_class, data=data, device=torch.device(resolve_device(device)),
                show=progress, say=progress.note,
            )  # fmt: skip
        except (UsageError, RunError) as error:
            return [Problem(str(store.sets), printable(f"no set of {dataset.name} can be measured: {error}"))]
        for number, made in enumerate(sets):
            progress("distilled sets measured", number, len(sets))
            try:
                measuring.measure(made, store)
            except (UsageError, RunError, OSError) as error:
                reason = printable(f"{made.maker.label}: {error}")
                problems.append(Problem(printable(str(made.folder)), reason))
        progress("distilled sets measured", len(sets), len(sets))
    return problems

"""Running from Python: `run`, `distill` and `evaluate`, as `bench run`, `bench distill` and `bench eval` do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, TypeVar, Unpack, get_type_hints

from rich.console import Console

from ddbench.benchmark.core.spec import Compile, Precision, Scalar
from ddbench.benchmark.core.subsets import How
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.planner import plan_request
from ddbench.benchmark.planning.run_spec import Reuse, RunSpec, Track, run_spec
from ddbench.benchmark.running.foreign_set import plan_images
from ddbench.benchmark.running.reporter import Reporter
from ddbench.benchmark.running.run_plan import CellsFailed, RunOutcome, run_plan
from ddbench.benchmark.running.tracking import track_board
from ddbench.reports.tables.means import means

Function = TypeVar("Function", bound=Callable[..., RunOutcome])


class CellOptions(TypedDict, total=False):
    """Where and how cells run: fields of `RunSpec`, as every function takes them."""

    split: str | None
    resolution: int | None
    data: Path | str | None
    out: Path | str
    device: str
    engine: str
    address: str | None
    jobs: int | None
    compile: Compile
    timeout: float | None
    reuse: Reuse
    retry_failed: bool
    track: Track | None
    plugins: Path | str | Sequence[Path | str]


class StudentOptions(TypedDict, total=False):
    """How students are trained: fields of `RunSpec`."""

    repeats: int | None
    protocol: str | None
    student: str | None
    teacher: str | None
    test_on: str | Sequence[str]
    test_data: Path | str | Sequence[Path | str]
    per_gpu: int


class DistillOptions(CellOptions, total=False):
    """What is distilled: fields of `RunSpec`."""

    methods: str | Sequence[str]
    datasets: str | Sequence[str]
    ipc: int | str | Sequence[int] | None
    seeds: int | str | Sequence[int] | None
    prior: str | None
    precision: Precision
    set: Mapping[str, Scalar]
    shards: int
    batch_size: int | None


class RunOptions(DistillOptions, StudentOptions, total=False):
    """All fields of `RunSpec`."""


class EvaluateOptions(CellOptions, StudentOptions, total=False):
    """Fields of `RunSpec` that say how students are trained on a set that is there."""


def _declared(options: type) -> Callable[[Function], Function]:
    """Show the options, which a function takes as `**options`, in its signature and documentation."""

    def decorate(function: Function) -> Function:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        shown, lines, types = list[inspect.Parameter](), list[str](), get_type_hints(options)
        for name, field in RunSpec.model_fields.items():
            if name in types:
                required, usual = field.is_required(), field.get_default(call_default_factory=True)
                default = inspect.Parameter.empty if required else usual
                kind = inspect.Parameter.KEYWORD_ONLY
                shown.append(inspect.Parameter(name, kind, default=default, annotation=types[name]))
                lines.append(f"        {name}: {field.description}")
        positional = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
        signature = inspect.Signature(
            [*positional, *shown, *own[len(positional) :]], return_annotation=RunOutcome.__name__
        )
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__doc__ = (function.__doc__ or "").replace("    Args:\n", "    Args:\n" + "\n".join(lines) + "\n")
        return function

    return decorate


@_declared(RunOptions)
def run(
    *,
    study: str | None = None,
    config: Path | str | None = None,
    dry_run: bool = False,
    progress: bool | None = None,
    check: bool = True,
    **options: Unpack[RunOptions],
) -> RunOutcome:
    """Distill and train students, as `bench run`. What is not said comes from the dataset's headline.

    Args:
        study: name of a paper's table that comes with the benchmark; the other options win over its own.
        config: a YAML study of your own, instead.
        dry_run: run nothing; the outcome says which cells there would be, and which exist.
        progress: show it. None: on a terminal and in a notebook, nowhere else.
        check: raise if a cell fails; else the outcome alone says so.

    Raises:
        UsageError: what is asked for cannot be done as asked; nothing was run.
        CellsFailed: cells failed, for the reasons that it names; its `outcome` has the others.
        RunError: the run as a whole failed.
        KeyboardInterrupt: it was interrupted; the same call goes on where it stopped.
    """
    file = None if config is None else Path(config).expanduser()
    return _run(*plan_request(options, study=study, config=file), _reporter(progress), dry_run=dry_run, check=check)


@_declared(DistillOptions)
def distill(
    *,
    study: str | None = None,
    config: Path | str | None = None,
    dry_run: bool = False,
    progress: bool | None = None,
    check: bool = True,
    **options: Unpack[DistillOptions],
) -> RunOutcome:
    """Make distilled sets and train no students, as `bench distill`; `outcome.sets` has their folders.

    Args:
        study: name of a paper's table that comes with the benchmark; the other options win over its own.
        config: a YAML study of your own, instead.
        dry_run: run nothing; the outcome says which cells there would be, and which exist.
        progress: show it. None: on a terminal and in a notebook, nowhere else.
        check: raise if a cell fails; else the outcome alone says so.

    Raises:
        UsageError, CellsFailed, RunError, KeyboardInterrupt: as `run`.
    """
    file = None if config is None else Path(config).expanduser()
    request = plan_request(options, study=study, config=file, students=False)
    return _run(*request, _reporter(progress), dry_run=dry_run, check=check)


@_declared(EvaluateOptions)
def evaluate(
    images: Path | str,
    dataset: str,
    *,
    name: str | None = None,
    ipc: int | None = None,
    subset: How | None = None,
    subset_seed: int = 0,
    class_order: str | None = None,
    flatten: str | None = None,
    normalisation: str | None = None,
    set_index: int | None = None,
    labels: Literal["probabilities", "logits"] | None = None,
    allow_test_images: bool = False,
    same_method_as: str | None = None,
    dry_run: bool = False,
    progress: bool | None = None,
    check: bool = True,
    **options: Unpack[EvaluateOptions],
) -> RunOutcome:
    """Train students on a distilled set that anything has made, as `bench eval`.

    Args:
        images: folder with one sub-folder per class of image files; file of tensors; or `hf:OWNER/NAME` on the hub.
        dataset: the dataset whose classes and test images count.
        name: what leaderboards call the set. None: the name of its folder, file or repository.
        ipc: images per class that count. None: all.
        subset: which, where there are more: first by number, first by file name as text, or drawn at random.
        subset_seed: seed of `subset="random"`.
        class_order: which class is which, where folders are not named by class id: imagenet, sorted, dataset or a file.
        flatten: what lies behind transparent pixels: white, black or R,G,B. None: such images are refused.
        normalisation: how the floats of a file of tensors were made from pixels in 0…1: none, imagenet, cifar10,
            cifar100, zca or "mean=…,std=…".
        set_index: which set of a file of tensors that holds several.
        labels: what the set's soft labels are. None: probabilities, else it must be said.
        allow_test_images: take a set with test images in it; it is never ranked.
        same_method_as: name of another set of the same method, in whose row this one counts. None: a row of its own.
        dry_run: run nothing; the outcome says which cells there would be, and which exist.
        progress: show it. None: on a terminal and in a notebook, nowhere else.
        check: raise if a cell fails; else the outcome alone says so.

    Raises:
        UsageError, CellsFailed, RunError, KeyboardInterrupt: as `run`.
    """
    spec, reporter = run_spec({}, {**options, "methods": ["images"], "datasets": [dataset]}), _reporter(progress)
    planned = plan_images(
        spec,
        images,
        reporter,
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
    return _run(spec, planned, reporter, dry_run=dry_run, check=check)


def _run(spec: RunSpec, planned: Planned, reporter: Reporter, *, dry_run: bool, check: bool) -> RunOutcome:
    outcome = run_plan(spec, planned, reporter, dry_run=dry_run)
    if spec.track is not None and planned.plan.has_students and not dry_run:
        track_board(spec.track, spec.out, means(spec.out))
    if outcome.interrupted:
        raise KeyboardInterrupt("Interrupted. The same call goes on where this run stopped.")
    if check and outcome.failed and not dry_run:
        raise CellsFailed(outcome)
    return outcome


def _reporter(progress: bool | None) -> Reporter:
    console = Console(emoji=False)
    if progress is None:
        progress = console.is_terminal or console.is_jupyter
    return Reporter(console if progress else None)

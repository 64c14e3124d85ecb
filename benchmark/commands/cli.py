"""The command line. Every command imports what it needs when it runs, so that help and listings answer at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from ddbench.benchmark.commands.lazy_commands import LazyCommands
from ddbench.benchmark.core.errors import RunError, UsageError

app = typer.Typer(
    name="bench",
    cls=LazyCommands,
    help="A benchmark of dataset distillation: run methods, train students under a fixed protocol, read leaderboards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out_console = Console()
err_console = Console(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Results folder.", show_default="runs")]
Dataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Dataset, or several separated by commas.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        help="Methods separated by commas; [key=value,other value] changes or sweeps a parameter: "
        "'dmgd[ot_scale=0.05,0.5]'. 'all': the main contestants; 'all+ablations': the rest too.",
    ),
]
Ipc = Annotated[str | None, typer.Option("--ipc", help="Images per class: 1,10 or 1-3.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="One distilled set per seed: 0-2 or 0,5.")]
Repeats = Annotated[int | None, typer.Option("--repeats", help="Students per distilled set.")]
Protocol = Annotated[str | None, typer.Option("--protocol", help="Evaluation protocol, e.g. quick or name[epochs=60].")]
Student = Annotated[str | None, typer.Option("--student", help="Student network; see `bench list networks`.")]
Split = Annotated[str | None, typer.Option("--split", help="Split of the dataset.")]
Resolution = Annotated[int | None, typer.Option("--resolution", help="Side of the images in pixels.")]
Prior = Annotated[
    str | None,
    typer.Option(
        "--prior",
        help="Diffusion prior: a name (`bench list priors`), a folder, or one of these tuned first: 'minimax(digits)'.",
    ),
]
Precision = Annotated[str | None, typer.Option("--precision", help="Of the sampler: fp32 or bf16.")]
SetValues = Annotated[
    list[str] | None, typer.Option("--set", help="key=value: a parameter of every chosen method that has it.")
]
Config = Annotated[Path | None, typer.Option("--config", help="YAML study with the same options; flags win.")]
StudyName = Annotated[
    str | None, typer.Option("--study", help="A paper's table as one command; see `bench list studies`. Flags win.")
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder or archive with the dataset's files, if it needs any.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:0.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="Where cells run.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Cells at once; on GPUs, one GPU each.")]
Shards = Annotated[
    int | None,
    typer.Option("--shards", help="Distill each set in so many parts of its classes, which --jobs run side by side."),
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images in flight while sampling.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds that one cell may take.")]
ReuseMode = Annotated[
    str | None,
    typer.Option(
        "--reuse",
        help="missing: run what is absent, killed, out of memory or timed out; never: run all again; "
        "only-cache: run nothing.",
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run cells again that failed.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="Python file with methods, datasets or protocols of your own.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the cells and which of them exist; run nothing.")]


@app.command()
def run(
    method: Methods = None,
    dataset: Dataset = None,
    ipc: Ipc = None,
    seeds: Seeds = None,
    repeats: Repeats = None,
    protocol: Protocol = None,
    student: Student = None,
    split: Split = None,
    resolution: Resolution = None,
    prior: Prior = None,
    precision: Precision = None,
    set_values: SetValues = None,
    config: Config = None,
    study: StudyName = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder.", show_default="runs")] = None,
    device: Device = None,
    engine: EngineName = None,
    jobs: Jobs = None,
    shards: Shards = None,
    batch_size: BatchSize = None,
    timeout: Timeout = None,
    reuse: ReuseMode = None,
    retry_failed: RetryFailed = False,
    plugin: Plugins = None,
    dry_run: DryRun = False,
) -> None:
    """Distill, train students, show the leaderboard. What is not said comes from the dataset's headline."""
    _run(_given(locals()), dry_run=dry_run, students=True)


@app.command()
def distill(
    method: Methods = None,
    dataset: Dataset = None,
    ipc: Ipc = None,
    seeds: Seeds = None,
    split: Split = None,
    resolution: Resolution = None,
    prior: Prior = None,
    precision: Precision = None,
    set_values: SetValues = None,
    config: Config = None,
    study: StudyName = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder.", show_default="runs")] = None,
    device: Device = None,
    engine: EngineName = None,
    jobs: Jobs = None,
    shards: Shards = None,
    batch_size: BatchSize = None,
    timeout: Timeout = None,
    reuse: ReuseMode = None,
    retry_failed: RetryFailed = False,
    plugin: Plugins = None,
    dry_run: DryRun = False,
) -> None:
    """The first stage alone: make distilled sets, train no students."""
    _run(_given(locals()), dry_run=dry_run, students=False)


@app.command("eval")
def evaluate(
    images: Annotated[
        Path, typer.Option("--images", help="Folder with one sub-folder per class, named by class id, of image files.")
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset whose classes and test images count.")],
    name: Annotated[str | None, typer.Option("--name", help="What leaderboards call it; the folder's name.")] = None,
    ipc: Annotated[
        int | None, typer.Option("--ipc", min=1, help="Images per class that count.", show_default="all")
    ] = None,
    subset: Annotated[
        Literal["first", "lexicographic", "random"] | None,
        typer.Option(
            "--subset",
            help="Which, where there are more: first by number, first by file name as text (as published loaders: "
            "0, 1, 10, 11), or drawn at random.",
        ),
    ] = None,
    subset_seed: Annotated[int, typer.Option("--subset-seed", min=0, help="Of --subset random.")] = 0,
    repeats: Repeats = None,
    protocol: Protocol = None,
    student: Student = None,
    split: Split = None,
    resolution: Resolution = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder.", show_default="runs")] = None,
    device: Device = None,
    engine: EngineName = None,
    jobs: Jobs = None,
    timeout: Timeout = None,
    reuse: ReuseMode = None,
    retry_failed: RetryFailed = False,
    plugin: Plugins = None,
    dry_run: DryRun = False,
) -> None:
    """Train students on a distilled set that anything has made."""
    given = _given(locals(), without=("images", "name", "ipc", "subset", "subset_seed"))
    from ddbench.benchmark.core.registry import DATASETS, load_plugin
    from ddbench.benchmark.planning.planned_sets import plan_foreign
    from ddbench.benchmark.planning.run_spec import run_spec
    from ddbench.benchmark.running.leaked_images import pixel_print, refuse_test_images
    from ddbench.benchmark.running.prepare import ShownProgress
    from ddbench.datasets.image_sets import choose_subset, describe_set

    for file in plugin or []:
        load_plugin(file)
    spec = run_spec({}, {**given, "methods": ["images"]})
    declared = DATASETS.load(dataset)
    chosen = choose_subset(images, declared.class_ids, ipc, subset, subset_seed)
    image_size = spec.resolution or declared.resolution
    prints: dict[Path, str | None] = {}

    def look(path: Path, pixels: Any) -> None:
        prints[path] = pixel_print(pixels, image_size)

    found = describe_set(images, declared.class_ids, declared.channels, subset=chosen, look=look)
    plan, setting = plan_foreign(spec, images, found.sha256, found.ipc, name or images.resolve().name, chosen)
    if spec.reuse != "only-cache":  # which shows what is there, and needs no data for it
        with ShownProgress(out_console) as progress:
            refuse_test_images(prints, declared(), setting.spec, spec.data, None if dry_run else progress)
    per_class = sorted({int(n) for n in _counts(found.labels)})
    if len(per_class) > 1:
        _say(f"classes have {per_class[0]} to {per_class[-1]} images; the set counts as IPC {found.ipc}")
    _execute(spec, plan, [setting], [], dry_run=dry_run)


@app.command("list")
def list_(
    kind: Annotated[
        Literal["methods", "datasets", "protocols", "networks", "priors", "studies", "engines"],
        typer.Argument(help="What to list."),
    ],
    name: Annotated[str | None, typer.Argument(help="One of them, in full: its parameters, defaults, classes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    plugin: Plugins = None,
) -> None:
    """What there is to run, run on, and be judged by."""
    from ddbench.benchmark.commands import listing
    from ddbench.benchmark.core.registry import load_plugin

    for file in plugin or []:
        load_plugin(file)
    if name is None:
        listing.show(kind, out_console, as_json=as_json)
    else:
        listing.show_one(kind, name, out_console, as_json=as_json)


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> None:
    """What results from this machine will say of it: versions, hardware, source revision."""
    import torch  # noqa: F401 - the determinism flags are torch's

    from ddbench.benchmark.commands import listing
    from ddbench.benchmark.core import environment

    captured = environment.capture()
    if as_json:
        print(json.dumps(captured, indent=1))
    else:
        listing.show_mapping(captured, out_console)


@app.command("train-prior")
def train_prior(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Dataset whose training images it learns.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the prior; must not exist.")],
    seed: Annotated[int, typer.Option("--seed", help="Of weights, batches and noise.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Training steps.", show_default="the recipe's")] = None,
    data: Data = None,
) -> None:
    """Train a small pixel-space prior on a dataset's training images, by the recipe of the bundled one."""
    from ddbench.benchmark.commands.train_prior import train

    train(dataset, out, seed=seed, steps=steps, data=data, console=out_console)


def _given(options: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The options that the user gave, under the names of `RunSpec`."""
    from ddbench.benchmark.planning.run_spec import assignments

    names = {"method": "methods", "dataset": "datasets", "plugin": "plugins", "set_values": "set"}
    given = {names.get(key, key): value for key, value in options.items() if key not in (*without, "dry_run")}
    given = {key: value for key, value in given.items() if value is not None and value is not False}
    if "set" in given:
        given["set"] = assignments(given["set"])
    return given


def _run(given: dict[str, Any], *, dry_run: bool, students: bool) -> None:
    from ddbench.benchmark.core.registry import load_plugin
    from ddbench.benchmark.planning.plan import Plan
    from ddbench.benchmark.planning.planner import plan_run
    from ddbench.benchmark.planning.study import find_study, read_study, run_specs
    from ddbench.datasets.validation import is_tuning

    config, name = given.pop("config", None), given.pop("study", None)
    if config is not None and name is not None:
        raise UsageError("--config and --study: one of them, please")
    study = read_study(config) if config is not None else find_study(name) if name is not None else None
    specs = run_specs(study, given)
    for file in specs[0].plugins:
        load_plugin(file)
    tuning = [name for spec in specs for name in spec.datasets if is_tuning(name)]
    if tuning:
        raise UsageError(f"{tuning[0]} is for choosing parameters, by `bench tune`; no leaderboard takes its results")
    unavailable: dict[str, list[str]] | None = {} if study is not None and study.bundled else None
    planned = [plan_run(spec, students=students, unavailable=unavailable, typed=given) for spec in specs]
    notes = list(dict.fromkeys(note for _, _, of_run in planned for note in of_run))
    for reason, what in (unavailable or {}).items():
        notes.append(f"unavailable: {', '.join(dict.fromkeys(what))}\n  " + reason.replace("\n", "\n  "))
    if study is not None and study.title:
        _say(f"{study.name}: {study.title}" + (f" ({study.source})" if study.source else ""))
    settings = [setting for _, of_run, _ in planned for setting in of_run]
    datasets = list(dict.fromkeys(setting.spec.name for setting in settings))
    _execute(
        specs[0].model_copy(update={"datasets": datasets}),
        Plan.joined([plan for plan, _, _ in planned]),
        settings,
        notes,
        dry_run=dry_run,
    )


def _execute(
    spec: Any,
    plan: Any,
    settings: list[Any],
    notes: list[str],
    *,
    dry_run: bool,
    show: Callable[[Any], None] | None = None,
) -> None:
    """Run a plan and show what came of it: by `show`, else as leaderboards."""
    from ddbench.benchmark.core.registry import ENGINES
    from ddbench.benchmark.core.store import Store
    from ddbench.benchmark.running import live
    from ddbench.benchmark.running.prepare import before_run, check_room, present_contents
    from ddbench.benchmark.running.runner import Fate, Runner

    engine = ENGINES.load(spec.engine)()
    for setting in settings:
        _say(live.describe_setting(setting, students=any(planned.students for planned in plan.sets)))
    for note in notes:
        _say(note)
    store = Store(spec.out)
    store.require_schema()
    runner = Runner(
        store,
        plan,
        engine,
        reuse=spec.reuse,
        retry_failed=spec.retry_failed,
        timeout_seconds=spec.timeout,
    )
    # `only-cache` asks what is there, not what is there of the images that the dataset has now.
    seen = {item.spec.dataset for item in runner.items if spec.reuse != "only-cache" and item.cell.content_hash()}
    begun = [setting for setting in settings if setting.spec in seen]
    if dry_run:
        runner.contents = present_contents(begun, spec.data)
        runner.settle()
        if runner.items:
            out_console.print(live.dry_run_table(runner.items))
            _say(live.summary(runner.items))
            _foretell(spec, runner.items, store)
        return
    if not plan.sets:
        raise RunError("nothing to run: everything that was asked for is unavailable here, for the reasons above")
    store.create()
    with store.run_lock():
        before_run(begun, spec.data, out_console)
        runner.contents = present_contents(begun, spec.data)
        if any(stale := runner.put_aside_stale()):
            _say(
                f"the images of a dataset have changed: {stale[0]} cells that were run on others are put aside in "
                f"{store.superseded}, and {stale[1]} of its present images are back"
            )
        runner.settle()
        waiting = any(item.fate is Fate.WAITING for item in runner.items)
        if waiting:
            before_run([setting for setting in settings if setting not in begun], spec.data, out_console)
            check_room(store, runner.items, settings, spec.data)
            _foretell(spec, runner.items, store)
        slots = engine.open(jobs=spec.jobs, device=plan.sets[0].launch.device) if waiting else []
        for note in engine.notes:
            _say(note)
        plan.save(store)
        if waiting:
            try:
                with live.view(out_console, runner.items) as view:
                    runner.run(slots, view)
            finally:
                engine.close()
    _say(live.summary(runner.items))
    for item in runner.items:
        if item.fate in (Fate.FAILED, Fate.BLOCKED) and item.reason:
            line = f"[red]{item.fate}[/red] {escape(item.title)} ({item.cell.id}): {escape(item.reason)}"
            err_console.print(line, highlight=False, soft_wrap=True)
    if any(planned.students for planned in plan.sets):
        (show or _show_leaderboard)(spec)
    if runner.interrupted:
        err_console.print("Interrupted. The same command goes on where this run stopped.")
        raise typer.Exit(130)
    if any(item.fate in (Fate.FAILED, Fate.BLOCKED, Fate.INTERRUPTED) for item in runner.items):
        raise typer.Exit(1)


def _foretell(spec: Any, items: list[Any], store: Any) -> None:
    """Say how long it will take, as far as anything measured tells."""
    from ddbench.benchmark.running.estimate import estimate

    expected = estimate(items, store, probe=True)
    for line in expected.lines(spec.jobs):
        _say(line)
    if warning := expected.warning(spec.jobs):
        err_console.print(f"[bold yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)


def _show_leaderboard(spec: Any) -> None:
    """By the command that reports registered: the engine itself knows no table."""
    from ddbench.benchmark.core.registry import COMMANDS

    command = typer.main.get_command(COMMANDS.load("leaderboard"))
    for name in spec.datasets:
        command(["--out", str(spec.out), "--dataset", name], standalone_mode=False)


def _say(text: str) -> None:
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)


def _counts(labels: Any) -> list[int]:
    import numpy as np

    return np.bincount(labels).tolist()


def main() -> None:
    """Entry point of `bench`: problems become one message and an exit code, 2 for usage, 1 for failure."""
    from ddbench.benchmark.core.store import OUTSIDE_CAUSES

    try:
        app()
    except UsageError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        # The reader of our output went away (`bench list methods | head`); that is no failure of ours.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in OUTSIDE_CAUSES:
            raise
        _fail(f"{error.strerror}: {error.filename or 'standard output, or a file that the system does not name'}", 1)


def _fail(message: str, code: int) -> None:
    lines = message.splitlines() or ["failed without a message"]
    err_console.print(f"[bold red]error:[/] {escape(lines[0])}", highlight=False, soft_wrap=True)
    for line in lines[1:]:
        err_console.print(f"       {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(code)

"""`bench tune`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddbench.benchmark.commands.execute import execute, reporter
from ddbench.benchmark.commands.options import AsJson, DryRun, run_options
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.spec import brackets
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import MOST_NUMBERS, run_spec
from ddbench.benchmark.running import tune as tuning
from ddbench.benchmark.running.tune import Trial, Tuned
from ddbench.datasets.validation import SUFFIX

tune_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@tune_app.command()
@run_options(
    without=(
        "methods",
        "datasets",
        "engine",
        "address",
        "test_on",
        "test_data",
        "shards",
        "batch_size",
        "timeout",
        "reuse",
        "retry_failed",
        "track",
    )
)
def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method; see `bench list methods`.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset whose validation part is tuned on.")],
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            min=2,
            max=MOST_NUMBERS,
            help="The budget: settings to be tried at most, the defaults among them.",
        ),
    ],
    param: Annotated[
        list[str],
        typer.Option("--param", help="name=value,value,… or name=low..high or name=low..high:log; may be given again."),
    ],
    given: dict[str, Any],
    trial_seed: Annotated[int, typer.Option("--trial-seed", min=0, help="Seed of the values drawn from ranges.")] = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Try parameters on the validation part of the training images, which the method then does not see.

    No test image can be reached from it, and its results never enter a leaderboard. It goes on where it was stopped.
    """
    for file in given.get("plugins", []):
        load_plugin(file)
    if "[" in method:
        raise UsageError(f"{method}: name the method alone; what is to be tried is given with --param")
    choices = [tuning.Choice.parse(text) for text in param]
    name = DATASETS.canonical(dataset).removesuffix(SUFFIX) + SUFFIX
    usual, fractions = tuning.usual_values(method, name), tuning.fractions(method)
    tried = tuning.settings(choices, trials, trial_seed, usual, fractions)
    spec = run_spec({}, {**given, "methods": tuning.selectors(method, name, tried), "datasets": [name]})
    planned = plan_run(spec)

    def show() -> None:
        found = tuning.report(Store(spec.out), planned.plan, method, name, tried, trials)
        if as_json:
            print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        else:
            _show(found, Console(emoji=False))

    # With --json, standard output is for the answer alone.
    execute(spec, planned, reporter(errors_only=as_json), dry_run=dry_run, show=show)


def _show(tuned: Tuned, console: Console) -> None:
    whole = tuned.dataset.removesuffix(SUFFIX)
    console.print(
        f"{tuned.method} tuned on the validation part of {whole}: {len(tuned.trials)} of {tuned.budget} trials; "
        f"{tuned.settings_ever_tried} settings of it have been tried there in this results folder",
        highlight=False,
        soft_wrap=True,
    )
    ipcs = sorted({ipc for trial in tuned.trials for ipc in trial.by_ipc})
    columns = ["trial", *(f"IPC {ipc}" for ipc in ipcs), "sets", "score", "from the defaults"]
    table = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for trial in tuned.trials:
        cells = [_spread(trial.by_ipc.get(ipc)) for ipc in ipcs]
        sets = "+".join(str(trial.by_ipc[ipc]["n"]) for ipc in ipcs if ipc in trial.by_ipc) or "0"
        score = "–" if trial.score is None else f"{trial.score:.2f}"
        table.add_row(escape(trial.label), *cells, sets, score, _difference(trial))
    console.print(table)
    console.print(
        "Accuracy % on the validation part ± standard deviation over sets; differences are over the same seeds ± "
        "standard error. A prior that was trained on the validation images flatters them.",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
    console.print(escape(tuned.reason), highlight=False, soft_wrap=True)
    if tuned.chosen:
        flags = " ".join(
            f"--set {name}={brackets({name: value})[len(name) + 2 : -1]}" for name, value in tuned.chosen.items()
        )
        console.print(f"For a run:      {escape(flags)}", highlight=False, soft_wrap=True)
        defaults = ", ".join(f'"{k}": Default({v!r}, "{tuned.reason}")' for k, v in tuned.chosen.items())
        console.print(f"For a dataset:  {escape(defaults)}", highlight=False, soft_wrap=True)


def _spread(found: Mapping[str, float | int | None] | None) -> str:
    if found is None:
        return "–"
    return f"{found['mean']:.2f}" + ("" if found["std"] is None else f" ± {found['std']:.2f}")


def _difference(trial: Trial) -> str:
    if trial.difference is None:
        return "(the defaults)" if trial.default else "–"
    return f"{trial.difference:+.2f}" + ("" if trial.standard_error is None else f" ± {trial.standard_error:.2f}")

"""`bench tune`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from ddbench.benchmark.commands.execute import execute, reporter
from ddbench.benchmark.commands.options import DryRun, run_options
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import load_plugin
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import tune as tuning
from ddbench.datasets.validation import SUFFIX

tune_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@tune_app.command()
@run_options(without=("methods", "datasets", "engine", "shards", "batch_size", "timeout", "reuse", "retry_failed"))
def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method; see `bench list methods`.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset whose validation part is tuned on.")],
    trials: Annotated[
        int, typer.Option("--trials", min=2, help="The budget: settings to be tried at most, the defaults among them.")
    ],
    param: Annotated[
        list[str],
        typer.Option("--param", help="name=value,value,… or name=low..high or name=low..high:log; may be given again."),
    ],
    given: dict[str, Any],
    trial_seed: Annotated[int, typer.Option("--trial-seed", min=0, help="Seed of the values drawn from ranges.")] = 0,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Try parameters on the validation part of the training images, which the method then does not see.

    No test image can be reached from it, and its results never enter a leaderboard. It goes on where it was stopped.
    """
    for file in given.get("plugins", []):
        load_plugin(file)
    if "[" in method:
        raise UsageError(f"{method}: name the method alone; what is to be tried is given with --param")
    choices = [tuning.Choice.parse(text) for text in param]
    name = dataset.removesuffix(SUFFIX) + SUFFIX
    tried = tuning.settings(choices, trials, trial_seed, tuning.usual_values(method, name))
    spec = run_spec({}, {**given, "methods": tuning.selectors(method, name, tried), "datasets": [name]})
    planned = plan_run(spec)

    def show() -> None:
        found = tuning.report(Store(spec.out), planned.plan, method, name, tried, trials)
        if as_json:
            print(tuning.as_json(found))
        else:
            tuning.show(found, Console())

    # With --json, standard output is for the answer alone.
    execute(spec, planned, reporter(errors_only=as_json), dry_run=dry_run, show=show)

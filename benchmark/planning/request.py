"""A whole request: options and perhaps a study of several runs, to one plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import load_plugin
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.study import find_study, read_study, run_specs
from ddbench.datasets.validation import is_tuning


def plan_request(
    given: Mapping[str, Any], *, study: str | None = None, config: Path | None = None, students: bool = True
) -> tuple[RunSpec, Planned]:
    """Load the plugins that are named, and plan.

    Args:
        given: options that the user gave, under the names of `RunSpec`; they win over a study's.
        study: name of a study that comes with the benchmark; what cannot run here is left out of it, with a note.
        config: a study file of the user's own.
        students: False for the first stage alone.

    Returns:
        what says where and how the cells run, with the datasets that have a part in the plan; the plan.

    Raises:
        Problems: everything that is wrong with the request.
    """
    if config is not None and study is not None:
        raise UsageError("--config and --study: one of them, please")
    asked = read_study(config) if config is not None else find_study(study) if study is not None else None
    specs = run_specs(asked, given)
    for file in specs[0].plugins:
        load_plugin(file)
    tuning = [name for spec in specs for name in spec.datasets if is_tuning(name)]
    if tuning:
        raise UsageError(f"{tuning[0]} is for choosing parameters, by `bench tune`; no leaderboard takes its results")
    unavailable: dict[str, list[str]] | None = {} if asked is not None and asked.bundled else None
    planned = [plan_run(spec, students=students, unavailable=unavailable, typed=given) for spec in specs]
    settings = [setting for one in planned for setting in one.settings]
    notes = [note for one in planned for note in one.notes]
    for reason, what in (unavailable or {}).items():
        notes.append(f"unavailable: {', '.join(dict.fromkeys(what))}\n  " + reason.replace("\n", "\n  "))
    if asked is not None and asked.title:
        notes.insert(0, f"{asked.name}: {asked.title}" + (f" ({asked.source})" if asked.source else ""))
    datasets = list(dict.fromkeys(setting.spec.name for setting in settings))
    return (
        specs[0].model_copy(update={"datasets": datasets}),
        Planned(Plan.joined([one.plan for one in planned]), settings, list(dict.fromkeys(notes))),
    )

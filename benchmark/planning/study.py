"""Studies: a paper's table as one command. A YAML file with one run, or several that share options.

    title: what it answers                 source: where its question comes from
    methods: [dmgd, dit]                   options of every run, as on the command line
    runs:                                  each adds to them, or replaces
      - {datasets: [woof], protocol: hard-minimax-sgd}
      - {datasets: [nette], protocol: hard-dmgd-adamw}

Without `runs` the file itself is the one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.benchmark.core.yaml_text import load_yaml
from ddbench.benchmark.planning.run_spec import RunSpec, describe, shortened

BUNDLED = Path(__file__).parents[1] / "studies"
ONE_PLACE = (
    "out", "engine", "address", "jobs", "per_gpu", "device", "compile", "reuse", "retry_failed", "timeout", "track",
    "plugins", "data", "test_data",
)  # fmt: skip
"""Options that say where and how cells run; runs of one study cannot differ in them."""


@dataclass(frozen=True)
class Study:
    """A study as it is written, before any flag."""

    name: str
    title: str
    source: str
    runs: tuple[Mapping[str, Any], ...]
    bundled: bool


def study_names() -> list[str]:
    """Names of the studies that come with the benchmark."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def find_study(name: str) -> Study:
    """A study that comes with the benchmark.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in study_names():
        hint = did_you_mean(name, study_names(), f"there are: {', '.join(study_names())}.")
        raise UsageError(f"--study {name}: no study has this name; {hint} A file of your own goes with --config FILE.")
    return read_study(BUNDLED / f"{name}.yaml", bundled=True)


def read_study(path: Path, *, bundled: bool = False) -> Study:
    """Read a study file.

    Raises:
        UsageError: no such file, no YAML, or not of the form above.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError("no regular file")
        content = load_yaml(read_regular(path).decode())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (UsageError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected a mapping of run options, got {type(content).__name__}")
    title, source = (str(content.pop(key, "")) for key in ("title", "source"))
    runs = content.pop("runs", [{}])
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise UsageError(
            f"--config {path}: expected under runs a list of mappings of run options, got {shortened(runs)}"
        )
    return Study(path.stem, title, source, tuple({**content, **run} for run in runs), bundled)


def run_specs(study: Study | None, flags: Mapping[str, Any]) -> list[RunSpec]:
    """The runs of a study with the flags that were given, which win in every run; without a study, the flags' one run.

    Raises:
        Problems: every unknown key and wrong value of every run, and options of place that differ between runs.
    """
    written = ({},) if study is None else study.runs
    specs, problems = [], []
    for number, run in enumerate(written, start=1):
        try:
            specs.append(RunSpec.model_validate({**run, **flags}))
        except ValidationError as error:
            problems += describe(error, of_study=f"run {number}: " if len(written) > 1 else "")
    for key in ONE_PLACE:
        values = [getattr(spec, key) for spec in specs]
        if any(value != values[0] for value in values):
            problems.append(f"{key}: the runs of one study cannot differ in it; give it once, or --{key}")
    if problems:
        raise Problems(list(dict.fromkeys(problems)))
    return specs

"""What a cluster is like for `bench submit`: a YAML file, as strict as a study."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.spec import NoTruthValues
from ddbench.benchmark.core.yaml_text import load_yaml
from ddbench.benchmark.planning.run_spec import describe

Stage = Literal["distill", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
EXAMPLE = Path(__file__).with_name("site.yaml")
VARIABLE = "DDBENCH_SITE"
OURS = (
    "array", "begin", "chdir", "dependency", "error", "export", "hold", "job-name", "no-requeue", "ntasks", "open-mode",
    "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that `bench submit` gives itself."""
IN_STAGES = {"time": "time", "mem": "memory", "cpus-per-task": "cpus", "gres": "gpus", "gpus": "gpus"}
"""Options of sbatch -> the setting of a stage that stands for them."""
SHORT = {
    "a": "array", "b": "begin", "D": "chdir", "d": "dependency", "e": "error", "H": "hold", "J": "job-name",
    "n": "ntasks", "o": "output", "W": "wait", "t": "time", "c": "cpus-per-task", "G": "gpus",
}  # fmt: skip
TIME = re.compile(r"(?:(?P<days>\d+)-(?P<of_days>\d+(?::\d\d){0,2}))|(?P<minutes>\d+(?::\d\d){0,2})")


def seconds_of(time: str) -> int:
    """Seconds of a time as sbatch takes it; 0 if it is none."""
    matched = TIME.fullmatch(time)
    if matched is None:
        return 0
    if matched["days"] is not None:
        parts = [int(part) for part in (matched["days"], *matched["of_days"].split(":"))]
        scale: tuple[int, ...] = (86400, 3600, 60, 1)
    else:
        parts = [int(part) for part in matched["minutes"].split(":")]
        scale = (3600, 60, 1) if len(parts) == 3 else (60, 1)
    return sum(part * unit for part, unit in zip(parts, scale, strict=False))


class _Strict(NoTruthValues):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Strict):
    """What the pilots of one stage get."""

    pilots: int = Field(default=4, ge=1, le=100_000)
    gpus: int = Field(default=1, ge=0, le=64)
    cpus: int = Field(default=4, ge=1, le=4096)
    memory: str = Field(default="32G", pattern=r"^\d+[KMGT]?$")
    """As sbatch's `--mem` takes it."""
    time: str = "8:00:00"
    """As sbatch's `--time` takes it: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""

    @field_validator("memory", mode="before")
    @classmethod
    def _of_number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("time")
    @classmethod
    def _is_time(cls, value: str) -> str:
        if not seconds_of(value):
            raise ValueError(f'expected a time as sbatch takes it, such as "8:00:00" or "1-12:00:00", got {value!r}')
        return value

    @property
    def seconds(self) -> int:
        """Of its time."""
        return seconds_of(self.time)


class Stages(_Strict):
    distill: Resources = Resources()
    evaluate: Resources = Resources()


class Site(_Strict):
    """A cluster, as its user describes it."""

    options: list[str] = Field(default=[])
    """Of sbatch, for every pilot, as they are."""
    setup: list[str] = Field(default=[])
    """Shell lines before the pilot."""
    command: str | None = None
    """Shell words that stand for `bench`; None: this interpreter's."""
    environment: dict[str, str] = Field(default={})
    stages: Stages = Stages()
    warning_seconds: int = Field(default=180, ge=1, le=24 * 3600)
    idle_minutes: float = Field(default=5, gt=0, le=24 * 60)

    @field_validator("options", "setup", "environment", "stages", mode="before")
    @classmethod
    def _left_empty(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].get_default() if value is None else value

    @field_validator("setup")
    @classmethod
    def _one_line_each(cls, value: list[str]) -> list[str]:
        return [line for text in value for line in text.splitlines()]

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        wrong = [name for name in value if not re.fullmatch(r"[A-Za-z_]\w*", str(name))]
        if wrong:
            raise ValueError(f"expected names of variables, got {', '.join(map(repr, wrong))}")
        plain = {name: text for name, text in value.items() if not isinstance(text, bool)}
        return {**value, **{name: str(text) for name, text in plain.items() if isinstance(text, int | float)}}

    @field_validator("options")
    @classmethod
    def _theirs(cls, value: list[str]) -> list[str]:
        for option in value:
            matched = re.fullmatch(r"--([a-z][a-z0-9-]*)(=.*)?|-([A-Za-z])(.*)", option)
            if matched is None or "\n" in option:
                raise ValueError(f"expected options of sbatch, such as --partition=gpu, got {option!r}")
            name = matched[1] or SHORT.get(matched[3], matched[3])
            if name in OURS:
                raise ValueError(f"{option}: bench submit sets --{name} itself; leave it out")
            if name in IN_STAGES:
                raise ValueError(f"{option}: say it under stages, as {IN_STAGES[name]}")
        return value

    @model_validator(mode="after")
    def _warned_in_time(self) -> Site:
        for stage in STAGES:
            if (seconds := self.of(stage).seconds) < 2 * self.warning_seconds:
                raise ValueError(
                    f"stages.{stage}.time is {seconds} s, and pilots stop {self.warning_seconds} s before its end "
                    "(warning_seconds); expected at least twice as long"
                )
        return self

    def of(self, stage: Stage) -> Resources:
        return self.stages.distill if stage == "distill" else self.stages.evaluate


def find_site(given: Path | None, out: Path) -> Path:
    """The settings file that counts.

    Raises:
        UsageError: there is none.
    """
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ddbench" / EXAMPLE.name
    for place in (out / EXAMPLE.name, config):
        if place.exists():
            return place
    raise UsageError(
        f"no settings of this cluster: neither --site FILE nor ${VARIABLE}, nor {out / EXAMPLE.name}, nor {config}. "
        "`bench submit --init` writes a file with every setting explained."
    )


def read_site(path: Path) -> Site:
    """Read a settings file.

    Raises:
        UsageError: no such file, or no YAML.
        Problems: every unknown key and wrong value.
    """
    try:
        content = load_yaml(read_regular(path).decode())
    except OSError as error:
        raise UsageError(f"--site {path}: {error.strerror}") from error
    except (UsageError, UnicodeDecodeError) as error:
        raise UsageError(f"--site {path}: not YAML: {error}") from None
    if content is not None and not isinstance(content, dict):
        raise UsageError(f"--site {path}: expected a mapping of settings, got {type(content).__name__}")
    try:
        return Site.model_validate(content or {})
    except ValidationError as error:
        lines = describe(error, of_study=f"{path}: ")
        raise Problems([line.replace(f"{path}: : ", f"{path}: ") for line in lines]) from None

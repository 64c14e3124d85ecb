"""What a user asks for: one model for command-line flags and YAML studies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.benchmark.core.spec import Compile, NoTruthValues, Precision, Scalar
from ddbench.benchmark.core.yaml_text import load_yaml

Reuse = Literal["missing", "never", "only-cache"]
Track = Literal["tensorboard", "wandb", "mlflow"]
"""Programs that follow a run (running/tracking.py)."""
MOST_NUMBERS = 100_000
"""Most numbers of one range; a longer one is a slip of the keyboard, and would fill the memory."""
MOST = 2**63 - 1
"""What a whole number may be: what tables' files and other programs hold."""
MOST_SEED = MOST // STUDENTS_PER_SET - 1
"""That of a set, whose students' seeds are so many times as large."""


class RunSpec(NoTruthValues):
    """A run: which methods on which datasets, how often, and how. None means: the dataset's declared headline.

    The one declaration of these options: for the command line (commands/options.py), studies and Python.
    """

    model_config = ConfigDict(extra="forbid")

    methods: list[str] = Field(
        min_length=1,
        description="Methods separated by commas; [key=value,other value] changes or sweeps a parameter: "
        "'dmgd[ot_scale=0.05,0.5]'. 'all': the main contestants; 'all+ablations': the rest too.",
    )
    datasets: list[str] = Field(min_length=1, description="Dataset, or several separated by commas.")
    ipc: list[int] | None = Field(default=None, min_length=1, description="Images per class: 1,10 or 1-3.")
    seeds: list[int] | None = Field(default=None, min_length=1, description="One distilled set per seed: 0-2 or 0,5.")
    repeats: int | None = Field(default=None, ge=1, le=MOST, description="Students per distilled set.")
    protocol: str | None = Field(default=None, description="Evaluation protocol, e.g. quick or name[epochs=60].")
    student: str | None = Field(default=None, description="Student network; see `bench list networks`.")
    teacher: str | None = Field(
        default=None,
        description="Network of the teacher in place of the protocol's own, as name[teacher=…] of --protocol: "
        "efficientnet_lite0 comes trained, others are `bench train-teacher`'s.",
    )
    split: str | None = Field(default=None, description="Split of the dataset.")
    resolution: int | None = Field(default=None, ge=1, le=MOST, description="Side of the images in pixels.")
    prior: str | None = Field(
        default=None,
        description="Diffusion prior: a name (`bench list priors`), a folder, or one of these tuned first: "
        "'minimax(digits)'.",
    )
    precision: Precision = Field(default="fp32", description="Precision of the sampler: fp32 or bf16.")
    set: dict[str, Scalar] = Field(
        default={}, description="key=value: a parameter of every chosen method that has it; may be given again."
    )
    test_on: list[str] = Field(
        default=[],
        description="Shifted test sets that students are looked at on as well, separated by commas: imagenet-c, "
        "imagenet-c-made, imagenet-v2, imagenet-sketch, imagenet-a, imagenet-r; [corruption=fog,severity=1,3] takes a "
        "part of a corrupted one.",
    )
    test_data: list[Path] = Field(
        default=[],
        description="Folder of a shifted test set's files, or folder of such folders; may be given again. Default: "
        "$DDBENCH_DATA.",
    )
    data: Path | None = Field(default=None, description="Folder or archive with the dataset's files, if it needs any.")
    out: Path = Field(default=Path("runs"), description="Results folder.")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:0.")
    engine: str = Field(default="local", description="Where cells run; see `bench list engines`.")
    address: str | None = Field(
        default=None, description="Of the Ray cluster, for --engine ray: HOST:PORT; else $RAY_ADDRESS, or the one here."
    )
    jobs: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="Cells at once; on GPUs, one GPU each. Default: as many as a CPU's cores hold; one GPU; on Ray, as "
        "many as its nodes hold.",
    )
    per_gpu: int = Field(
        default=1,
        ge=1,
        le=MOST,
        description="Students at once on each GPU, where its memory allows; a distill cell has it to itself.",
    )
    shards: int = Field(
        default=1,
        ge=1,
        le=MOST,
        description="Distill each set in so many parts of its classes, which --jobs run side by side.",
    )
    batch_size: int | None = Field(default=None, ge=1, le=MOST, description="Images in flight while sampling.")
    compile: Compile = Field(
        default="auto",
        description="Whether networks of students and priors go through torch.compile: always, never, or auto: on a "
        "CPU, where that saves time.",
    )
    timeout: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Seconds that one cell may take."
    )
    reuse: Reuse = Field(
        default="missing",
        description="missing: run what is absent, killed, out of memory or timed out; never: run all again; "
        "only-cache: run nothing.",
    )
    track: Track | None = Field(
        default=None,
        description="tensorboard, wandb or mlflow: students' curves as they come, and the board, in OUT/tracking.",
    )
    retry_failed: bool = Field(default=False, description="Run cells again that failed.")
    plugins: list[Path] = Field(
        default=[], description="Python file with methods, datasets or protocols of your own; may be given again."
    )

    @field_validator("methods", "datasets", "test_on", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return split_outside_brackets(value)
        if not isinstance(value, list | tuple):
            return value
        return [part for item in value for part in (split_outside_brackets(item) if isinstance(item, str) else [item])]

    @field_validator("plugins", "test_data", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @field_validator("data", "out", mode="after")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        # Shells leave `--out=~/runs` as it is, and Python and YAML know no shell: a folder called ~ would be made.
        return None if value is None else value.expanduser()

    @field_validator("plugins", "test_data", mode="after")
    @classmethod
    def _all_at_home(cls, value: list[Path]) -> list[Path]:
        return [path.expanduser() for path in value]

    @field_validator("set", mode="before")
    @classmethod
    def _one_value(cls, value: Any) -> Any:
        several = [key for key, one in value.items() if isinstance(one, list | dict)] if isinstance(value, dict) else []
        if several:
            raise ValueError(f"expected one value for {', '.join(map(str, several))}; a selector sweeps: name[key=1,2]")
        return value

    @field_validator("ipc", "seeds", mode="before")
    @classmethod
    def _ranges(cls, value: Any) -> Any:
        value = value.tolist() if hasattr(value, "tolist") else value  # of numpy and pandas, one number or several
        if isinstance(value, str | int):
            return integers(value)
        if not isinstance(value, list | tuple | range | set | frozenset):
            return value
        # Each part as it would be alone: pydantic reads "0-2" as -2, and true as 1. Of words it says which they are.
        return [n for part in value for n in (integers(part) if _says_numbers(part) else [part])]

    @field_validator("ipc")
    @classmethod
    def _positive(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and min(value) < 1:
            raise ValueError(f"IPC counts images per class and starts at 1, got {min(value)}")
        return _at_most(value)

    @field_validator("seeds")
    @classmethod
    def _natural(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and min(value) < 0:
            raise ValueError(f"seeds start at 0, got {min(value)}")
        return _at_most(value, MOST_SEED)

    @field_validator("datasets")
    @classmethod
    def _canonical(cls, value: list[str]) -> list[str]:
        try:
            return [DATASETS.canonical(name) for name in value]
        except UsageError as error:
            raise ValueError(str(error)) from None

    @field_validator("ipc", "seeds", "methods", "datasets")
    @classmethod
    def _once(cls, value: list[Any] | None) -> list[Any] | None:
        return None if value is None else list(dict.fromkeys(value))


def _says_numbers(part: Any) -> bool:
    return isinstance(part, bool) or (isinstance(part, str) and re.search(r"\d", part) is not None)


def _at_most(numbers: list[int] | None, most: int = MOST) -> list[int] | None:
    if numbers is not None and max(numbers) > most:
        raise ValueError(f"expected numbers up to {most:,}, got {shortened(max(numbers))}")
    return numbers


def integers(text: str | int) -> list[int]:
    """`"1,10"` → [1, 10]; `"0-2"` → [0, 1, 2]; both may be mixed."""
    numbers: list[int] = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ValueError(f"expected whole numbers like 1,10 or a range like 0-2, got {shortened(part)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {shortened(part)} ends before it begins")
        if last - first >= MOST_NUMBERS:
            raise ValueError(f"the range {shortened(part)} has more than {MOST_NUMBERS:,} numbers")
        if last > MOST:
            raise ValueError(f"expected numbers up to {MOST:,}, got {shortened(part)}")
        numbers += range(first, last + 1)
    return numbers


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas, but not at those inside `[…]`."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def parse_selector(selector: str) -> tuple[str, dict[str, list[Scalar]]]:
    """`dmgd[ot_scale=0.05,0.5,greedy=true]` → ("dmgd", {"ot_scale": [0.05, 0.5], "greedy": [True]}).

    Raises:
        UsageError: not of the form `name` or `name[key=value,…]`.
    """
    match = re.fullmatch(r"([^\[\]=,\s]+)(?:\[([^\[\]]+)\])?", selector)
    if match is None:
        raise UsageError(f"{shortened(selector)}: expected a name or name[key=value,other value,key=value]")
    values: dict[str, list[Scalar]] = {}
    key = None
    for part in (match[2] or "").split(",") if match[2] else []:
        name, equals, value = part.partition("=")
        if equals:
            key = name.strip()
        if not key:
            raise UsageError(f"{shortened(selector)}: {shortened(part)} has no key; expected key=value")
        values.setdefault(key, []).append(scalar(value if equals else part))
    return match[1], values


def scalar(text: str) -> Scalar:
    """A YAML scalar: numbers, true/false, null, else text.

    Raises:
        UsageError: a list, a mapping or no YAML at all.
    """
    try:
        value = load_yaml(text)
    except UsageError as error:
        raise UsageError(f"{shortened(text)} is not a value: {error}") from None
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text.
        try:
            return float(value)
        except ValueError:
            return value
    if value is None or isinstance(value, bool | int | float):
        return value
    raise UsageError(f"{shortened(text)}: expected a number, true, false, null or a word, got a {type(value).__name__}")


def assignments(texts: list[str]) -> dict[str, Scalar]:
    """`["ot_scale=0.05", …]` → {"ot_scale": 0.05, …}.

    Raises:
        UsageError: a text without `=`.
    """
    values: dict[str, Scalar] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text[:120]}: expected key=value")
        values[key.strip()] = scalar(value)
    return values


def run_spec(study: dict[str, Any], flags: dict[str, Any]) -> RunSpec:
    """Merge a study with the flags that were given (flags win) and validate both in one pass.

    Raises:
        Problems: every unknown key and wrong value at once.
    """
    try:
        return RunSpec.model_validate({**study, **flags})
    except ValidationError as error:
        raise Problems(describe(error)) from error


def shortened(value: object, most: int = 120) -> str:
    """A value as messages show it: its beginning, where it is long."""
    said = repr(value)
    return said if len(said) <= most else f"{said[: most - 1]}…"


def describe(error: ValidationError, prefix: str = "", *, of_study: str = "") -> list[str]:
    """Each of pydantic's findings as one line: where, what was expected, what came. What a validator of a whole model
    finds names its fields itself, and stands behind the prefix's outermost name alone."""
    lines = []
    for found in error.errors():
        if not found["loc"] and found["type"] == "value_error":
            outer = prefix.partition(": ")[0]
            lines.append(f"{of_study}{outer}{': ' * bool(outer)}{found['msg'].removeprefix('Value error, ')}")
            continue
        where = ".".join(str(part) for part in found["loc"])
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            message = "unknown"
        elif found["type"] == "missing":
            message = "missing" if prefix else f"missing; give --{where.removesuffix('s')}, or {where} in a study"
        came = (
            ""
            if found["type"] in ("missing", "value_error", "extra_forbidden")
            else f", got {shortened(found['input'])}"
        )
        lines.append(f"{of_study}{prefix}{where}: {message}{came}")
    return lines


def available_cores() -> int:
    """Cores that this process may use: those of its affinity, and no more than its container's share of time."""
    import joblib

    return int(joblib.cpu_count())


def exported_threads() -> int | None:
    """The most threads that the user's environment allows a process (`OMP_NUM_THREADS`); None where it says nothing."""
    outermost = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(outermost) if outermost.isdecimal() and int(outermost) else None

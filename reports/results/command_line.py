"""The command that runs a cell again, from its specification and result."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.datasets.foreign.hub import pinned
from ddbench.reports.results.rows import DistillCell, EvaluateCell, printable


def command(distill: DistillCell | None, students: Sequence[EvaluateCell], test_on: Sequence[str] = ()) -> str:
    """`bench run …` for a distilled set and those of its students that share protocol and network (maybe none), looked
    at on these shifted test sets.

    What is not in a cell's specification, such as the folder of the data, is left to the reader.
    """
    student = students[0].spec if students else None
    if distill is None:
        if student is None:
            raise ValueError("expected a distilled set or a student")
        words = ["bench", "eval", *_images(students[0].result), "--name", students[0].label]
        words += ["--allow-test-images"] if students[0].with_test_images else []
        words += ["--dataset", student.dataset.name]
        return shlex.join([*words, *_evaluation(students, test_on), *_setting(student)])
    spec = distill.spec
    words = ["bench", "run" if students else "distill", "--method", distill.label, "--dataset", spec.dataset.name]
    words += [] if spec.ipc is None else ["--ipc", str(spec.ipc)]
    words += ["--seeds", str(spec.seed)]
    words += _evaluation(students, test_on)
    words += _prior(distill)
    words += [] if spec.precision == "fp32" else ["--precision", spec.precision]
    return shlex.join([*words, *_setting(spec)])


def _images(result: EvaluateResult | None) -> list[str]:
    """The set and what was said of it; where it lay on the machine that ran it is nobody's business."""
    source, soft, reading = (None,) * 3 if result is None else (result.source, result.soft_labels, result.reading)
    words = ["--images", "FOLDER"]
    if source is not None:
        words = ["--images", "FILE"]
        with suppress(UsageError):  # what a result says may be anything
            words = ["--images", pinned(source.address, source.revision or "main")]
    for option, value in (
        ("--normalisation", source and source.normalisation),
        ("--class-order", source.class_order if source else "FILE" if reading and reading.class_folders else None),
        ("--flatten", reading and reading.flatten),
        ("--labels", soft and soft.used and soft.kind),
    ):
        words += [option, printable(value)] if value else []
    return words


def _evaluation(students: Sequence[EvaluateCell], test_on: Sequence[str]) -> list[str]:
    if not students:
        return []
    student = students[0].spec
    protocol = student.protocol.label.rpartition("@")[0]
    words = ["--protocol", protocol, "--student", student.student, "--repeats", str(len(students))]
    return [*words, "--test-on", ",".join(test_on)] if test_on else words


def _prior(distill: DistillCell) -> list[str]:
    """The prior as the user named it: a tuned one, `minimax(digits)`, is made by the method's own entry."""
    prior = distill.result.prior if distill.result is not None else None
    if prior is None:
        return []
    name = prior.name
    if prior.tuned_by and distill.label.partition("[")[0].endswith(tuple(f"-{t.name}" for t in prior.tuned_by)):
        name = name.partition("(")[2].removesuffix(")")
    return ["--prior", name]


def _setting(spec: DistillSpec | EvaluateSpec) -> list[str]:
    return [
        "--split", spec.dataset.split,
        "--resolution", str(spec.dataset.resolution),
        "--device", spec.device_type,
    ]  # fmt: skip

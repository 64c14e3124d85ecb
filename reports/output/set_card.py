"""What a distilled set says of itself where others find it: README.md, a dataset card of the hub."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev

from ddbench.reports.output.formats import escaped, pipes
from ddbench.reports.output.number_text import number
from ddbench.reports.results.command_line import command
from ddbench.reports.results.rows import DistillCell, EvaluateCell, printable

TAGS = ("dataset-distillation", "ddbench")


def set_card(
    sha256: str, distill: DistillCell | None, students: Sequence[EvaluateCell], *, n_images: int, how: str | None
) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        distill: the cell that made the set; None for one that was made elsewhere.
        students: finished ones, of this set.
        how: options of `bench eval` that evaluate it from where it will lie; None: it will lie nowhere yet.
    """
    spec = students[0].spec if distill is None else distill.spec
    label = escaped(printable(students[0].label if distill is None else distill.label))
    ipc = "whole training set" if spec.ipc is None else f"IPC {spec.ipc}"
    name, part = escaped(spec.dataset.name), escaped(spec.dataset.split)
    lines = [
        *("---", "task_categories:", "- image-classification", "tags:", *(f"- {tag}" for tag in TAGS), "---", ""),
        f"# {label}: {name}, {ipc}",
        "",
        f"A distilled set of {n_images:,} images for {name}, split {part}. Its name is the SHA-256 of its decoded "
        f"images, classes and indices: `{sha256}` (ddbench's `image_set_sha256`); `manifest.json` says which classes "
        "there are.",
        "",
    ]
    if distill is not None:
        lines += ["Made by", "", "    " + " ".join(command(distill, []).splitlines()), ""]
        prior = None if distill.result is None else distill.result.prior
        if prior is not None:
            said = printable(prior.name), prior.sha256, printable(prior.trained_on)
            lines += ["with the prior {} (SHA-256 {}), trained on: {}.".format(*map(escaped, said)), ""]
    lines += ["## Accuracy of students", ""]
    lines += [pipes(["protocol", "student", "test images", "top-1 %", "std", "students"]), pipes(["---"] * 6)]
    lines += [pipes(row) for row in _rows(students)] if students else []
    lines += ["", "Top-1 after the last epoch, mean and sample standard deviation over students of this one set.", ""]
    if how is not None:
        lines += ["## Evaluate it", "", f"    bench eval {how}", ""]
    return "\n".join(lines)


def _rows(students: Sequence[EvaluateCell]) -> list[list[str]]:
    """One for each protocol and network."""
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for cell in students:
        if (student := cell.student) is not None:
            data = f"{student.data.n_test:,} ({student.data.split} split, {student.data.resolution} px)"
            key = (printable(cell.spec.protocol.label), cell.spec.student, data)
            groups[key].append(student.metrics.acc_last)
    return [
        [*map(escaped, key), number(fmean(found)), number(stdev(found) if len(found) > 1 else None), str(len(found))]
        for key, found in sorted(groups.items())
    ]

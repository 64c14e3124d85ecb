"""Published numbers, beside ours and never ranked with them. Carried as `reference/paper_numbers.csv`.

Papers report the best of about a hundred looks at the test set, as mean and population standard deviation over students
of one distilled set. Their counterpart here is `acc_best`, not the `acc_last` that ranks.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.result import PriorRecord, Record
from ddbench.methods.diffusion.priors.catalogue import KNOWN

FILE = Path(__file__).parents[1] / "reference" / "paper_numbers.csv"
METRIC = "top1_best"
SPLIT = "imagenet"
"""The papers' split: ImageNet's training images train, its validation images test."""
RESOLUTIONS = (224, 256)
"""The sides in pixels at which they distill."""
PLACES = {"tiny-imagenet": ("default", (64,))}
"""Datasets whose published numbers are of another split and of other sides -> these."""
SAME_IMAGES = {"random-first": "random"}
"""Our method -> the one whose published numbers are its own too: their programs keep the first images by file name and
call them random."""
STUDENTS = {
    f"{name}{form}": name for name in ("resnet18", "resnet50", "resnet101") for form in ("_bn", "_modified", "_cifar")
}
"""Students with BatchNorm as the papers call them, whose evaluators train no other ResNets."""
METHODS_PRINTED = {
    "ManifoldGD": "manifoldgd", "SRe2L": "sre2l", "SRe2L++": "sre2l-pp", "CDA": "cda", "FADRM": "fadrm",
    "FADRM+": "fadrm-plus", "CV-DD": "cv-dd", "DELT": "delt", "DWA": "dwa", "G-VBSM": "g-vbsm", "EDC": "edc",
    "WMDD": "wmdd", "IMS3": "ims3",
}  # fmt: skip
"""What rows without a method of ours call methods that came later -> their names here."""
PROTOCOLS_OF = {
    ("fadrm", "soft-bssl"): "soft-bssl-1", ("fadrm-plus", "soft-bssl"): "soft-bssl-4",
    ("cv-dd", "soft-bssl"): "soft-bssl-5", ("sre2l-pp", "soft-bssl"): "soft-bssl-1-cvdd",
}  # fmt: skip
"""(method, evaluator as carried) -> the evaluator by name. Those called soft-bssl differ in their teachers and in whose
program's learning rates they have."""
PROTOCOLS_ON = {
    "tiny-imagenet": {
        "soft-rded": "soft-rded-whole-64", "soft-delt": "soft-delt-64", "soft-bssl-5": "soft-bssl-5-64",
        "soft-bssl-1-cvdd": "soft-bssl-1-cvdd-64",
    }
}  # fmt: skip
"""Dataset -> an evaluator's name -> the name of what its program does with images of that dataset's side."""
OTHER_PRIORS = frozenset(KNOWN) - {"dit-xl-2-256"}
"""Priors that the published numbers of a name here were not made on."""
OWN_PRIORS = {"d4m": "sd-1.5"}
"""Method -> one of those that its own paper has."""
DATASETS_PRINTED = {f"imagenet-{letter}": f"image-{letter.lower()}" for letter in "ABCDE"}
"""What GLaD calls its subsets -> their names here, which do not sound like the robustness sets."""


class PaperNumber(Record):
    """One published accuracy, percent."""

    value: float
    std: float | None
    """Population standard deviation over students of one set, where the paper gives one."""
    printed_as: str
    """The method's name in the source."""
    arxiv: str
    source: str
    kind: str
    """`main`, `ablation`, `upper_bound`, `reproduction`, `cross_arch`."""
    confidence: Literal["primary", "second-hand"]
    protocol_status: str
    """`stated`, or `inferred`: which evaluator made the number is not said in the source."""
    note: str

    @property
    def marks(self) -> str:
        """`i`: the evaluator is inferred, or not known in full; `s`: read at second hand."""
        inferred = self.protocol_status != "stated"
        return ("i" if inferred else "") + ("s" if self.confidence == "second-hand" else "")


Key = tuple[str, str, str, str, str]
"""(method, dataset, IPC, student, protocol without version)."""


def published(method: str, **conditions: Any) -> list[PaperNumber]:
    """The accuracies that papers give for a method in one cell (`published_cell`), the most trustworthy first."""
    wanted = SAME_IMAGES.get(method, method)
    return [number for name, number in published_cell(**conditions) if name == wanted and name]


def made_as_published(method: str, prior: PriorRecord | None) -> bool:
    """Whether a row's prior is what published numbers of its method are of, as far as its name says: not another one
    that is known, and tuned as the method's own entry says or not at all.

    Args:
        method: the row's label; the parameters of its prior's tuning are in the prior's name alone.
        prior: None for a method without one, and where no result names it yet.
    """
    if prior is None:
        return True
    base = prior.name.rpartition("(")[2].rstrip(")")
    if base in OTHER_PRIORS and OWN_PRIORS.get(method) != base:
        return False
    tuner = METHODS.entry(method).prior_tuned_by if method in METHODS else None
    return not prior.tuned_by if tuner is None else prior.name.startswith(f"{tuner}(")


def published_cell(
    *, dataset: str, split: str, resolution: int, ipc: int | None, student: str, protocol: str
) -> Sequence[tuple[str, PaperNumber]]:
    """All accuracies that papers give for one cell, as (method, number), the most trustworthy first.

    The method is empty for one that is not here, and for a setting without a name (`settings.py` knows some). There are
    none for another split or another resolution than the papers'.

    Args:
        protocol: a registered name without version. A modified protocol has no published numbers: do not ask.
    """
    key = key_of("", dataset=dataset, split=split, resolution=resolution, ipc=ipc, student=student, protocol=protocol)
    if key is None:
        return ()
    found = [(other[0], number) for other, numbers in _numbers().items() if other[1:] == key[1:] for number in numbers]
    return sorted(found, key=lambda pair: _trust(pair[1]))


def place_of(dataset: str) -> tuple[str, tuple[int, ...]]:
    """The split and the sides in pixels that a dataset's published numbers are of."""
    return PLACES.get(dataset, (SPLIT, RESOLUTIONS))


def key_of(
    method: str, *, dataset: str, split: str, resolution: int, ipc: int | None, student: str, protocol: str
) -> Key | None:
    """The published cell that has these conditions; None under conditions that papers do not have.

    Args:
        protocol: a registered name without version, unmodified.
    """
    papers_split, papers_resolutions = place_of(dataset)
    if split != papers_split or resolution not in papers_resolutions:
        return None
    by_crops = protocol.startswith("soft-rded") and dataset not in PROTOCOLS_ON
    family = "soft-rded" if by_crops else protocol
    return (
        SAME_IMAGES.get(method, method), dataset, "full" if ipc is None else str(ipc),
        STUDENTS.get(student, student), family,
    )  # fmt: skip


def all_published() -> list[tuple[Key, PaperNumber]]:
    """Every published accuracy with its key, whose method may be empty; of each key, the most trustworthy first."""
    return [(key, number) for key, numbers in _numbers().items() for number in numbers]


@cache
def _numbers() -> dict[Key, tuple[PaperNumber, ...]]:
    found: dict[Key, list[PaperNumber]] = {}
    with FILE.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            if row["metric"] != METRIC:
                continue
            try:
                given: dict[str, str | None] = {name: row[name] for name in PaperNumber.model_fields if name in row}
                given |= {"std": row["std"] or None, "printed_as": row["method_as_printed"]}
                number = PaperNumber.model_validate(given)
            except ValueError as error:
                raise RunError(f"{FILE} line {line}: {error}. Install ddbench again.") from error
            dataset = DATASETS_PRINTED.get(row["dataset"], row["dataset"])
            method = row["method_id"] or METHODS_PRINTED.get(row["method_as_printed"], "")
            protocol = PROTOCOLS_OF.get((method, row["protocol"]), row["protocol"])
            protocol = PROTOCOLS_ON.get(dataset, {}).get(protocol, protocol)
            key = (method, dataset, row["ipc"], row["student"], protocol)
            found.setdefault(key, []).append(number)
    return {key: tuple(sorted(numbers, key=_trust)) for key, numbers in found.items()}


def _trust(number: PaperNumber) -> tuple[bool, bool, bool, float]:
    """A paper's own table before a reprint, an ablation's rerun after the main row; among equals the higher."""
    return (number.kind != "main", bool(number.marks), number.std is None, -number.value)

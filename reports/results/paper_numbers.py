"""Published numbers, beside ours and never ranked with them. Carried as `reference/paper_numbers.csv`.

Papers report the best of about a hundred looks at the test set, as mean and population standard deviation over students
of one distilled set. Their counterpart here is `acc_best`, not the `acc_last` that ranks.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.result import PriorRecord, Record
from ddbench.methods.diffusion.priors.catalogue import KNOWN

FILE = Path(__file__).parents[1] / "reference" / "paper_numbers.csv"
MADE_OTHERWISE = FILE.with_name("made_otherwise.yaml")
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
OWN_PAPERS = {
    "minimax": "2311.15529", "mgd3": "2505.18963", "d4m": "2407.15138", "rded": "2312.03526", "cao2": "2506.22637",
    "d3hr": "2505.18399", "sre2l": "2306.13092", "cda": "2311.18838", "g-vbsm": "2311.17950", "edc": "2404.13733",
    "cv-dd": "2501.07575", "sre2l-pp": "2501.07575", "delt": "2411.19946", "dwa": "2409.17612", "wmdd": "2311.18531",
    "fadrm": "2506.24125", "fadrm-plus": "2506.24125", "ims3": "2603.13960", "manifoldgd": "2602.23295",
    "dm": "2110.04181", "igd": "",
}  # fmt: skip
"""Method -> its own paper, where others print numbers of it: reprints, and runs of their own that are not always it.
Empty for one that has no arXiv number."""
PRINTED_IN = {
    "Jiacheng8/FADRM": "2506.24125", "Jiacheng8/CV-DD": "2501.07575", "LINs-lab/CIM": "2607.00916",
    "VILA-Lab/DELT": "2411.19946",
}  # fmt: skip
"""Repository whose figures were read -> its paper: rows of others are carried with the number of those others' own."""
PAPERS_PRIOR = "dit-xl-2-256"
"""The prior that published numbers were made on where `made_otherwise.yaml` has no other one."""
KNOWN_PRIORS = frozenset(KNOWN)
OTHER_PRIORS = KNOWN_PRIORS - {PAPERS_PRIOR}
FORMS = {"soft-rded": ("soft-rded-shuffle", "soft-rded-half", "soft-rded-crop")}
"""What sources call an evaluator that has a form for each way of cropping here -> these."""
CROPS_OF_PAPER = {"2506.22637": "soft-rded-shuffle", "2312.03526": "soft-rded-shuffle", "2505.18399": "soft-rded-crop"}
"""How the evaluator called `soft-rded` crops in papers whose programs are known: CaO2's, RDED's, D3HR's."""
CROPS_OF_METHOD = {"rded": "soft-rded-shuffle"}
"""How it crops collages elsewhere: the numbers that others print are RDED's own."""
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
    prior: str = PAPERS_PRIOR
    """What it was made on, of a method that takes a prior; for a tuned one, what was tuned."""
    because: str | None = None
    """Why it is no number of its method under the conditions that it is carried with; None where it is."""
    of_others: bool = False
    """Printed by another paper than its method's own."""

    @property
    def marks(self) -> str:
        """`i`: the evaluator is inferred, or not known in full; `s`: read at second hand; `o`: printed by another paper
        than the method's own."""
        inferred, second_hand = self.protocol_status != "stated", self.confidence == "second-hand"
        return "".join(mark for mark, is_so in (("i", inferred), ("s", second_hand), ("o", self.of_others)) if is_so)


Key = tuple[str, str, str, str, str]
"""(method, dataset, IPC, student, protocol without version)."""


def published(method: str, **conditions: Any) -> list[PaperNumber]:
    """The accuracies that papers give for a method in one cell (`published_cell`), the most trustworthy first, on
    whatever prior."""
    wanted = SAME_IMAGES.get(method, method)
    return [number for name, number in published_cell(**conditions) if name == wanted and name]


def published_beside(method: str, prior: PriorRecord | None, *, protocol: str, **conditions: Any) -> list[PaperNumber]:
    """Those of them that a row's result can be compared with (`stands_beside`)."""
    found = published(method, protocol=protocol, **conditions)
    return [number for number in found if stands_beside(number, method, prior, protocol)]


def stands_beside(number: PaperNumber, method: str, prior: PriorRecord | None, protocol: str) -> bool:
    """Whether a published number was made as a row of its cell was: on its prior, as far as that one's name says, tuned
    as the method's own entry says or not at all, and by the very evaluator where that is known.

    Args:
        method: the row's label; the parameters of its prior's tuning are in the prior's name alone.
        prior: None for a method without one, and where no result names it yet.
        protocol: a registered name without version, unmodified.
    """
    if number.because is not None:
        return False
    if family(protocol) != protocol and (crops_of(number.arxiv, method) or protocol) != protocol:
        return False
    if prior is None:
        return True
    base = prior.name.rpartition("(")[2].rstrip(")")
    # The papers' prior may have another name here; none that is known is it.
    if base != number.prior and (number.prior != PAPERS_PRIOR or base in OTHER_PRIORS):
        return False
    tuner = METHODS.entry(method).prior_tuned_by if method in METHODS else None
    return not prior.tuned_by if tuner is None else prior.name.startswith(f"{tuner}(")


def family(protocol: str) -> str:
    """What sources call a registered evaluator (`FORMS`)."""
    return next((name for name, forms in FORMS.items() if protocol in forms), protocol)


def crops_of(arxiv: str, method: str) -> str | None:
    """The form of the evaluator called `soft-rded` behind a paper's numbers of a method; None where it is not known."""
    return CROPS_OF_PAPER.get(arxiv) or CROPS_OF_METHOD.get(method)


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
    return (
        SAME_IMAGES.get(method, method), dataset, "full" if ipc is None else str(ipc),
        STUDENTS.get(student, student), family(protocol),
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
                otherwise = _made_otherwise(row)
                given |= {key: value for key, value in otherwise.items() if key != "protocol"}
                number = PaperNumber.model_validate(given)
            except ValueError as error:
                raise RunError(f"{FILE} line {line}: {error}. Install ddbench again.") from error
            dataset = DATASETS_PRINTED.get(row["dataset"], row["dataset"])
            method = row["method_id"] or METHODS_PRINTED.get(row["method_as_printed"], "")
            printed_in = PRINTED_IN.get(number.source.partition("@")[0], number.arxiv)
            number = number.model_copy(update={"of_others": OWN_PAPERS.get(method, printed_in) != printed_in})
            protocol = otherwise.get("protocol") or PROTOCOLS_OF.get((method, row["protocol"]), row["protocol"])
            protocol = PROTOCOLS_ON.get(dataset, {}).get(protocol, protocol)
            key = (method, dataset, row["ipc"], row["student"], protocol)
            found.setdefault(key, []).append(number)
    return {key: tuple(sorted(numbers, key=_trust)) for key, numbers in found.items()}


class _MadeOtherwise(Record):
    """An entry of `made_otherwise.yaml`."""

    arxiv: str
    printed: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    ipc: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    prior: str | None = None
    protocol: str | None = None
    because: str | None = None

    def concerns(self, row: Mapping[str, str]) -> bool:
        named = (
            (self.datasets, "dataset"),
            (self.ipc, "ipc"),
            (self.students, "student"),
            (self.protocols, "protocol"),
        )
        of_paper = row["arxiv"] == self.arxiv and row["method_as_printed"] in self.printed
        return of_paper and all(not some or row[column] in some for some, column in named)


@cache
def _all_made_otherwise() -> list[_MadeOtherwise]:
    return [_MadeOtherwise.model_validate(one) for one in yaml.safe_load(MADE_OTHERWISE.read_text(encoding="utf-8"))]


def _made_otherwise(row: Mapping[str, str]) -> dict[str, str | None]:
    """What of a number is not as most are."""
    found: dict[str, str | None] = {}
    for one in _all_made_otherwise():
        if one.concerns(row):
            told = {"prior": one.prior, "protocol": one.protocol, "because": one.because}
            found |= {key: value for key, value in told.items() if value is not None}
    return found


def _trust(number: PaperNumber) -> tuple[bool, bool, bool, float]:
    """A paper's own table before a reprint, an ablation's rerun after the main row; among equals the higher."""
    return (number.kind != "main", bool(number.marks), number.std is None, -number.value)

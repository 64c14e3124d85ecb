"""Published numbers stand beside measured ones, under the papers' own conditions only, and rank nothing."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS
from ddbench.benchmark.core.result import PriorRecord
from ddbench.benchmark.core.spec import MethodSpec
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.methods.diffusion.priors.catalogue import KNOWN
from ddbench.reports.analyses import field, reproduction
from ddbench.reports.output import formats
from ddbench.reports.results import groups, rows
from ddbench.reports.results.paper_numbers import (
    FILE,
    PaperNumber,
    _all_made_otherwise,
    all_published,
    crops_of,
    place_of,
    published,
    published_beside,
    published_cell,
    stands_beside,
)
from ddbench.reports.tables.leaderboard import build

WOOF: dict[str, Any] = {"dataset": "woof", "split": "imagenet", "resolution": 256, "student": "resnet_ap10"}
REFERENCE = Path(os.environ.get("DDBENCH_REFERENCE") or Path(__file__).parents[4] / "shared" / "reference")


@pytest.mark.parametrize(("ipc", "value"), [(10, 29.4), (20, 32.7), (50, 47.2), (100, 59.4)])
@pytest.mark.parametrize("method", ["random", "random-first"])
def test_the_random_row_of_minimax(method: str, ipc: int, value: float) -> None:
    first, *_ = published(method, ipc=ipc, protocol="hard-minimax-sgd", **WOOF)
    assert (first.value, first.marks) == (value, "")


def test_dmgds_row_is_marked_as_inferred() -> None:
    first, *_ = published("dmgd", ipc=10, protocol="hard-dmgd-adamw", **WOOF)
    assert (first.value, first.std, first.marks) == (40.8, 1.1, "i")
    assert not published("dmgd", ipc=10, protocol="hard-minimax-sgd", **WOOF)


def test_soft_numbers_stand_at_every_crop_and_say_that_theirs_is_not_known() -> None:
    where: dict[str, Any] = {**WOOF, "dataset": "imagenet-1k", "ipc": 10, "student": "resnet18_bn"}
    for protocol in ("soft-rded-shuffle", "soft-rded-half", "soft-rded-crop"):
        values = [number.value for number in published("dmgd", protocol=protocol, **where)]
        assert values == [46.3]
    assert "i" in published("dmgd", protocol="soft-rded-half", **where)[0].marks


def test_another_split_has_no_published_numbers() -> None:
    assert not published("random", **{**WOOF, "split": "fastai"}, ipc=10, protocol="hard-minimax-sgd")


def test_another_resolution_has_no_published_numbers() -> None:
    """The protocol would enlarge images of 32 px to its own side, and its name would still be the papers'."""
    assert not published("random", **{**WOOF, "resolution": 32}, ipc=10, protocol="hard-minimax-sgd")


def test_tiny_imagenets_numbers_are_of_its_own_split_and_side() -> None:
    """And of the students and evaluators for that side: a student of 224 px joins none."""
    where: dict[str, Any] = {"dataset": "tiny-imagenet", "split": "default", "resolution": 64, "ipc": 10}
    found = {
        (method, protocol, student): published(method, **where, protocol=protocol, student=student)[0].value
        for method, protocol, student in (
            ("cv-dd", "soft-bssl-5-64", "resnet50_cifar"),
            ("sre2l-pp", "soft-bssl-1-cvdd-64", "resnet18_cifar"),
            ("delt", "soft-delt-64", "resnet101_modified"),
            ("sre2l", "soft-rded-whole-64", "resnet18_modified"),
        )
    }
    assert list(found.values()) == [43.8, 46.5, 42.8, 16.1]
    given: dict[str, Any] = {**where, "protocol": "soft-delt-64", "student": "resnet18_modified"}
    assert published("delt", **given)
    for other in (
        {"protocol": "soft-delt"},
        {"protocol": "soft-rded-half"},
        {"split": "imagenet"},
        {"resolution": 224},
    ):
        assert not published("delt", **{**given, **other})
        assert not published("sre2l", **{**given, "protocol": "soft-rded-whole-64", **other})
    assert not published("sre2l", **{**where, "ipc": 50}, protocol="soft-rded-whole-64", student="resnet18_modified")


def test_every_number_has_a_dataset_and_an_evaluator_that_are_here_or_a_reason() -> None:
    """`unknown` and an empty evaluator are what a source that does not say is carried as."""
    assert len(all_published()) > 900
    assert list(DATASETS)
    assert list(PROTOCOLS)
    for (_, dataset, _, _, protocol), _ in all_published():
        assert dataset in DATASETS or DATASETS.unavailable.get(dataset), dataset
        known = protocol in PROTOCOLS or protocol in ("soft-rded", "unknown", "")
        assert known or PROTOCOLS.unavailable.get(protocol), protocol


def test_numbers_of_sre2ls_evaluator_stand_beside_ours() -> None:
    where: dict[str, Any] = {"dataset": "imagenet-1k", "split": "imagenet", "resolution": 224, "ipc": 10}
    found = {
        (number.printed_as, number.value)
        for protocol in ("soft-fkd", "soft-fkd-128")
        for _, number in published_cell(**where, student="resnet18_bn", protocol=protocol)
    }
    assert {("D4M", 27.9), ("CDA", 33.6), ("DWA", 37.9)} <= found
    assert published("random", protocol="soft-fkd", student="resnet18_bn", **where)[0].value == 25.8
    glads = [key for key, _ in all_published() if key[1] == "image-a"]
    assert glads
    assert all(key[0] == "mgd3" for key in glads)


def test_numbers_of_methods_that_exist_join_names_that_exist() -> None:
    with FILE.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) > 1000
    known = {entry.name for entry in METHODS} & {line["method_id"] for line in lines}
    assert {"random", "full", "dit", "dmgd", "dmgd-sm"} <= known
    datasets = {entry.name for entry in DATASETS}
    for line in lines:
        if line["method_id"] in known and line["metric"] == "top1_best" and line["dataset"] in datasets:
            if line["protocol"].startswith("hard-") and line["protocol"] not in PROTOCOLS.unavailable:
                resolve_protocol(line["protocol"])
            assert line["ipc"] == "full" or int(line["ipc"]) > 0


NUMBER = PaperNumber(
    value=50.0, std=None, printed_as="x", arxiv="", source="", kind="main", confidence="primary",
    protocol_status="stated", note="",
)  # fmt: skip
OF_IMS3 = [("10", "resnet18"), ("10", "resnet_ap10"), ("50", "resnet18")]
CORRECTED = [
    ("mgd3", "woof", "50", "resnet_ap10", "2605.03877"),  # a reprint of the paper's own cell, with another spread
    ("mgd3", "woof", "10", "convnet6", "2510.17421"),  # stands twice
    ("mgd3", "woof", "10", "convnet6", "2505.18963"),  # its note says where it is reprinted
    ("random", "nette", "10", "resnet_ap10", "2605.03877"),  # the AdamW cell is another number
    ("full", "nette", "full", "resnet_ap10", "2605.03877"),  # its evaluator is not stated
    ("", "tiny-imagenet", "50", "resnet18", "2306.13092"),  # SRe2L's own, and not by RDED's evaluator
    ("", "tiny-imagenet", "50", "resnet101", "2306.13092"),  # the same
    # EDC's program runs a line of learning rates, where its script names a cosine.
    *(("", "imagenet-1k", ipc, f"resnet{depth}", "2404.13733") for ipc in ("1", "10") for depth in (18, 50, 101)),
    # IMS3's table has the higher of hard and soft labels, so which evaluator made a number is not stated.
    *(
        (method, "woof", ipc, student, "2603.13960")
        for method, cells in {"": OF_IMS3 * 2, "d4m": OF_IMS3, "minimax": OF_IMS3[1:]}.items()
        for ipc, student in cells
    ),
]
"""Rows of the reference that are carried otherwise: method, dataset, IPC, student, source."""


def test_the_carried_copy_is_the_reference() -> None:
    originals = [REFERENCE / "paper_numbers.csv", REFERENCE / "paper_numbers_2026.csv"]
    if not all(original.is_file() for original in originals):
        pytest.skip(f"no reference numbers at {REFERENCE}; set DDBENCH_REFERENCE")
    reference = [row for original in originals for row in lines_of(original)]
    carried = lines_of(FILE)
    assert len(carried) == len(reference)  # one left out, one of the AdamW evaluation came
    missing = [row for row in reference if row not in carried]
    columns = ("method_id", "dataset", "ipc", "student", "arxiv")
    assert sorted(tuple(row[column] for column in columns) for row in missing) == sorted(CORRECTED)


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_one_cell_of_one_evaluator_has_one_number_of_its_paper() -> None:
    first, *others = published("mgd3", ipc=50, protocol="hard-minimax-sgd", **WOOF)
    assert (first.value, first.std, first.arxiv) == (56.5, 1.9, "2505.18963")
    assert all(other.marks for other in others)
    nette = {**WOOF, "dataset": "nette"}
    spreads = {
        p: published("random", ipc=10, protocol=p, **nette)[0].std for p in ("hard-minimax-sgd", "hard-igd-adamw")
    }
    assert spreads == {"hard-minimax-sgd": 1.6, "hard-igd-adamw": 1.2}
    (full,) = published("full", ipc=None, protocol="hard-minimax-sgd", **nette)
    assert full.marks == "i"
    assert len(published("mgd3", ipc=10, protocol="hard-minimax-sgd", **{**WOOF, "student": "convnet6"})) == 1


def test_a_leaderboard_shows_them_beside_ours(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    protocol = resolve_protocol("hard-minimax-sgd")[1]
    for method in ("random", "dmgd"):
        folder.method(method, [[31.0, 32.0], [31.5, 32.5]], protocol=protocol, student="resnet_ap10")
    (table,) = build(rows.read(folder.out)).tables
    by_method = {row.method: row for row in table.rows}
    assert by_method["random"].papers[0].value == 29.4
    assert by_method["dmgd"].papers == ()  # DMGD's row was made with AdamW
    assert [row.rank for row in table.rows] == [1, 1]
    best = by_method["random"].acc_best
    assert best is not None
    text = formats.markdown(build(rows.read(folder.out)))
    assert "| paper |" in text
    assert re.search(rf"29\.4( ± \d\.\d)? \({re.escape(f'{best.mean - 29.4:+.1f}')}\)", text)
    assert "never ranked" in text


@pytest.mark.parametrize(
    ("method", "prior", "same"),
    [
        ("mgd3", "dit-xl-2-256", True),
        ("mgd3", "mine", True),  # the papers' prior may have another name
        ("mgd3", "sd-1.5", False),
        ("dit", "sit-xl-2-256", False),
        ("d4m", "dit-xl-2-256", True),  # of DiT + D4M
        ("d4m", "sd-1.5", False),
        ("mgd3", "minimax(dit-xl-2-256)", False),
        ("igd-minimax", "minimax(dit-xl-2-256)", True),
        ("igd-minimax", "minimax(dit-xl-2-512)", False),
        ("ims3", "ims3-im(dit-xl-2-256)", True),
        ("ims3", "ims3-im[tuning_steps=20](dit-xl-2-256)", False),
        ("ims3", "minimax(dit-xl-2-256)", False),
        ("of a plugin", "mine", True),
    ],
)
def test_numbers_of_another_prior_are_not_a_rows_own(method: str, prior: str, same: bool) -> None:
    assert stands_beside(NUMBER, method, on(prior), "hard-minimax-sgd") == same
    assert stands_beside(NUMBER, method, None, "hard-minimax-sgd")


def on(prior: str) -> PriorRecord:
    tuners = [MethodSpec(name="any", version=1, params={})] if "(" in prior else []
    return PriorRecord(name=prior, sha256="0", trained_on="t", tuned_by=tuners)


def beside(method: str, prior: str, **where: Any) -> list[tuple[str, float]]:
    given: dict[str, Any] = {"split": "imagenet", "resolution": 224, **where}
    return [(one.printed_as, one.value) for one in published_beside(method, on(prior), **given)]


def test_d4ms_own_numbers_are_of_stable_diffusion() -> None:
    """Its paper has Stable Diffusion 1.5; MGD3's table runs it on DiT; who else reprints it does not say on what."""
    own: dict[str, Any] = {"dataset": "imagenet-1k", "ipc": 10, "student": "resnet18_bn", "protocol": "soft-fkd"}
    assert beside("d4m", "sd-1.5", **own) == [("D4M", 27.9)]
    assert beside("d4m", "dit-xl-2-256", **own) == []
    nette: dict[str, Any] = {"dataset": "nette", "ipc": 10, "student": "resnet_ap10", "protocol": "hard-minimax-sgd"}
    assert beside("d4m", "dit-xl-2-256", **nette) == [("DiT + D4M", 60.4)], "not VLCP's 60.9 on another prior"
    assert beside("d4m", "sd-1.5", **nette) == []
    assert beside("d4m", "sd-1.5", **{**own, "dataset": "nette"}) == [], "of a second-hand table that names none"


def test_numbers_that_were_made_otherwise_stand_beside_no_row_of_their_name() -> None:
    woof: dict[str, Any] = {"dataset": "woof", "student": "resnet_ap10", "protocol": "hard-minimax-sgd"}
    assert beside("mgd3", "dit-xl-2-256", ipc=50, **woof) == [("MGD*", 48.5)], "MGD3's 56.5 is of a tuned DiT"
    nette = {**woof, "dataset": "nette", "student": "resnet18"}
    assert ("MGD3 (DiT + MGD3)", 64.4) in beside("mgd3", "dit-xl-2-256", ipc=10, **nette)
    copied = {**woof, "protocol": "hard-dmgd-adamw"}
    assert beside("dit", "dit-xl-2-256", ipc=10, **copied) == [], "copied from a table of SGD"
    assert beside("dit", "dit-xl-2-256", ipc=10, **woof)
    soft: dict[str, Any] = {"dataset": "imagenet-1k", "ipc": 50, "student": "resnet18_bn"}
    assert beside("edc", "mine", protocol="soft-rded-half", **soft) == []
    assert beside("edc", "mine", protocol="soft-edc-linear", **soft) == [("EDC", 58.0)]
    assert beside("d4m", "sd-1.5", protocol="soft-fkd", **soft) == [("D4M", 55.2)]
    assert beside("d4m", "dit-xl-2-256", protocol="soft-fkd", **soft) == []
    assert beside("minimax", "dit-xl-2-256", protocol="soft-fkd", **soft) == []
    ims3 = beside("minimax", "dit-xl-2-256", **{**woof, "student": "resnet18", "ipc": 50})
    assert ims3
    assert 53.9 not in [value for _, value in ims3], "of ConvNet-6"


def test_a_number_whose_crops_are_known_is_of_that_evaluator_alone() -> None:
    where: dict[str, Any] = {"dataset": "imagenet-1k", "ipc": 10, "student": "resnet18_bn"}
    assert beside("rded", "mine", protocol="soft-rded-shuffle", **where)
    assert beside("rded", "mine", protocol="soft-rded-half", **where) == [], "others print RDED's own numbers"
    assert beside("d3hr", "dit-xl-2-256", protocol="soft-rded-crop", **where)
    assert beside("d3hr", "dit-xl-2-256", protocol="soft-rded-half", **where) == []
    assert beside("cao2", "dit-xl-2-256", protocol="soft-rded-shuffle", **where)
    assert beside("cao2", "dit-xl-2-256", protocol="soft-rded-crop", **where) == []
    assert beside("mgd3", "dit-xl-2-256", protocol="soft-rded-crop", **where), "its crops are not known"


def test_runs_of_others_are_marked() -> None:
    where: dict[str, Any] = {"ipc": 10, "protocol": "hard-igd-adamw", **WOOF, "student": "resnet_ap10"}
    assert "o" in published("minimax", **where)[0].marks
    own = {**where, "protocol": "hard-minimax-sgd", "student": "convnet6"}
    assert "o" not in published("minimax", **own)[0].marks
    assert not any("o" in number.marks for number in published("random", **where)), "a baseline of nobody's own"
    assert "o" in published("igd", **where)[0].marks, "DAP's table, of a paper without an arXiv number"


def test_numbers_of_a_methods_own_paper_that_were_read_in_anothers_figure_are_marked() -> None:
    """They are carried with the arXiv number of the method's paper, and a note or a status says who printed them."""
    told = {
        (line["method_as_printed"], line["dataset"], line["ipc"], line["student"], line["value"])
        for line in lines_of(FILE)
        if line["note"].startswith("as printed by") or line["protocol_status"].startswith("as printed by")
    }
    found = [
        number.of_others
        for key, number in all_published()
        if key[0] in METHODS and (number.printed_as, *key[1:4], f"{number.value:g}") in told
    ]
    assert len(found) > 30
    assert all(found)


def test_a_number_stands_beside_rows_that_were_made_as_it_was_and_beside_no_others() -> None:
    """Of all methods, priors, evaluators and their students; a number is told by its object."""
    priors = [*KNOWN, "mine"]
    tuners = sorted({entry.prior_tuned_by for entry in METHODS if entry.prior_tuned_by})
    records = [on(prior) for prior in [*priors, *(f"{tuner}({prior})" for tuner in tuners for prior in priors)]]
    rows_of: dict[int, set[tuple[str, str, str]]] = defaultdict(set)
    for dataset, ipc in {key[1:3] for key, _ in all_published() if key[1] in DATASETS}:
        split, sides = place_of(dataset)
        where = {"dataset": dataset, "split": split, "resolution": sides[0], "ipc": None if ipc == "full" else int(ipc)}
        for protocol in [PROTOCOLS.load(entry.name) for entry in PROTOCOLS]:
            for student in protocol.students:
                of_cell = published_cell(**where, student=student, protocol=protocol.name)
                for method, number in [pair for pair in of_cell if pair[0] in METHODS]:
                    beside = [prior.name for prior in records if stands_beside(number, method, prior, protocol.name)]
                    rows_of[id(number)] |= {(protocol.name, student, prior) for prior in beside}
                    assert not beside or protocol.image_size_for(sides[0]) >= sides[0], "papers shrink no images"
    for (method, _, _, student, protocol), number in all_published():
        protocols, students, names = ({row[place] for row in rows_of[id(number)]} for place in range(3))
        bases = {name.rpartition("(")[2].rstrip(")") for name in names}
        missing = protocol in PROTOCOLS.unavailable or protocol in ("", "unknown")
        if method not in METHODS or number.because or number.prior not in KNOWN or missing:
            assert not protocols
            continue
        known = METHODS.entry(method).prior_tuned_by
        assert {name.partition("(")[0] for name in names} == ({known} if known else bases)
        assert bases == {number.prior, "mine"} if number.prior == "dit-xl-2-256" else {number.prior}
        assert len(protocols) == (3 if protocol == "soft-rded" and not crops_of(number.arxiv, method) else 1)
        assert {name.partition("_")[0] for name in students} == {student.partition("_")[0]}


def test_what_the_field_says_to_run_has_the_number_beside_it() -> None:
    named = {id(number) for key, number in all_published() if key[0]}
    cells = [cell for cell in field.build([]) if cell.standing == "can be run" and id(cell.paper) in named]
    assert len(cells) > 500
    for cell in cells:
        method, base = cell.method or "", cell.prior or "dit-xl-2-256"
        tuner, (split, sides) = METHODS.entry(method).prior_tuned_by, place_of(cell.dataset)
        protocol = field.protocol_here(method, cell.protocol, cell.paper.arxiv)
        found = published_beside(
            method, on(f"{tuner}({base})" if tuner else base), dataset=cell.dataset, split=split, resolution=sides[-1],
            protocol=protocol, ipc=None if cell.ipc == "full" else int(cell.ipc),
            student=field.student_here(protocol, cell.student),
        )  # fmt: skip
        assert cell.paper in found


def test_every_entry_of_what_was_made_otherwise_concerns_a_number() -> None:
    lines = [line for line in lines_of(FILE) if line["metric"] == "top1_best"]
    for entry in _all_made_otherwise():
        assert any(one is not None for one in (entry.prior, entry.protocol, entry.because))
        assert entry.protocol is None or entry.protocol in PROTOCOLS
        for printed in entry.printed:
            one = entry.model_copy(update={"printed": (printed,)})
            assert any(one.concerns(line) for line in lines), one


def test_a_row_on_another_prior_has_none_beside_it(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    protocol = resolve_protocol("hard-minimax-sgd")[1]
    for name in ("dit-xl-2-256", "sd-1.5"):
        made = {"prior": sha256(name.encode()).hexdigest(), "distill": {"prior_name": name}}
        folder.method("mgd3", [[31.0, 32.0], [31.5, 32.5]], protocol=protocol, student="resnet_ap10", **made)
    results = rows.read(folder.out)
    papers = {row.prior.name: bool(row.papers) for row in build(results).tables[0].rows if row.prior is not None}
    assert papers == {"dit-xl-2-256": True, "sd-1.5": False}
    assert [cell.prior for cell in reproduction.build(groups.group(results)).cells] == ["dit-xl-2-256"]


def test_a_field_of_another_prior_alone_is_not_run_here(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    protocol = resolve_protocol("hard-minimax-sgd")[1]
    made = {"prior": "5d" * 32, "distill": {"prior_name": "sd-1.5"}}
    folder.method("mgd3", [[31.0]], protocol=protocol, student="resnet_ap10", **made)
    tables = groups.group(rows.read(folder.out))
    assert field.counts(field.build(tables))["run"] == 0
    (unmatched,) = reproduction.build(tables).unmatched
    assert "of another prior" in unmatched.reason


def test_a_modified_protocol_has_none(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    protocol = resolve_protocol("hard-minimax-sgd[epochs=60]")[1]
    folder.method("random", [[31.0]], protocol=protocol, student="resnet_ap10")
    board = build(rows.read(folder.out))
    assert board.tables[0].rows[0].papers == ()
    assert "| paper |" not in formats.markdown(board)

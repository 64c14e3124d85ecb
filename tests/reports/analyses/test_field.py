"""Every published number is run, can be run with the command that is given, or has a reason."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS
from ddbench.benchmark.planning.contestants import contestants
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.reports.analyses import field
from ddbench.reports.results import groups, rows
from ddbench.reports.results.paper_numbers import all_published


def test_every_number_has_a_command_or_a_reason() -> None:
    cells = field.build([])
    assert len(cells) == len(all_published()) > 900
    counts = field.counts(cells)
    assert counts["run"] == 0
    assert counts["can be run"] > 400
    assert sum(counts.values()) == len(cells)
    for cell in cells:
        assert cell.how.startswith("bench run -m ") == (cell.standing == "can be run")
    reasons = {cell.how for cell in cells if cell.standing == "cannot"}
    assert not [reason for reason in reasons if "no such" in reason], "a reason says what is missing"


def test_the_commands_are_ones_that_plan() -> None:
    seen: set[tuple[str, ...]] = set()
    for cell in field.build([]):
        if cell.standing != "can be run":
            continue
        words = shlex.split(cell.how)[2:]
        given = dict(zip(words[::2], words[1::2], strict=True))
        protocol, _ = resolve_protocol(given["--protocol"])
        protocol.check_student(given["--student"], 224)
        ipc = int(given["--ipc"]) if "--ipc" in given else None
        protocol.rate_of(given["-d"], given["--student"], ipc)
        protocol.teachers_for(given["-d"], ipc)
        assert (given.get("--ipc", "full"), given["-d"]) == (cell.ipc, cell.dataset)
        if (given["-m"], given["-d"]) not in seen:
            seen.add((given["-m"], given["-d"]))
            assert contestants(given["-m"], DATASETS.load(given["-d"]), {}, set())
    assert len(seen) > 40


def test_evaluators_with_several_teachers_have_their_numbers() -> None:
    cells = field.build([])
    can = Counter((cell.protocol, cell.method) for cell in cells if cell.standing == "can be run")
    assert {key: count for key, count in can.items() if key[0].startswith(("soft-bssl", "soft-gvbsm", "soft-edc"))} == {
        ("soft-bssl-1", "fadrm"): 26,
        ("soft-bssl-4", "fadrm-plus"): 26,
        ("soft-bssl-5", "cv-dd"): 18,
        ("soft-bssl-1-cvdd", "sre2l-pp"): 18,
        ("soft-bssl-5-64", "cv-dd"): 9,
        ("soft-bssl-1-cvdd-64", "sre2l-pp"): 9,
        ("soft-gvbsm", "g-vbsm"): 9,
        ("soft-edc-linear", "edc"): 9,
    }
    nowhere = {cell.how for cell in cells if cell.protocol == "soft-bssl-4" and cell.standing == "cannot"}
    assert nowhere == {"the program of soft-bssl-4@1 has no learning rate for resnet101_bn on nette at IPC 10"}, (
        "its script cannot run it, though the table has a number"
    )
    woof = {cell.how for cell in cells if (cell.method, cell.dataset) == ("cv-dd", "woof")}
    assert len(woof) == 9
    assert all(reason.startswith("the program of soft-bssl-5@1 has no learning rate for resnet") for reason in woof)


def test_codas_numbers_are_of_sdxl_and_not_of_a_method_called_sd() -> None:
    rows = {cell.paper.printed_as: cell for cell in field.build([]) if cell.paper.arxiv == "2512.03844"}
    assert rows["SDXL unguided (gamma=0)"].how == (
        "bench run -m 'coda[guidance_scale=0]' -d woof --ipc 10 --protocol hard-minimax-sgd --student resnet_ap10 "
        "--prior sdxl"
    )
    assert rows["CoDA as released (ImageNet split)"].method == "coda-real", "its script trains on the real images"
    assert (rows["CoDA (SDXL)"].method, rows["CoDA (SDXL)"].prior) == ("coda", "sdxl")
    assert "--prior sdxl" in rows["SDXL guided, k-means on raw VAE latents"].how
    assert field.known_of("SD") == "sd"
    assert field.known_of("LDM + D4M") == "ldm"
    assert field.known_of("SDXL unguided") is None


def test_tiny_imagenets_numbers_run_at_its_own_side() -> None:
    """Its published students are networks for 64 px, and two of its numbers are of a program that is not here."""
    cells = [cell for cell in field.build([]) if cell.dataset == "tiny-imagenet"]
    can = Counter((cell.protocol, cell.method) for cell in cells if cell.standing == "can be run")
    assert can == {
        ("soft-bssl-5-64", "cv-dd"): 9,
        ("soft-bssl-1-cvdd-64", "sre2l-pp"): 9,
        ("soft-delt-64", "delt"): 6,
        ("soft-rded-whole-64", "sre2l"): 4,
    }
    commands = {cell.how for cell in cells if cell.protocol == "soft-bssl-5-64" and cell.ipc == "10"}
    assert commands == {
        f"bench run -m cv-dd -d tiny-imagenet --ipc 10 --protocol soft-bssl-5-64 --student {student}"
        for student in ("resnet18_cifar", "resnet50_cifar", "resnet101_cifar")
    }
    others = [cell for cell in cells if cell.standing == "cannot"]
    assert [(cell.ipc, cell.student, cell.paper.value) for cell in others] == [
        ("50", "resnet101", 42.5), ("50", "resnet18", 41.1),
    ]  # fmt: skip
    assert all("zeyuanyin/tiny-imagenet" in cell.how and "warm-up" in cell.how for cell in others)


def test_students_of_small_images_are_not_those_of_224_px() -> None:
    assert field._of_another_size(PROTOCOLS.load("soft-fkd"), "tiny-imagenet") == (
        "soft-fkd@1 trains at 224 px, and the published students of tiny-imagenet are networks for its 64 px"
    )
    assert field._of_another_size(PROTOCOLS.load("soft-delt-64"), "tiny-imagenet") is None
    assert field._of_another_size(PROTOCOLS.load("soft-fkd"), "woof") is None


def test_what_was_run_shows_both_numbers(tmp_path: Path, make_folder: Any) -> None:
    folder = make_folder(tmp_path / "runs", dataset="woof", split="imagenet", resolution=224)
    protocol = resolve_protocol("hard-minimax-sgd")[1]
    for seed, best in enumerate((31.0, 33.0)):
        made_by = folder.distill_spec("random", seed=seed)
        spec = folder.evaluate_spec(made_by, seed=seed, protocol=protocol, student="resnet_ap10")
        folder.student(spec, "random", 30.0, images=folder.distill(made_by), made_by=made_by, best=best)
    tables = groups.group(rows.read(folder.out))
    run = [cell for cell in field.build(tables) if cell.standing == "run"]
    assert run
    for cell in run:
        assert (cell.method, cell.dataset, cell.ipc, cell.protocol) == ("random", "woof", "10", "hard-minimax-sgd")
        assert (cell.acc_best, cell.table) == (pytest.approx(32.0), tables[0].title)
    assert 29.4 in {cell.paper.value for cell in run}


def test_names_that_are_not_here_are_not_registered() -> None:
    for registry in (METHODS, DATASETS, PROTOCOLS):
        assert registry.unavailable
        assert not registry.unavailable.keys() & {entry.name for entry in registry}
        assert all(len(reason) > 15 for reason in registry.unavailable.values())

"""Numbers become classes by a list that was named; what no list says is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.foreign.class_order import class_order, fitting_orders, read_list
from ddbench.datasets.imagenet.classes import IMAGENET_1K, NETTE, WOOF

NETTE_INDICES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""Nette's classes among the 1000, as every program for it lists them."""


def test_named_orders() -> None:
    by_index = dict(zip(NETTE_INDICES, NETTE, strict=True))
    assert class_order("imagenet", NETTE, NETTE_INDICES) == by_index
    assert class_order("imagenet", NETTE, range(10)) == dict(enumerate(NETTE))
    assert class_order("sorted", WOOF, [9, 0, 0]) == {0: sorted(WOOF)[0], 9: sorted(WOOF)[9]}
    assert class_order("dataset", WOOF, range(10)) == dict(enumerate(WOOF))
    assert class_order("imagenet", WOOF, range(10)) == dict(enumerate(sorted(WOOF)))
    assert class_order("imagenet", IMAGENET_1K, range(1000)) == dict(enumerate(IMAGENET_1K))
    assert class_order("sorted", tuple("0123456789"), [3]) == {3: "3"}


@pytest.mark.parametrize(
    ("order", "numbers", "said"),
    [
        ("imagenet", [0, 1, 217], "number 1 is class n01443537, which is none of the dataset's"),
        ("sorted", range(1, 11), "number 10 is no class .1 of 10 numbers"),
        ("alphabetical", [0], "expected imagenet, sorted, dataset or a file"),
    ],
)
def test_numbers_that_mean_no_class_are_refused(order: str, numbers: list[int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        class_order(order, NETTE, numbers)


def test_imagenets_order_is_none_of_digits() -> None:
    with pytest.raises(UsageError, match="not ImageNet's"):
        class_order("imagenet", tuple("0123456789"), [0])


def test_a_number_of_two_meanings_is_refused() -> None:
    """Classes 1 and 0 of the 1000 and a third: number 1 is the second of the 1000 and the second of the subset."""
    with pytest.raises(UsageError, match="both"):
        class_order("imagenet", (IMAGENET_1K[1], IMAGENET_1K[2], IMAGENET_1K[5]), [1, 2])


@pytest.mark.parametrize(
    "line", ["{c}", "{n} {c}", "{n:05d}\t{c}", "{n},{c}", "{c} {n}", "{n},{c},tench", "{c} tench, Tinca tinca"]
)
def test_a_file_says_the_order(tmp_path: Path, line: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(line.format(n=n, c=c) for n, c in enumerate(WOOF)) + "\n\n")
    assert class_order(str(file), WOOF, range(10)) == dict(enumerate(WOOF))


def test_numbers_behind_class_ids_count_and_not_lines(tmp_path: Path) -> None:
    """ILSVRC's map_clsloc.txt numbers from 1, and words follow."""
    file = tmp_path / "map_clsloc.txt"
    file.write_text("".join(f"{c} {n} some_name\n" for n, c in enumerate(NETTE, start=1)))
    assert class_order(str(file), NETTE, range(1, 11)) == dict(enumerate(NETTE, start=1))
    with pytest.raises(UsageError, match="number 0 is no class"):
        class_order(str(file), NETTE, range(10))


@pytest.mark.parametrize("line", ["{c}", "{n} {c}", "{c} {n}"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(line.format(n=n, c=c) for n, c in enumerate(WOOF)), encoding="utf-8-sig")
    assert class_order(str(file), WOOF, range(10)) == dict(enumerate(WOOF))


def test_a_file_names_folders(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("English springer n02102040\ngas_pump,n03425413\n")
    assert read_list(str(file), NETTE) == {"English springer": "n02102040", "gas_pump": "n03425413"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tench\n", "'tench' names no class id"),
        (f"{NETTE[0]}\n{NETTE[0]}\n", "class n01440764 is there twice"),
        (f"0 {NETTE[0]}\n00 {NETTE[1]}\n", "number 0 is there twice"),
        (f"{NETTE[0]}\n1 {NETTE[1]}\n", "got both"),
        ("", "the file is empty"),
        (b"\xff\xfe\x00\x80", "it is no text"),
    ],
)
def test_a_file_that_is_no_list_of_classes(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError, match=said):
        class_order(str(file), NETTE, [0])


def test_proposals_are_the_orders_that_fit() -> None:
    assert list(fitting_orders(NETTE, NETTE_INDICES)) == ["imagenet"]
    assert len({str(mapping) for mapping in fitting_orders(NETTE, range(10)).values()}) == 1
    woof = fitting_orders(WOOF, range(10))
    assert woof["sorted"] == woof["imagenet"] != woof["dataset"]
    assert fitting_orders(NETTE, [1, 2, 11]) == {}

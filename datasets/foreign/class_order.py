"""Which number is which class in a set made elsewhere: of a label in a tensor, or of a folder `new003`.

A number means a class only together with a list, and published programs use different ones: a user says which
(`--class-order`), nothing here guesses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import read_regular
from ddbench.datasets.imagenet.classes import IMAGENET_1K

ORDERS: Mapping[str, str] = {
    "imagenet": "positions in the 1000 classes of ImageNet, or, counted from 0, in the dataset's classes in that order",
    "sorted": "positions in the dataset's class ids, sorted as text (as torchvision's ImageFolder counts)",
    "dataset": "positions in the dataset's own label order",
}
"""What `--class-order` takes besides a file, and what each means."""
WNID = re.compile(r"n\d{8}")


def class_order(order: str, class_ids: Sequence[str], numbers: Collection[int]) -> dict[int, str]:
    """The class of each number that occurs.

    Args:
        order: one of `ORDERS`, or a file: a class id a line (the first is number 0), or lines `number class-id`.
        class_ids: the dataset's, in label order.
        numbers: the labels of a set, or the numbers of its folders; each once or often.

    Returns:
        number -> class id, for all of `numbers`.

    Raises:
        UsageError: no such order or file, a file that is no list of classes, or a number that means none of the
            dataset's classes in it.
    """
    wanted = sorted(set(numbers))
    fitting, wrong = [], ""
    for index_to_class in _candidates(order, class_ids):
        strange = [n for n in wanted if index_to_class.get(n) not in class_ids]
        if not strange:
            fitting.append({n: index_to_class[n] for n in wanted})
        elif not wrong:
            meant = index_to_class.get(strange[0])
            is_class = "no class" if meant is None else f"class {meant}, which is none of the dataset's"
            wrong = f"number {strange[0]} is {is_class} ({len(strange)} of {len(wanted)} numbers mean none of them)"
    if not fitting:
        raise UsageError(f"--class-order {order}: {wrong}; the set's numbers are {wanted[0]} to {wanted[-1]}")
    if any(mapping != fitting[0] for mapping in fitting):
        raise UsageError(
            f"--class-order {order}: the numbers {wanted[0]} to {wanted[-1]} mean some of the dataset's classes both "
            "among ImageNet's 1000 and counted from 0; say which in a file of lines `number class-id`"
        )
    return fitting[0]


def fitting_orders(class_ids: Sequence[str], numbers: Collection[int]) -> dict[str, dict[int, str]]:
    """Each of `ORDERS` in which all numbers mean classes of the dataset -> number -> class id. For proposals: orders
    that agree are all there; the first is to be named first."""
    found = {}
    for order in ("sorted", "imagenet", "dataset"):
        try:
            found[order] = class_order(order, class_ids, numbers)
        except UsageError:
            continue
    return found


def _candidates(order: str, class_ids: Sequence[str]) -> Iterator[Mapping[int, str]]:
    """The lists that an order may mean, number -> class id; several of `imagenet`, which the numbers tell apart."""
    if order == "imagenet":
        if not set(class_ids) <= set(IMAGENET_1K):
            raise UsageError(
                "--class-order imagenet: the dataset's classes are not ImageNet's; expected sorted, dataset or a file"
            )
        yield dict(enumerate(IMAGENET_1K))
        yield dict(enumerate(sorted(class_ids, key=IMAGENET_1K.index)))
    elif order == "sorted":
        yield dict(enumerate(sorted(class_ids)))
    elif order == "dataset":
        yield dict(enumerate(class_ids))
    else:
        yield {int(key): c for key, c in read_list(order, class_ids).items() if key.isdecimal()}


def read_list(file: str, class_ids: Sequence[str]) -> dict[str, str]:
    """A file's folder names or numbers -> class ids.

    Lines are a class id each, whose number is its line's from 0 (words may follow a wnid: `n01440764 tench`); or a
    folder's name or number and a class id, with a space, tab or comma between; or a class id and its number (words may
    follow here too).

    Raises:
        UsageError: no such file, a line without a class id, a mixture of these, or one of them twice.
    """
    try:
        text = read_regular(Path(file).expanduser()).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"--class-order {file}: expected {', '.join(ORDERS)} or a file with a class id a line ({why})"
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = [_row(file, line, class_ids) for line in lines]
    if len({key is None for key, _ in rows}) > 1:
        raise UsageError(f"--class-order {file}: expected either class ids alone or lines `folder class-id`, got both")
    keyed = [(str(i) if key is None else _without_zeros(key), class_id) for i, (key, class_id) in enumerate(rows)]
    for what, seen in (("folder or number", [key for key, _ in keyed]), ("class", [c for _, c in keyed])):
        twice = next((one for one in seen if seen.count(one) > 1), None)
        if twice is not None:
            raise UsageError(f"--class-order {file}: {what} {twice} is there twice")
    if not keyed:
        raise UsageError(f"--class-order {file}: the file is empty; expected a class id a line")
    return dict(keyed)


def _row(file: str, line: str, class_ids: Sequence[str]) -> tuple[str | None, str]:
    """(folder or number, None where the line's position is meant; class id)."""
    words = [word for word in re.split(r"[\s,]+", line) if word]
    at = [i for i, word in enumerate(words) if word in class_ids or WNID.fullmatch(word)]
    if not at:
        raise UsageError(
            f"--class-order {file}: {line!r} names no class id; expected such as {class_ids[0]}, or `3 {class_ids[0]}`"
        )
    last = at[-1]
    if last:
        before = line[: line.rindex(words[last])] if last == len(words) - 1 else line[: line.index(words[last])]
        return before.strip(" \t,"), words[last]
    if len(words) > 1 and words[1].isdecimal():  # also `n02119789 1 kit_fox`, as ILSVRC's map_clsloc.txt has them
        return words[1], words[0]
    if len(words) > 1 and not WNID.fullmatch(words[0]):
        raise UsageError(f"--class-order {file}: {line!r}: expected a class id, or `folder class-id`")
    return None, words[0]


def _without_zeros(key: str) -> str:
    """`00003` as `3`: one number, however it is padded."""
    return str(int(key)) if key.isdecimal() else key

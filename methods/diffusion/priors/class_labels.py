"""Which class each label of a prior's network is: a list in label order, or a map for a network of which only some
labels are known. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.file_kinds import check_kind, read_object

WNID = re.compile(r"n\d{8}")


def class_list(class_ids: Mapping[str, Any], null_label: Any) -> list[str | None]:
    """A map class id -> label as the list that it means, None at the labels that it does not name.

    Raises:
        UsageError: a label that is no whole number below the null label, or two classes of one label.
    """
    if type(null_label) is not int or not 0 < null_label <= 10**6:
        raise UsageError(f"a map of class_ids needs null_label, the network's number of classes; got {null_label!r}")
    listed: list[str | None] = [None] * null_label
    for class_id, label in class_ids.items():
        if type(label) is not int or not 0 <= label < null_label:
            raise UsageError(
                f"class_ids maps {class_id!r} to {label!r}; expected a label from 0 to {null_label - 1}, below "
                "null_label"
            )
        if listed[label] is not None:
            raise UsageError(f"class_ids maps both {listed[label]!r} and {class_id!r} to label {label}")
        listed[label] = class_id
    return listed


def read_class_ids(file: Path) -> list[str] | dict[str, Any]:
    """Class ids from a file: JSON, a list in label order or an object class id -> label; or lines of text, a class id
    each in label order (words may follow a wnid: `n01440764 tench`), or `label class-id` each.

    Raises:
        UsageError: no such file, or none of these.
    """
    if not file.is_file():
        raise UsageError(f"--class-ids {file}: no such file")
    head = check_kind(file).lstrip()
    if head.startswith(b"{"):
        return read_object(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
        if head.startswith(b"["):
            listed = json.loads(text)
            if all(isinstance(one, str) for one in listed):
                return list(listed)
            raise ValueError("expected a list of texts")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--class-ids {file}: no list of class ids ({error})") from None
    lines = [re.split(r"[\s,]+", line.strip()) for line in text.splitlines() if line.strip()]
    if lines and all(len(words) == 2 and words[0].isdecimal() for words in lines):
        if len({class_id for _, class_id in lines}) < len(lines):
            raise UsageError(f"--class-ids {file}: a class id is there twice")
        return {class_id: int(label) for label, class_id in lines}
    for words in lines:
        if len(words) > 1 and not WNID.fullmatch(words[0]):
            raise UsageError(
                f"--class-ids {file}: {' '.join(words)!r}; expected a class id a line in label order, or "
                "`label class-id` on every line"
            )
    if not lines:
        raise UsageError(f"--class-ids {file}: the file holds no class ids")
    return [words[0] for words in lines]

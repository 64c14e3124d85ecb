"""ImageNet's classes: 1,000 wnids in the label order of every 1000-class network and prior, and the subsets' lists."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

LISTS = Path(__file__).parents[1] / "class_lists"


def _imagenet_1k() -> dict[str, str]:
    with (LISTS / "imagenet1k_classes.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
    return {row["wnid"]: row["name"] for row in rows}


CLASS_NAMES: Mapping[str, str] = _imagenet_1k()
"""Names of the classes, wnid -> name, in label order: position 0 is n01440764. Two pairs of classes share a name, wnids
are unique."""
IMAGENET_1K = tuple(CLASS_NAMES)
IMAGENET_100 = tuple((LISTS / "imagenet100_wnids.txt").read_text(encoding="utf-8").split())
"""ImageNet-100's classes, in the list and the order of the distillation papers (IDC, Minimax)."""
WOOF = (
    "n02096294", "n02093754", "n02111889", "n02088364", "n02086240",
    "n02089973", "n02087394", "n02115641", "n02099601", "n02105641",
)  # fmt: skip
NETTE = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
)  # fmt: skip

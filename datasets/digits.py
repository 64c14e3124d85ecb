"""Digits: 1,797 real handwritten digits of 8×8 pixels that ship with scikit-learn (UCI "Optical Recognition of
Handwritten Digits", its test part). The embedded dataset: it needs no download and runs everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets.base import ArraySource, Dataset, Default, Headline, SplitData
from ddbench.datasets.hashing import content_hash, split_hash

SPLIT_FILE = Path(__file__).with_name("digits_split.json")
"""Part (train, test, validation ⊂ train) -> class id -> positions in scikit-learn's array. The list is what counts;
its `made_by` says how it was drawn."""

CLASSIFIER = {
    "network": Default("convnet3", "the one student network that works at 8 px"),
    "epochs": Default(20, "98.0 % on the 101 validation images; 10 epochs give 94.1 %, 5 give 87.1 % (one run each)"),
    "optimiser": Default(
        "adamw", "that of quick@1; 20 epochs of SGD at 0.01 give 93.1 % on the validation images (one run)"
    ),
    "learning_rate": Default(1e-3, "that of quick@1 for this network"),
    "augmentation": Default(
        "affine", "that of quick@1: a mirrored digit is another sign, and there is no colour to change"
    ),
    "cutmix": Default(False, "off in quick@1, and boxes of a few pixels hide the sign"),
    "normalisation": Default("half", "that of quick@1: it needs no statistics of the data"),
}
"""How a method's classifier is trained on digits."""
RECORDED = {
    **{key: default for key, default in CLASSIFIER.items() if key != "cutmix"},
    "batch_size": Default(64, "that of quick@1; in batches of 256, twenty epochs would be 80 steps"),
}
"""How one is trained whose training is recorded."""


TEACHER = {
    "network": Default(
        "timm:test_resnet",
        "a small network with BatchNorm that works at 8 px: 97.0 % on the 101 validation images (one run)",
    ),
    "flip": Default(False, "a mirrored digit is another sign"),
    "steps": Default(400, "4,000 on images of 64 pixels would take minutes where hundreds take seconds"),
}
"""What methods that invert classifiers need besides."""
UNMIRRORED = {"flip": Default(False, "a mirrored digit is not of its class")}
GENERALISED = {
    "network": Default("timm:test_resnet+timm:test_efficientnet", "small networks with BatchNorm that work at 8 px"),
    "batch": Default(
        10, "all ten classes at IPC 1 and one at IPC 10; the programs' 40 and 20 are a graphics card's share of 80"
    ),
}
"""The same of those that match statistics of convolutions, too."""


CLUSTERS = {
    "n_neighbors": Default(
        15, "the program's own default; the script's 85 are for classes of 1,300 images, these have about 107"
    ),
    "min_cluster_size": Default(
        5, "the program's own default; of the script's 55 a class of about 107 holds one or none"
    ),
}
"""How CoDA clusters digits."""


class Digits(Dataset):
    """scikit-learn's digits under a fixed stratified 60/40 split: 8×8 greyscale, classes "0" … "9".

    Pixels are round(v · 255/16) of scikit-learn's v in 0 … 16. The image at position 14 of scikit-learn's array, a
    four, is called `4/0014.png`.
    """

    name = "digits"
    class_ids = tuple("0123456789")
    class_names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    resolution = 8
    resolutions = (8,)
    useful_threads = 1  # a batch of 8×8 images is too little work to share: a second thread costs more than it saves
    channels = 1
    splits = ("default",)
    headline = Headline(protocol="quick", student="convnet3", ipc=(1, 10), sets=3, students=3)
    prior = "digits"
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {
        "dmgd": {
            "cfg_scale": Default(
                4.0,
                "the program's own carries over: on the validation part (mean of IPC 1 and 10), 1 to 2 are 6.2 to 1.0 "
                "points behind 3, and 4 is 0.4 ± 0.5 behind it; the plain prior agrees (docs/digits.md)",
                on_validation=True,
            ),
            "ot_scale": Default(
                0.5,
                "the program's own carries over: on the validation part, 0.05, 1.5 and no transport at all differ from "
                "it by -0.3, +0.3 and +0.1 ± 0.3 points (docs/digits.md)",
                on_validation=True,
            ),
        },
        "minimax": UNMIRRORED,
        "ims3-im": UNMIRRORED,
        "coda": CLUSTERS,
        "coda-real": CLUSTERS,
        "herding": CLASSIFIER,
        "k-center": CLASSIFIER,
        **dict.fromkeys(("el2n", "forgetting", "aum", "ccs"), RECORDED),
        "rded": CLASSIFIER,
        "cao2": CLASSIFIER,
        "ims3-s3": CLASSIFIER,
        "igd": {
            **{key: default for key, default in CLASSIFIER.items() if key != "epochs"},
            "deviation_scale": Default(
                0.78,
                "the paper's 50 by 64/4096, a step of the same size relative to the latent: the gradient of a cosine "
                "shrinks with the latent's norm, the square root of how many numbers it has",
            ),
        },
        "dm": {
            "iterations": Default(
                100,
                "the loss under unseen networks, 8.0 at the start (IPC 1, two classes), is 1.92 after 25 steps, 1.68 "
                "after 100 and 1.63 after 200; 20,000 would take hours (docs/digits.md)",
            ),
            "network_image_size": Default(
                16,
                "at 8 px the last map of convnet3 is one pixel, and random weights embed noise as they embed digits",
            ),
            "augmentation": Default("color_crop_cutout_scale_rotate", "no flip: a mirrored digit is another sign"),
            "normalisation": Default("half", "that of quick@1: it needs no statistics of the data"),
        },
        "sre2l": {**CLASSIFIER, **TEACHER},
        "fadrm": {"steps": Default(200, "the share of SRe2L's steps that the program takes")},
        "fadrm-plus": {
            "steps": Default(200, "the share of SRe2L's steps that the program takes"),
            "network": Default(
                "timm:test_resnet+timm:test_efficientnet", "small networks with BatchNorm that work at 8 px"
            ),
        },
        "cv-dd": {
            "network": Default(
                "timm:test_resnet+timm:test_efficientnet",
                "small networks with BatchNorm that work at 8 px",
            ),
            "committee_scores": Default("1+1", "nobody has measured which of them distills better"),
        },
        "wmdd": {
            "steps": Default(200, "the share of SRe2L's steps that the program takes"),
            "statistics_weight": Default(10.0, "the program's for its other set of ten classes, ImageNette"),
        },
        "g-vbsm": GENERALISED,
        "edc": {
            **GENERALISED,
            "steps": Default(100, "the share of SRe2L's steps that the program takes"),
        },
        "dwa": {"steps": Default(200, "the share of SRe2L's steps that the program takes")},
        "dit-tuned": {
            "cfg_scale": Default(
                3.0,
                "for the bundled prior the best of 1, 1.5, 2, 3 and 4 on the validation part (mean of IPC 1 and 10), 4 "
                "is 0.3 ± 0.5 points behind it (docs/digits.md)",
                on_validation=True,
            ),
        },
    }

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        """Open the split. `data_dir` is not read: the images come with scikit-learn.

        Raises:
            UsageError: a split other than `default`, or a resolution other than 8.
            RunError: this scikit-learn's digits are not the ones that the split was made of.
        """
        self._check_split(split)
        if resolution != self.resolution:
            raise UsageError(f"digits are {self.resolution}×{self.resolution} pixels, got --resolution {resolution}")
        pixels = _pixels()
        parts = _split_file()
        train, test = (self._source(parts[part], pixels) for part in ("train", "test"))
        withheld = {name for name, _, _ in self._rows(parts["validation"])}
        return SplitData(
            name=split,
            train=train,
            test=test,
            split_hash=split_hash(train.names, test.names),
            content_hash=content_hash(train, test),
            validation=np.flatnonzero([name in withheld for name in train.names]),
        )

    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        self._check_split(split)
        return {class_id: len(positions) for class_id, positions in _split_file()["train"].items()}

    def split_hash(self, split: str, data_dir: Path | None) -> str:
        self._check_split(split)
        train, test = ([name for name, _, _ in self._rows(_split_file()[part])] for part in ("train", "test"))
        return split_hash(train, test)

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UsageError(f"digits has no split {split!r}; known: {', '.join(self.splits)}")

    def _rows(self, part: Mapping[str, list[int]]) -> list[tuple[str, int, int]]:
        """(name, class index, position) by class in label order, then by name (= by position, zero-padded)."""
        return [
            (f"{class_id}/{position:04d}.png", label, position)
            for label, class_id in enumerate(self.class_ids)
            for position in sorted(part[class_id])
        ]

    def _source(self, part: Mapping[str, list[int]], pixels: np.ndarray) -> ArraySource:
        names, labels, positions = zip(*self._rows(part), strict=True)
        return ArraySource(pixels[list(positions)], np.array(labels), names)


@cache
def _split_file() -> dict[str, dict[str, list[int]]]:
    return json.loads(SPLIT_FILE.read_text(encoding="utf-8"))


PIXELS_SHA256 = "a19cb3d96bba7deace8ee5a513a6eb7bad0403d528f00bf4d351b6a7a55baa91"
"""SHA-256 of all 1,797 images as uint8, then their labels as uint8."""


def _pixels() -> np.ndarray:
    """(1797, 8, 8, 1) uint8, in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    found = hashlib.sha256(pixels.tobytes() + digits.target.astype(np.uint8).tobytes()).hexdigest()
    if found != PIXELS_SHA256:
        raise RunError(
            f"expected the digits that the split was made of (SHA-256 {PIXELS_SHA256}), got {found} from the installed "
            "scikit-learn; install the version in constraints.txt"
        )
    return pixels[..., None]

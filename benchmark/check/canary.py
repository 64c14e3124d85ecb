"""Digits with planted test images: proof that a contestant under check has seen none."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ddbench.datasets.base import ImageSource, SplitData, Subset
from ddbench.datasets.digits import Digits
from ddbench.datasets.hashing import content_hash, split_hash

TRAIN_PER_CLASS = 20
RESEMBLES = 0.6
"""Correlation with the canary above which an image was made from it: five standard deviations of noise on 64 pixels."""


class Canary(ImageSource):
    """Test images that are chequerboards: no digit looks like one. Each read is noted with the place it came from."""

    def __init__(self, labels: np.ndarray, names: Sequence[str], image_size: int, channels: int) -> None:
        self.labels, self.names = labels, names
        self.reads: list[str] = []
        board = (np.indices((image_size, image_size)).sum(0) % 2 * 255).astype(np.uint8)
        self.board = np.repeat(board[..., None], channels, axis=-1)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        caller = traceback.extract_stack(limit=2)[0]
        self.reads.append(f"{Path(caller.filename).name}, line {caller.lineno}")
        return np.repeat(self.board[None], len(np.asarray(indices)), axis=0)

    def resembled_by(self, pixels: np.ndarray) -> bool:
        """Whether an image (H, W, C) uint8 is the chequerboard, its negative, or a mixture ruled by it."""
        if pixels.shape != self.board.shape or np.ptp(pixels) == 0:
            return False
        return abs(np.corrcoef(pixels.ravel(), self.board.ravel())[0, 1]) > RESEMBLES


class Watched(Subset):
    """Some training images; which have been looked at is noted."""

    def __init__(self, source: ImageSource, indices: np.ndarray) -> None:
        super().__init__(source, indices)
        self.seen: set[int] = set()

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        self.seen.update(np.atleast_1d(np.asarray(indices, np.int64)).tolist())
        return super().read(indices)


class Planted:
    """A small part of digits' training images, with the canary for a test set."""

    def __init__(self) -> None:
        whole = Digits().load("default", None, Digits.resolution)
        kept = np.concatenate([whole.train.of_class(c)[:TRAIN_PER_CLASS] for c in range(len(Digits.class_ids))])
        self.train = train = Watched(whole.train, kept)
        self.canary = Canary(whole.test.labels, whole.test.names, Digits.resolution, Digits.channels)
        self.real = whole.train
        """All training images, for a judge of labels; contestants see `split.train`."""
        every = (
            whole.train.read(np.setdiff1d(np.arange(len(whole.train)), kept)),
            whole.test.read(range(len(whole.test))),
        )
        seen = {pixels.tobytes() for pixels in train.read(range(len(train)))}
        self.held_out = {pixels.tobytes() for images in every for pixels in images} - seen
        """Real digits that nobody gave the contestant."""
        self.split = SplitData(
            name="default",
            train=train,
            test=self.canary,
            split_hash=split_hash(train.names, self.canary.names),
            content_hash=content_hash(train, self.canary),
            validation=np.concatenate([train.of_class(c)[-2:] for c in range(len(Digits.class_ids))]),
        )
        self.canary.reads.clear()
        train.seen.clear()

    @contextlib.contextmanager
    def as_digits(self) -> Iterator[None]:
        """While the block runs, the dataset `digits` is this one, whoever opens it."""

        def load(_self: Digits, _split: str, _data: Path | None, _resolution: int) -> SplitData:
            return self.split

        def train_counts(_self: Digits, _split: str, _data: Path | None) -> Mapping[str, int]:
            return dict.fromkeys(Digits.class_ids, TRAIN_PER_CLASS)

        planted = {"load": load, "train_counts": train_counts}
        before = {name: vars(Digits)[name] for name in planted}
        for name, function in planted.items():
            setattr(Digits, name, function)
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(Digits, name, function)

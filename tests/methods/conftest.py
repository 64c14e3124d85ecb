"""Tasks for methods under test, with an artefact cache in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.spec import digest
from ddbench.datasets.base import ArraySource, ImageSource
from ddbench.methods.base import DistilledImage, DistillTask


class MemoryCache:
    """Keeps arrays under kind and key, and notes what was made."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Mapping[str, np.ndarray]] = {}
        self.made: list[str] = []

    def arrays(
        self, kind: str, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        name = kind, digest(dict(key))
        if name not in self.kept:
            self.kept[name] = make()
            self.made.append(kind)
        return self.kept[name]


@pytest.fixture
def random_images() -> Callable[..., ArraySource]:
    """Random images of several classes, in the order of the contract."""

    def make(class_ids: Sequence[str], per_class: int = 12, image_size: int = 8, channels: int = 1) -> ArraySource:
        count = len(class_ids) * per_class
        pixels = np.random.default_rng(0).integers(0, 256, (count, image_size, image_size, channels), np.uint8)
        names = [f"{class_id}/{i:04d}.png" for class_id in class_ids for i in range(per_class)]
        return ArraySource(pixels, np.repeat(np.arange(len(class_ids)), per_class), names)

    return make


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., DistillTask]:
    """A task on the CPU; `phases` collects the phases that were entered."""

    def make(
        train: ImageSource,
        class_ids: Sequence[str],
        *,
        ipc: int | None = 1,
        classes: Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        prior: Any = None,
        done: Sequence[DistilledImage] = (),
        cache: MemoryCache | None = None,
        phases: list[str] | None = None,
        withheld: Sequence[int] = (),
    ) -> DistillTask:
        import torch

        from ddbench.benchmark.cells.classifiers import with_classifiers

        @contextmanager
        def phase(name: str) -> Iterator[None]:
            if phases is not None:
                phases.append(name)
            yield

        def load_prior() -> Any:
            assert prior is not None, "this method must not ask for a prior"
            return prior

        task = DistillTask(
            class_ids=tuple(class_ids),
            class_indices=tuple(range(len(class_ids)) if classes is None else classes),
            ipc=ipc,
            seed=seed,
            train=train,
            train_hash="random images",
            device=torch.device("cpu"),
            precision="fp32",
            batch_size=batch_size,
            scratch=tmp_path,
            done={(image.class_index, image.image_index): image for image in done},
            load_prior=load_prior,
            cache=MemoryCache() if cache is None else cache,
            phase=phase,
            progress=lambda note: None,
        )
        return with_classifiers(task, np.array(withheld, np.int64))

    return make


@pytest.fixture
def memory_cache() -> MemoryCache:
    return MemoryCache()

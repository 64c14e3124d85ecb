"""What lockstep saves and what DMGD's guidance costs, on the bundled digits prior. `make speed` prints the ratios.

Timings are benchmarks: no test here fails because a machine is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.dmgd.method import DMGD

PLAIN = {"semantic_matching": False, "distribution_matching": False}


class Kept:
    """Artefacts in memory, so that latents and support points are not part of what is timed."""

    def __init__(self) -> None:
        self.arrays_by_name: dict[str, Mapping[str, np.ndarray]] = {}

    def arrays(
        self, kind: str, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        name = f"{kind} {sorted(key.items())}"
        if name not in self.arrays_by_name:
            self.arrays_by_name[name] = make()
        return self.arrays_by_name[name]


@pytest.fixture(scope="module")
def prior() -> Prior:
    return Prior.load(find_prior("digits"))


@pytest.fixture(scope="module")
def distill(prior: Prior, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Callable[[], int]]:
    split = Digits().load("default", None, 8)
    cache, scratch = Kept(), tmp_path_factory.mktemp("scratch")

    def prepared(params: dict[str, Any], *, ipc: int, batch_size: int = 10) -> Callable[[], int]:
        """A function that distills ten classes of digits and returns the number of images."""
        task = DistillTask(
            class_ids=Digits.class_ids,
            class_indices=tuple(range(10)),
            ipc=ipc,
            seed=0,
            train=split.train,
            train_hash="digits",
            device=torch.device("cpu"),
            precision="fp32",
            batch_size=batch_size,
            scratch=Path(scratch),
            done={},
            load_prior=lambda: prior,
            cache=cache,
            phase=lambda name: nullcontext(),
            progress=lambda note: None,
        )
        method = DMGD(DMGD.Params(**params))
        method.prepare(task)

        def run() -> int:
            images: list[DistilledImage] = [image for finished in method.distill(task) for image in finished]
            return len(images)

        return run

    return prepared


@pytest.mark.benchmark(group="ten classes of digits, one image each")
@pytest.mark.parametrize("batch_size", [10, 1], ids=["lockstep", "one by one"])
def test_lockstep(benchmark: Any, distill: Callable[..., Callable[[], int]], batch_size: int) -> None:
    run = distill({}, ipc=1, batch_size=batch_size)
    assert benchmark.pedantic(run, rounds=15, warmup_rounds=2) == 10


@pytest.mark.benchmark(group="ten classes of digits, three images each")
@pytest.mark.parametrize("name", ["plain sampling", "dmgd-sm", "dmgd-dm", "dmgd"])
def test_guidance(benchmark: Any, distill: Callable[..., Callable[[], int]], name: str) -> None:
    params = {
        "plain sampling": PLAIN,
        "dmgd-sm": {"distribution_matching": False},
        "dmgd-dm": {"semantic_matching": False},
        "dmgd": {},
    }[name]
    assert benchmark.pedantic(distill(params, ipc=3), rounds=15, warmup_rounds=2) == 30

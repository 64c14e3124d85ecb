"""Small runs of one method as a cell makes them: rounds committed to disk, `task.done` the committed images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddbench.benchmark.cells.distill import make_task
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.cells.progress import Progress
from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec, MethodSpec, brackets
from ddbench.benchmark.core.store import CellDir, CellPlan, Launch, Store
from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistilledImage, Method

Images = Mapping[tuple[int, int], DistilledImage]
CLASSES = (0, 3, 7)
IPC = 2
BATCH = 64


class SmallRuns:
    """Runs of one contestant on planted digits, three classes, IPC 2, unless told otherwise.

    Args:
        method: the class; each run makes a new instance with `params`.
        root: an empty folder for cells and artefacts.
        prior_tuned_by: as the contestant's registry entry says.
        device: with its index, if it has one.
    """

    def __init__(
        self,
        method: type[Method],
        params: Any,
        planted: Planted,
        root: Path,
        prior_tuned_by: str | None = None,
        device: str = "cpu",
    ) -> None:
        import torch

        self.method, self.params, self.planted, self.root = method, params, planted, root
        self.device = torch.device(device)
        self.prior = "digits" if method.needs_prior else None
        if prior_tuned_by is not None:
            self.prior = f"{small_tuner(prior_tuned_by)}(digits)"
        self.prior_loads = 0
        self.latent_shape: tuple[int, ...] | None = None
        """The shape of latents in the space of the prior that a run loaded; None: none was loaded."""
        self._runs = 0

    def run(
        self,
        *,
        classes: tuple[int, ...] = CLASSES,
        ipc: int | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
        artefacts: str = "shared",
        cell: str | None = None,
        stop_after: int | None = None,
    ) -> Images:
        """Distill, or go on from what the folder `cell` holds.

        Args:
            artefacts: runs with the same word share what methods cache.
            stop_after: leave off after so many rounds of this run, as a killed cell does.

        Raises:
            RunError: the method broke its contract in a way that the engine notices.
            Exception: whatever the method raises.
        """
        from ddbench.benchmark.planning.prior_names import name_prior

        self._runs += 1
        ipc = None if self.method.whole_set else ipc or IPC
        folder = CellDir(self.root / artefacts / "cells" / (cell or f"run-{self._runs}"))
        folder.path.mkdir(parents=True, exist_ok=True)
        prior = None if self.prior is None else name_prior(self.prior, Digits)
        spec = DistillSpec(
            method=MethodSpec(
                name=self.method.name, version=self.method.version, params=self.params.model_dump(mode="json")
            ),
            dataset=DatasetSpec(name=Digits.name, split=self.planted.split.name, resolution=Digits.resolution),
            prior_sha256=None if prior is None else prior.sha256,
            ipc=ipc,
            seed=seed,
            precision="fp32",
            device_type="cuda" if self.device.type == "cuda" else "cpu",
        )
        rounds = Rounds(folder.path / "rounds", len(Digits.class_ids), ipc, Digits.channels)
        task = make_task(
            folder,
            spec,
            Launch(label=self.method.name, prior=self.prior, device=str(self.device)),
            CellPlan(batch_size=batch_size, threads=1),
            Store(self.root / artefacts),
            Meter(self.device, folder.path / "spent.json"),
            Progress(folder.path / "progress.json"),
            dataset=Digits(),
            split=self.planted.split,
            rounds=rounds,
            prior=prior,
        )
        load_prior = task.load_prior

        def counted() -> Any:
            self.prior_loads += 1
            prior = load_prior()
            self.latent_shape = prior.latent_shape
            return prior

        task = dataclasses.replace(task, class_indices=classes, load_prior=counted)
        method = self.method(self.params)
        method.prepare(task)
        for count, images in enumerate(method.distill(task), start=1):
            rounds.commit(images)
            if count == stop_after:
                break
        return {key: rounds[key] for key in rounds}

    def rounds_of(self, artefacts: str, cell: str) -> int:
        """How many rounds a run has committed to its folder."""
        return len(list((self.root / artefacts / "cells" / cell / "rounds").iterdir()))


def small_tuner(name: str) -> str:
    """The selector of a method that tunes priors, with those of its `check_params` that a tuning depends on."""
    method: type[Method] = METHODS.load(name)
    tuning = {} if method.tuning is None else method.tuning.model_fields
    return name + brackets({key: value for key, value in method.check_params.items() if key in tuning})

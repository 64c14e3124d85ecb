"""Golden cases of DMGD: the draws and latents of the authors' released program, brought into this one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ddbench.datasets.base import ArraySource
from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.batches import Batch
from ddbench.methods.diffusion.guidance import Guidance
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import PriorFiles
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata
from ddbench.methods.diffusion.sampler import sample
from ddbench.methods.dmgd.params import DMGDParams
from ddbench.methods.dmgd.terms import distribution_matching, semantic_matching


class ScriptedNoise:
    """The draws of a golden case, for some of its images."""

    def __init__(self, rows: Sequence[dict[str, Tensor]], others: Sequence[tuple[int, int]]) -> None:
        self.rows, self.others = rows, others

    def _stack(self, key: str) -> Tensor:
        return torch.stack([row[key] for row in self.rows])

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        return self._stack("initial_noise").reshape(-1, *shape)

    def step(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return self._stack("step_noise")[:, n].reshape(-1, *shape)

    def labels(self, steps: int, width: int, distribution: Literal["uniform", "normal"]) -> Tensor:
        return self._stack("label_noise").transpose(0, 1)

    def choice(self, n: int) -> Tensor:
        # The drawn number counts the other classes, leaving out the image's own.
        return torch.tensor([other - (other > own) for own, other in self.others])


def load_case(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], Prior]:
    """(case, inputs, expected outputs, prior on `device`); the tensors are the CPU's."""
    case = json.loads((folder / "case.json").read_text())
    prior = folder / "prior"
    metadata = PriorMetadata(
        space="latents",
        resolution=8,
        prediction="epsilon",
        learned_variance=True,
        schedule=NoiseScheduleMetadata(),
        freq_shift=0,
        norm_eps=1e-6,
        guided_channels=3,
        clip_denoised=False,
        latent_scale=1.0,
        class_ids=tuple(str(label) for label in range(case["null_label"])),
        null_label=case["null_label"],
    )
    files = PriorFiles("golden", prior, metadata, prior, None, "golden")
    inputs, expected = (load_file(folder / f"{part}.safetensors") for part in ("inputs", "expected"))
    return case, inputs, expected, Prior.load(files, device=device)


def params_of(case: dict[str, Any]) -> DMGDParams:
    semantic = case.get("semantic_matching", True)
    stages = {"label_t_lower": case["label_t_lower"], "label_t_upper": case["label_t_upper"]} if semantic else {}
    return DMGDParams(
        steps=case["steps"],
        cfg_scale=case["cfg_scale"],
        semantic_matching=semantic,
        distribution_matching=case.get("distribution_matching", True),
        label_noise_weight=case["label_noise_weight"],
        label_mix_weight=case["label_mix_weight"],
        ot_scale=case["guidance_scale"],
        ot_epsilon=case["ot_epsilon"],
        ot_iterations=case["ot_iterations"],
        ot_window_first=case["ot_window"][0],
        ot_window_last=case["ot_window"][1],
        **stages,
    )


def task_for(
    prior: Prior, classes: Sequence[int], ipc: int, done: Sequence[DistilledImage] = (), batch_size: int = 64
) -> DistillTask:
    return DistillTask(
        class_ids=prior.metadata.class_ids,
        class_indices=tuple(classes),
        ipc=ipc,
        seed=0,
        train=ArraySource(np.zeros((0, 8, 8, 4), np.uint8), np.zeros(0, np.int64), []),
        train_hash="",
        device=prior.device,
        precision="fp32",
        batch_size=batch_size,
        scratch=Path(),
        done={(image.class_index, image.image_index): image for image in done},
        load_prior=lambda: prior,
        cache=SimpleNamespace(),  # type: ignore[arg-type]
        phase=lambda name: nullcontext(),
        progress=lambda note: None,
    )


def masses(counts: Tensor) -> np.ndarray:
    return (counts / counts.sum()).numpy()


@dataclass(frozen=True)
class EveryStep:
    """What sampling a case's image gave, step by step, and what it was given."""

    task: DistillTask
    noise: ScriptedNoise
    support: Mapping[int, Mapping[str, np.ndarray]]
    trajectory: Tensor
    """The latent after each step, (S, C, h, w)."""
    latent: Tensor
    costs: Tensor
    """Of transport, in the order of its steps."""


def every_step(case: dict[str, Any], inputs: dict[str, Tensor], prior: Prior) -> EveryStep:
    """Sample the image of a `dmgd` case with its draws; outputs are on the CPU."""
    own, other = case["class_label"], case["random_label"]
    noise = ScriptedNoise(
        [{key: inputs[key] for key in ("initial_noise", "step_noise", "label_noise")}], [(own, other)]
    )
    support = {own: {"points": inputs["support"].numpy(), "masses": masses(inputs["counts"])}}
    index = len(inputs["memory"])
    done = [DistilledImage(own, i, np.zeros((8, 8, 4), np.uint8), z.numpy()) for i, z in enumerate(inputs["memory"])]
    task = task_for(prior, [own], index + 1, done)

    params, trajectory = params_of(case), list[Tensor]()
    batch = Batch(((own, index),), (ImageKey(str(own), index),), lambda step, z: trajectory.append(z[0]))
    terms: list[Guidance] = []
    if params.semantic_matching:
        terms.append(semantic_matching(task, prior, params, batch, noise))
    costs: list[Tensor] = []
    if params.distribution_matching:
        memory = {own: list(inputs["memory"].to(prior.device))}
        terms.append(distribution_matching(prior, params, support, batch, memory))
        costs = terms[-1].costs
    outcome = sample(
        prior, batch.images, terms, noise, steps=case["steps"], cfg_scale=case["cfg_scale"], on_step=batch.on_step
    )
    return EveryStep(
        task,
        noise,
        support,
        torch.stack(trajectory).cpu(),
        outcome.latents[0].cpu(),
        torch.cat([torch.zeros(0), *(cost.cpu() for cost in costs)]),
    )

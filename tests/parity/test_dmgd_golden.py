"""DMGD against the authors' released program, through the sampler and the rounds that make real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
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
from ddbench.methods.dmgd.distribution import DistributionMatching
from ddbench.methods.dmgd.method import DMGD
from ddbench.methods.dmgd.params import DMGDParams
from ddbench.methods.dmgd.terms import distribution_matching, semantic_matching

TOLERANCE = {"rtol": 0, "atol": 1e-4}


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


Scripted = Callable[[Sequence[ImageKey]], ScriptedNoise]
Distilled = tuple[list[list[DistilledImage]], list[DistributionMatching]]


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Distilled]:
    """The method's rounds with the noise of a golden case, and its transport terms, which know their costs."""

    def run(task: DistillTask, params: DMGDParams, support: Any, scripted: Scripted) -> Distilled:
        transport: list[DistributionMatching] = []

        def kept(*args: Any) -> DistributionMatching:
            transport.append(distribution_matching(*args))
            return transport[-1]

        method = DMGD(params)
        method._support = support
        with monkeypatch.context() as patch:
            patch.setattr("ddbench.methods.diffusion.noise.StreamNoise", lambda stream, images: scripted(images))
            patch.setattr("ddbench.methods.dmgd.terms.distribution_matching", kept)
            return list(method.distill(task)), transport

    return run


def load_case(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], Prior]:
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
    return case, inputs, expected, Prior.load(files)


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


@pytest.mark.golden("dmgd")
def test_every_step_equals_the_released_program(golden_case: Path, distill: Callable[..., Distilled]) -> None:
    case, inputs, expected, prior = load_case(golden_case)
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
        terms.append(distribution_matching(prior, params, support, batch, {own: list(inputs["memory"])}))
        costs = terms[-1].costs
    outcome = sample(
        prior, batch.images, terms, noise, steps=case["steps"], cfg_scale=case["cfg_scale"], on_step=batch.on_step
    )
    torch.testing.assert_close(torch.stack(trajectory), expected["trajectory"], **TOLERANCE)
    torch.testing.assert_close(outcome.latents[0], expected["trajectory"][-1], **TOLERANCE)
    torch.testing.assert_close(torch.cat([torch.zeros(0), *costs]), expected["ot_cost"], **TOLERANCE)

    # The same image through the method, with the memory as images that an earlier attempt committed.
    rounds, _ = distill(task, params, support, lambda images: noise)
    assert [(image.class_index, image.image_index) for images in rounds for image in images] == [(own, index)]
    torch.testing.assert_close(torch.from_numpy(rounds[0][0].latent), expected["trajectory"][-1], **TOLERANCE)


@pytest.mark.golden("greedy")
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_greedy_rounds_equal_the_released_loop(
    golden_case: Path, batch_size: int, distill: Callable[..., Distilled]
) -> None:
    case, inputs, expected, prior = load_case(golden_case)
    classes, ipc = case["classes"], case["images_per_class"]

    def noise(images: Sequence[ImageKey]) -> ScriptedNoise:
        where = [(classes.index(int(image.class_id)), image.image_index) for image in images]
        rows = [{key: inputs[key][at] for key in ("initial_noise", "step_noise", "label_noise")} for at in where]
        return ScriptedNoise(rows, [(classes[at[0]], int(inputs["random_labels"][at])) for at in where])

    support = {
        label: {"points": inputs["support"][c].numpy(), "masses": masses(inputs["counts"][c])}
        for c, label in enumerate(classes)
    }
    task = task_for(prior, classes, ipc, batch_size=batch_size)
    rounds, transport = distill(task, params_of(case), support, noise)

    latents, costs = torch.zeros_like(expected["latents"]), torch.zeros_like(expected["ot_cost"])
    assert len(rounds) == len(transport) == ipc * -(-len(classes) // batch_size)
    for images, term in zip(rounds, transport, strict=True):
        for row, image in enumerate(images):
            at = classes.index(image.class_index), image.image_index
            latents[at] = torch.from_numpy(image.latent)
            costs[at] = torch.stack(term.costs)[:, row]
            assert image.guidance_nats["transport"] > 0
    torch.testing.assert_close(latents, expected["latents"], **TOLERANCE)
    torch.testing.assert_close(costs, expected["ot_cost"], **TOLERANCE)

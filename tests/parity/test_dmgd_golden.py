"""DMGD against the authors' released program, through the sampler and the rounds that make real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import ScriptedNoise, every_step, load_case, masses, params_of, task_for

from ddbench.methods.base import DistilledImage, DistillTask
from ddbench.methods.diffusion.noise import ImageKey
from ddbench.methods.dmgd.distribution import DistributionMatching
from ddbench.methods.dmgd.method import DMGD
from ddbench.methods.dmgd.params import DMGDParams
from ddbench.methods.dmgd.terms import distribution_matching

TOLERANCE = {"rtol": 0, "atol": 1e-4}


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


@pytest.mark.golden("dmgd")
def test_every_step_equals_the_released_program(golden_case: Path, distill: Callable[..., Distilled]) -> None:
    case, inputs, expected, prior = load_case(golden_case)
    found = every_step(case, inputs, prior)
    torch.testing.assert_close(found.trajectory, expected["trajectory"], **TOLERANCE)
    torch.testing.assert_close(found.latent, expected["trajectory"][-1], **TOLERANCE)
    torch.testing.assert_close(found.costs, expected["ot_cost"], **TOLERANCE)

    # The same image through the method, with the memory as images that an earlier attempt committed.
    own, index = case["class_label"], len(inputs["memory"])
    rounds, _ = distill(found.task, params_of(case), found.support, lambda images: found.noise)
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

"""Crops, coresets, scores and matched distributions against released programs (`tests/golden_small/selection`)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from golden_networks import TwoConvolutions
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.cells.dynamics import Dynamics
from ddbench.datasets.base import ArraySource
from ddbench.methods.coresets import herding, k_center
from ddbench.methods.dm import siamese
from ddbench.methods.dm.matching import Matching
from ddbench.methods.dm.params import DMParams
from ddbench.methods.dynamics.choice import stratified
from ddbench.methods.normalisation import Normalisation
from ddbench.methods.rded import crops
from ddbench.methods.rded.crops import best_crops, collages
from ddbench.methods.rded.params import RDEDParams

FOLDER = Path(__file__).parents[1] / "golden_small" / "selection"


def load_case(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settings = json.loads((FOLDER / name / "case.json").read_text(encoding="utf-8"))
    return settings, load_file(FOLDER / name / "case.safetensors")


def source(pixels: Tensor, classes: int) -> ArraySource:
    per_class = len(pixels) // classes
    labels = np.repeat(np.arange(classes), per_class)
    return ArraySource(pixels.numpy(), labels, [f"{i // per_class}/{i % per_class}.png" for i in range(len(pixels))])


class Observer(TwoConvolutions):
    sha256, normalise = "golden", Normalisation("imagenet", torch.device("cpu"))

    def network(self) -> nn.Module:
        return self


@pytest.mark.parametrize("name", ["rded-collages", "rded-single"])
def test_crops_and_collages_are_rdeds(name: str, make_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same boxes of every image, whichever order images are looked at in: the same crops, in the same places."""
    case, tensors = load_case(name)
    train = source(tensors["pixels"], 2)
    task = make_task(train, ("0", "1"), ipc=case["ipc"], batch_size=16)
    weights = {k.removeprefix("teacher "): v for k, v in tensors.items() if k.startswith("teacher ")}
    boxes = dict(zip(train.names, tensors["boxes"].numpy(), strict=True))
    asked: list[str] = []

    plain = type(task).stream

    def stream(self: Any, purpose: str, *parts: Any) -> Any:
        """Of an image's crops, the image's name."""
        return parts[0] if purpose == "rded crops" else plain(self, purpose, *parts)

    def draw(count: int, side: int, min_scale: float, image: str) -> np.ndarray:
        assert (count, side, min_scale) == (case["crops"], train.images.shape[1], case["min_scale"])
        asked.append(image)
        return boxes[image]

    monkeypatch.setattr(type(task), "stream", stream)
    monkeypatch.setattr(crops, "draw_boxes", draw)
    params, side = RDEDParams(crops=case["crops"], factor=case["factor"]), train.images.shape[1]
    for c in (0, 1):
        best = best_crops(task, params, train, side, Observer(weights), c)
        found = collages(train, best, case["ipc"], case["factor"], side, task.device)
        levels = 255 * tensors["expected"][c].permute(0, 2, 3, 1).numpy()
        assert np.abs(found - levels).max() < 0.5 + 1e-3, "rounded here, truncated there"
    assert sorted(asked) == sorted(train.names)


def test_picks_are_those_of_idc_and_deepcore() -> None:
    case, tensors = load_case("coresets")
    for c, features in enumerate(tensors["features"].numpy().reshape(2, 30, -1)):
        assert herding(features, 12).tolist() == case["herding"][c]
        assert sorted(k_center(features, 12, case["k_center_first"][c]).tolist()) == case["k_center"][c]


def test_scores_are_those_of_ccs_program() -> None:
    case, tensors = load_case("dynamics")
    labels = tensors["labels"]
    recorded = Dynamics(len(labels), case["early_epochs"], torch.device("cpu"))
    for epoch, (order, outputs) in enumerate(zip(tensors["orders"], tensors["outputs"], strict=True), 1):
        forward = recorded.watched(nn.Identity(), order, labels, epoch)
        for batch in order.split(case["batch"]):
            forward(outputs[batch])
    found = recorded.scores()
    torch.testing.assert_close(found["el2n"], tensors["el2n"])
    torch.testing.assert_close(found["aum"], tensors["aum"])
    assert found["forgetting"].tolist() == case["forgetting"]
    assert max(case["forgetting"]) > 0


@pytest.mark.parametrize("place", range(4))
def test_strata_give_as_many_as_in_ccs_program(place: int) -> None:
    case, tensors = load_case("dynamics")
    scores, given = tensors[f"scores {place}"].numpy(), case["ccs"][place]
    share, count = given["left_out_share"], given["count"]
    found = stratified(scores, count, left_out_share=share, strata=50, stream=torch.Generator().manual_seed(0))
    rest = np.sort(scores)[int(share * len(scores)) :]
    edges = np.linspace(rest.min(), rest.max() * 1.0001, 51)
    pools, kept = (np.histogram(values, edges)[0].tolist() for values in (rest, scores[found]))
    # Of strata of one size, which is served first is left to an unstable sort there.
    assert sorted(zip(pools, kept, strict=True)) == [tuple(pair) for pair in given["strata"]]


class Embedding(nn.Module):
    """The network of one of DM's steps; what its linear layer takes is what is matched."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        (a, channels, *_), (b, *_) = weights["conv1.weight"].shape, weights["conv2.weight"].shape
        self.conv1, self.bn1 = nn.Conv2d(channels, a, 3, padding=1, bias=False), nn.GroupNorm(a, a)
        self.conv2, self.bn2 = nn.Conv2d(a, b, 3, stride=2, bias=False), nn.GroupNorm(b, b)
        self.fc = nn.Linear(4 * b, 2)
        self.load_state_dict(weights, strict=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


def test_steps_are_dms(make_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight iterations of the program, with all of its operations; draws, real images and networks are given."""
    case, tensors = load_case("dm")
    classes = tuple(str(c) for c in range(case["classes"]))
    networks = [
        Embedding({k.removeprefix(f"network {i} "): v for k, v in tensors.items() if k.startswith(f"network {i} ")})
        for i in range(case["iterations"])
    ]
    task = make_task(source(tensors["pixels"], len(classes)), classes, ipc=case["ipc"])
    task = dataclasses.replace(task, network=lambda name, side, purpose, iteration: networks[iteration])

    def real(self: Matching, class_index: int, count: int, stream: Any) -> np.ndarray:
        started = hasattr(self, "state")
        rows = case["real"][self.iteration][class_index] if started else case["starts"][class_index]
        assert count == (4 if started else case["ipc"])
        return self.task.train.read(self.task.train.of_class(class_index)[rows])

    draws = iter([row for rows in case["draws"] for row in rows])
    now: list[float] = []

    def randint(most: int, size: Any, generator: Any) -> Tensor:
        assert most == 6
        now[:] = next(draws)
        return torch.tensor(now[0])

    given = SimpleNamespace(**{k: getattr(torch, k) for k in dir(torch) if not k.startswith("_")})
    given.randint, given.rand = randint, lambda *size, **how: torch.tensor(now[1:], dtype=torch.float64)
    monkeypatch.setattr(siamese, "torch", given)
    monkeypatch.setattr(Matching, "_real_images", real)
    params = DMParams(iterations=case["iterations"], real_batch=4)
    matching = Matching(task, params, tuple(range(len(classes))))
    for number in range(case["iterations"]):
        matching.step()
        matching.iteration = number + 1
    found = matching.state["images"].flatten(0, 1)
    torch.testing.assert_close(found, tensors["expected"], rtol=0, atol=1e-5)

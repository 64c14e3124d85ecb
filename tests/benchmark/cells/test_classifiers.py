"""Classifiers that methods ask for: what they are trained on, what is kept, and that a cell can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddbench.benchmark.cells import classifiers
from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.classifiers import Classifier, train_classifier, with_classifiers
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import networks, pixels
from ddbench.datasets.base import ArraySource
from ddbench.methods.base import DistillTask
from ddbench.methods.classifier import ClassifierRecipe

CPU = torch.device("cpu")
RECIPE = ClassifierRecipe(
    network="convnet3",
    image_size=8,
    epochs=3,
    batch_size=16,
    augmentation="affine",
    mean=(0.5,),
    std=(0.5,),
    momentum=0.0,
)


def bars(n: int = 60, channels: int = 1, classes: int = 3) -> ArraySource:
    """Noisy images with a bright bar whose place tells the class, in the order of the contract."""
    labels = np.sort(np.arange(n) % classes)
    images = np.random.default_rng(0).integers(0, 60, (n, 8, 8, channels), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] = 250
    return ArraySource(images, labels, [f"{label}/{i:03d}" for i, label in enumerate(labels)])


@pytest.fixture
def task(tmp_path: Path) -> DistillTask:
    meter = Meter(CPU, tmp_path / "spent.json")
    source = bars()
    plain = DistillTask(
        class_ids=("a", "b", "c"), class_indices=(0, 1, 2), ipc=1, seed=0, train=source, train_hash="bars", device=CPU,
        precision="fp32", batch_size=8, scratch=tmp_path, done={}, load_prior=lambda: None,
        cache=DiskArtefacts(tmp_path / "artefacts", meter), phase=meter.phase, progress=lambda note: None,
    )  # fmt: skip
    return with_classifiers(plain, np.arange(0, 60, 10))


def plain_weights(recipe: ClassifierRecipe, source: ArraySource, kept: np.ndarray) -> Mapping[str, torch.Tensor]:
    """Weights after training without augmentation, by the recipe's text: unfused optimiser, image by image."""
    network = networks.build(recipe.network, 3, 8, 1, generator=seeds.stream(recipe.seed, "classifier", "init"))
    optimiser = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    images, labels = source.images[kept], torch.from_numpy(source.labels[kept])
    for epoch in range(1, recipe.epochs + 1):
        drops = (2 * recipe.epochs // 3, 5 * recipe.epochs // 6)
        optimiser.param_groups[0]["lr"] *= 0.2 ** drops.count(epoch - 1)
        order = torch.randperm(len(kept), generator=seeds.stream(recipe.seed, "classifier", "shuffle", epoch))
        for batch in order.split(recipe.batch_size):
            x = torch.stack([torch.from_numpy(images[i]).permute(2, 0, 1) / 255 * 2 - 1 for i in batch])
            optimiser.zero_grad()
            F.cross_entropy(network(x), labels[batch]).backward()
            optimiser.step()
    return network.state_dict()


def test_training_equals_a_plain_loop_over_what_is_not_withheld(task: DistillTask) -> None:
    recipe = RECIPE.model_copy(update={"augmentation": "none"})
    trained = task.trained_classifier(recipe)
    source = bars()
    expected = plain_weights(recipe, source, np.setdiff1d(np.arange(60), np.arange(0, 60, 10)))
    untrained = task.trained_classifier(recipe.model_copy(update={"epochs": 0})).network().state_dict()
    for name, tensor in trained.network().state_dict().items():
        assert (tensor - expected[name]).norm() < 0.01 * (tensor - untrained[name]).norm(), name


def test_it_learns_and_says_how_well_on_the_part_that_it_did_not_see(task: DistillTask) -> None:
    trained = task.trained_classifier(RECIPE.model_copy(update={"epochs": 20, "momentum": 0.9}))
    images = torch.from_numpy(bars().images[::10]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        right = (trained.logits(images).argmax(1).numpy() == bars().labels[::10]).mean()
    assert trained.validation_accuracy == 100 * right
    assert right == 1


def test_equal_recipes_share_one_artefact_and_its_cost(task: DistillTask, tmp_path: Path) -> None:
    first = task.trained_classifier(RECIPE)
    assert task.trained_classifier(RECIPE) is first
    # Another cell, which may not train again.
    meter = Meter(CPU, tmp_path / "other.json")
    other = replace(task, cache=DiskArtefacts(tmp_path / "artefacts", meter), train=bars())
    again = with_classifiers(other, np.arange(0, 60, 10)).trained_classifier(RECIPE)
    assert again.sha256 == first.sha256
    assert again.validation_accuracy == first.validation_accuracy
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.logits(images), first.logits(images))
    (phase,) = meter.cost(batch_size=1, threads=1).phases
    assert (phase.name, phase.seconds) == ("classifier", 0)
    assert phase.cached_from is not None


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"epochs": 4},
        {"learning_rate": 0.02},
        {"cutmix": True},
        {"augmentation": "none"},
        {"batch_size": 8},
    ],
)
def test_what_the_recipe_says_decides_the_weights(task: DistillTask, change: dict[str, Any]) -> None:
    other = task.trained_classifier(RECIPE.model_copy(update=change))
    assert other.sha256 != task.trained_classifier(RECIPE).sha256


def test_untrained_weights_are_told_apart_by_what_they_take(task: DistillTask) -> None:
    untrained = RECIPE.model_copy(update={"epochs": 0})
    others = [untrained.model_copy(update=change) for change in ({"mean": (0.4,)}, {"std": (0.3,)})]
    names = {task.trained_classifier(recipe).sha256 for recipe in (untrained, *others)}
    assert len(names) == 3


def test_untrained_weights_that_two_networks_share_are_told_apart() -> None:
    """Their weights are drawn alike and have equal names and shapes, and their stems are others."""
    made = []
    for name in ("shufflenet_v2_x0_5", "shufflenet_v2_x0_5_cifar"):
        recipe = RECIPE.model_copy(update={"network": name, "image_size": 16, "epochs": 0})
        drawn = networks.build(name, 3, 16, 1, generator=seeds.stream(0, "x")).state_dict()
        arrays = {f"0.{key}": tensor.numpy() for key, tensor in drawn.items()}
        accuracy = {"validation_accuracy": np.array([np.nan])}
        made.append(Classifier(recipe, arrays | accuracy, num_classes=3, channels=1, device=CPU))
    one, other = (classifier.network().state_dict() for classifier in made)
    assert all(torch.equal(one[key], other[key]) for key in one | other), "what this test is about"
    assert made[0].sha256 != made[1].sha256


def test_weights_are_kept_at_the_epochs_that_were_asked_for(task: DistillTask) -> None:
    recipe = RECIPE.model_copy(update={"keep_epochs": (0, 2), "schedule": "constant"})
    trained = task.trained_classifier(recipe)
    shorter = task.trained_classifier(recipe.model_copy(update={"epochs": 2, "keep_epochs": ()}))
    untrained = task.trained_classifier(recipe.model_copy(update={"epochs": 0, "keep_epochs": ()}))
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trained.logits(images, 2), shorter.logits(images))
    assert torch.equal(trained.logits(images, 0), untrained.logits(images))
    assert untrained.validation_accuracy is None
    assert not torch.equal(trained.logits(images), trained.logits(images, 2))
    with pytest.raises(ValueError, match=r"one of the epochs \[0, 2, 3\].*got 1"):
        trained.network(1)


def test_logits_and_features_are_differentiable_and_weights_are_not(task: DistillTask) -> None:
    trained = task.trained_classifier(RECIPE)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = trained.features(images)
    last = trained.network().classifier
    torch.testing.assert_close(last(features), trained.logits(images))
    trained.logits(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in trained.network().parameters())
    assert not trained.network().training


def test_greyscale_is_repeated_for_a_recipe_on_rgb(task: DistillTask) -> None:
    recipe = ClassifierRecipe(network="convnet3", image_size=8, epochs=1, batch_size=16)
    grey = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    trained = task.trained_classifier(recipe)
    assert trained.normalise(grey).shape == (2, 3, 8, 8)
    assert torch.equal(trained.logits(grey), trained.logits(grey.repeat(1, 3, 1, 1)))


def test_fresh_networks_are_named_by_their_key(task: DistillTask) -> None:
    a, b, c = (task.network("convnet3", 8, "dm", i) for i in (0, 0, 1))
    state = torch.get_rng_state()
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.convs[0].weight, c.convs[0].weight)
    assert a.training
    assert a(torch.zeros(1, 1, 8, 8)).shape == (1, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("network", ["convnet3", "resnet18_bn"])
def test_reading_batch_by_batch_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    recipe = RECIPE.model_copy(update={"network": network, "epochs": 1, "image_size": 16})
    source = bars(33, channels=3)  # in batches of 16, the last of one image: no statistics for BatchNorm
    source = ArraySource(source.images.repeat(2, 1).repeat(2, 2), source.labels, source.names)

    def trained() -> dict[str, np.ndarray]:
        return train_classifier(recipe, source, withheld=np.arange(0), num_classes=3, device=CPU)

    held = trained()
    monkeypatch.setattr(pixels, "HOST_BYTES", 0)
    streamed = trained()
    assert held.keys() == streamed.keys()
    assert all(np.array_equal(held[name], streamed[name], equal_nan=True) for name in held)


@pytest.mark.parametrize(("epoch_seconds", "saved"), [(14, []), (15, [4]), (31, [2, 4]), (60, [1, 2, 3, 4])])
def test_a_trainings_state_is_saved_once_a_minute(
    epoch_seconds: int, saved: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, clock, epochs = tmp_path / "classifier.pt", [0.0], list[int]()

    def passes(epoch: int, loss: float) -> None:
        clock[0] += epoch_seconds

    def save(path: Path, epoch: int, *state: Any) -> None:
        assert path == file
        epochs.append(epoch)

    monkeypatch.delenv("DDBENCH_CHECKPOINT_SECONDS", raising=False)
    monkeypatch.setattr(classifiers, "_save", save)
    monkeypatch.setattr(classifiers.time, "monotonic", lambda: clock[0])
    given: dict[str, Any] = {"withheld": np.arange(0), "num_classes": 3, "device": CPU}
    recipe = RECIPE.model_copy(update={"epochs": 4})
    train_classifier(recipe, bars(12), **given, on_epoch=passes, checkpoint=file)
    assert epochs == saved


class Killed(Exception):
    pass


@pytest.mark.parametrize("recorded", [False, True])
def test_killed_training_goes_on_and_ends_equal(
    recorded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")
    changes = {"network": "convnet3", "keep_epochs": (1,), "momentum": 0.9, "records_dynamics": recorded}
    recipe = RECIPE.model_copy(update=changes)
    given: dict[str, Any] = {"withheld": np.arange(3), "num_classes": 3, "device": CPU}
    undisturbed = train_classifier(recipe, bars(), **given)

    def kill(note: str) -> None:
        if "epoch 3 of 3, step 2" in note:
            raise Killed

    file = tmp_path / "classifier.pt"
    with pytest.raises(Killed):
        train_classifier(recipe, bars(), **given, progress=kill, checkpoint=file)
    notes: list[str] = []
    resumed = train_classifier(recipe, bars(), **given, progress=notes.append, checkpoint=file)
    assert notes[0].startswith("classifier convnet3: epoch 3 of 3, step 1")
    assert undisturbed.keys() == resumed.keys()
    assert all(np.array_equal(undisturbed[name], resumed[name], equal_nan=True) for name in undisturbed)
    assert not list(tmp_path.iterdir())
    scores = {name.removeprefix("dynamics."): array for name, array in resumed.items() if name.startswith("dynamics.")}
    assert set(scores) == ({"el2n", "aum", "forgetting"} if recorded else set())
    for array in scores.values():
        assert np.flatnonzero(np.isnan(array)).tolist() == [0, 1, 2], "the withheld ones"


def test_recording_a_training_changes_no_weight() -> None:
    given: dict[str, Any] = {"withheld": np.arange(0), "num_classes": 3, "device": CPU}
    plain, recorded = (
        train_classifier(RECIPE.model_copy(update={"records_dynamics": record}), bars(), **given)
        for record in (False, True)
    )
    assert all(np.array_equal(plain[name], recorded[name], equal_nan=True) for name in plain)
    wrong = recorded["dynamics.el2n"] / RECIPE.epochs
    assert (wrong >= 0).all()
    assert (wrong <= np.sqrt(2)).all()
    assert (np.abs(recorded["dynamics.aum"]) <= RECIPE.epochs).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 16}, "16×16 pixels, got 8×8"),
        ({"keep_epochs": (4,)}, "no weights after epoch 4"),
        ({"mean": (0.5, 0.5)}, "1 or 1 values of mean and std, got 2 and 1"),
        ({"network": "resnet18"}, "at least 16×16 pixels, got 8×8"),
        ({"network": "resnet_18"}, "unknown network"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    recipe = RECIPE.model_copy(update=change)
    with pytest.raises(UsageError, match=message):
        train_classifier(recipe, bars(), withheld=np.arange(3), num_classes=3, device=CPU)

"""soft-delt: its numbers, RandAugment against timm called by hand and against what its levels mean, and a training
against a plain loop."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from timm.data import rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import augmentation, base, networks
from ddbench.benchmark.protocols.definitions import soft_rded
from ddbench.benchmark.protocols.definitions.soft_delt import AT_64, PROTOCOL
from ddbench.benchmark.protocols.rand_augment import RandAugment
from ddbench.benchmark.protocols.trainer import EpochReport, train_student

CPU = torch.device("cpu")
CROP = PROTOCOL.augmentation
assert isinstance(CROP, base.Crop)
assert CROP.rand_augment is not None
SETTINGS = CROP.rand_augment
SHORT: dict[str, Any] = {"epochs": 3, "image_size": 16, "batch_size": 8}
SMALL = PROTOCOL.with_overrides(SHORT)


def pictures(n: int, side: int = 24) -> Tensor:
    """Smooth colours, which every operation changes."""
    at = torch.linspace(0, 1, side)
    ramp = torch.stack([at[:, None] * at, (1 - at)[:, None] * at, at[:, None] * (1 - at)])
    scale = torch.arange(1, n + 1)[:, None, None, None] / n
    return (40 + 200 * ramp * scale).to(torch.uint8)


def by_hand(image: Tensor, seed: list[int], transform: Any) -> Tensor:
    random.seed(seed[0] * 2**24 + seed[1])
    np.random.seed(seed)  # noqa: NPY002 - what timm draws from
    made = transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.array(made)).permute(2, 0, 1)


def test_it_is_rdeds_but_for_what_delts_program_does_otherwise() -> None:
    changed = {"name", "summary", "batch_size", "augmentation", "looks"}
    assert PROTOCOL.model_dump(exclude=changed) == soft_rded.HALF.model_dump(exclude=changed)
    assert CROP.scale == (0.25, 1)
    assert not CROP.shuffle
    assert PROTOCOL.look_epochs(25) == [1, 11, 21, 25]
    table = {1: 10, 10: 50, 20: 50, 30: 100, 40: 100, 50: 100, 100: 100}
    assert {ipc: PROTOCOL.batch_size_for(10, ipc) for ipc in table} == table
    assert [PROTOCOL.batch_size_for(classes, 10, "resnet18_bn") for classes in (10, 100, 1000)] == [50, 100, 100]
    assert [PROTOCOL.batch_size_for(classes, 10, "resnet101_bn") for classes in (10, 100, 1000)] == [50, 50, 50]
    assert [PROTOCOL.images_at_once(None, 1000, 50, name) for name in ("resnet50_bn", "resnet101_bn")] == [200, 100]


def test_each_image_is_what_timm_makes_of_it() -> None:
    ours, images = RandAugment(SETTINGS), pictures(60)
    drawn = ours.draw(60, torch.Generator().manual_seed(3))
    made = ours(images, drawn)
    theirs = rand_augment_transform("rand-m6-n2-mstd1.0", {"translate_const": 117, "img_mean": (124, 116, 104)})
    with seeds.global_generators_kept():
        expected = torch.stack([by_hand(*each, theirs) for each in zip(images, drawn.tolist(), strict=True)])
    assert torch.equal(made, expected)
    changed = (made != images).flatten(1).any(1).float().mean()
    assert 0.6 < changed < 0.85, "an image is left alone where both operations are, in one case of four or a bit more"
    assert torch.equal(ours(images[7:9], drawn[7:9]), made[7:9]), "whatever else is in a batch"


def test_its_draws_are_of_the_image_and_leave_no_trace() -> None:
    ours, images = RandAugment(SETTINGS), pictures(1).expand(40, -1, -1, -1)
    before = random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - what may leave no trace
    made = ours(images, ours.draw(40, torch.Generator().manual_seed(0)))
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002 - as above
    assert len(made.unique(dim=0)) > 20, "every image has a seed of its own"
    ours._transform = broken
    with pytest.raises(ZeroDivisionError):
        ours(images, torch.zeros(40, 2))
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002 - as above
    with pytest.raises(UsageError, match=r"works on 8-bit images, and those of this set are torch\.float32"):
        ours(images.float(), torch.zeros(40, 2))


def broken(image: object) -> object:
    random.random()
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("Rotate", 6.0, lambda image: image.rotate(18, resample=Image.Resampling.BICUBIC, fillcolor=(124, 116, 104))),
        ("Posterize", 6.0, lambda image: image.point(lambda value: value & 0b11000000)),
        ("Solarize", 4.0, lambda image: image.point(lambda value: value if value < 102 else 255 - value)),
        ("SolarizeAdd", 6.0, lambda image: image.point(lambda value: min(255, value + 66) if value < 128 else value)),
        ("Invert", 6.0, lambda image: image.point(lambda value: 255 - value)),
        ("Color", 5.0, lambda image: ImageEnhance.Color(image).enhance(1.0)),
        ("Contrast", 6.0, lambda image: ImageEnhance.Contrast(image).enhance(1.18)),
        ("Brightness", 12.0, lambda image: ImageEnhance.Brightness(image).enhance(1.9)),
        ("Sharpness", -1.0, lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
        ("ShearX", 6.0, lambda image: moved(image, (1, 0.18, 0, 0, 1, 0))),
        ("ShearY", 6.0, lambda image: moved(image, (1, 0, 0, 0.18, 1, 0))),
        ("TranslateXRel", 6.0, lambda image: moved(image, (1, 0, 0.27 * 24, 0, 1, 0))),
        ("TranslateYRel", 6.0, lambda image: moved(image, (1, 0, 0, 0, 1, 0.27 * 24))),
    ],
)
def test_what_an_operation_does_at_a_level(
    monkeypatch: pytest.MonkeyPatch, name: str, level: float, expected: Any
) -> None:
    """With the draws scripted: a level of 0 to 10 on RandAugment's scales. Another timm could have others."""
    operations = {op.name: op for op in RandAugment(SETTINGS)._transform.ops}
    operation = operations[name]
    assert (operation.prob, operation.magnitude, operation.magnitude_std) == (0.5, 6, 1)
    monkeypatch.setattr(random, "random", lambda: 0.4)  # done, and not negated
    monkeypatch.setattr(random, "gauss", lambda mean, std: level)
    monkeypatch.setattr(random, "choice", lambda among: among[1])
    image = Image.fromarray(pictures(2)[1].permute(1, 2, 0).numpy())
    assert np.array_equal(np.array(operation(image)), np.array(expected(image)))


def moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    fill = (124, 116, 104)
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=fill
    )


def test_two_of_fifteen_operations_are_drawn() -> None:
    transform = RandAugment(SETTINGS)._transform
    assert sorted(op.name for op in transform.ops) == [
        "AutoContrast", "Brightness", "Color", "Contrast", "Equalize", "Invert", "Posterize", "Rotate", "Sharpness",
        "ShearX", "ShearY", "Solarize", "SolarizeAdd", "TranslateXRel", "TranslateYRel",
    ]  # fmt: skip
    assert (transform.num_layers, transform.choice_weights) == (2, None)


# Training


def sets() -> tuple[np.ndarray, np.ndarray]:
    return pictures(20, 16).permute(0, 2, 3, 1).contiguous().numpy(), np.arange(20) % 10


def teacher() -> torch.nn.Module:
    network = networks.build("resnet18_bn", 10, 16, generator=torch.Generator().manual_seed(9))
    return network.eval().requires_grad_(False)


def train(protocol: base.Protocol = SMALL, **given: Any) -> Any:
    images, labels = sets()
    return train_student(
        protocol, "convnet3", images, labels, images, labels, num_classes=10, ipc=2, seed=0, teacher=teacher(), **given
    )


@pytest.mark.parametrize("published", [PROTOCOL, AT_64], ids=lambda p: p.name)
def test_a_training_equals_a_plain_loop(published: base.Protocol) -> None:
    """timm by hand on each image, torchvision's crop and flip, the divergence from probabilities."""
    small, reports = published.with_overrides(SHORT), list[EpochReport]()
    train(small, on_epoch=reports.append)

    images, _ = sets()
    network = networks.build("convnet3", 10, 16, generator=seeds.stream(0, "student-init"))
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=1e-3, fused=False)
    transform = rand_augment_transform("rand-m6-n2-mstd1.0", {"img_mean": (124, 116, 104)})
    mean, std = (torch.tensor(values)[:, None, None] for values in (base.IMAGENET_MEAN, base.IMAGENET_STD))
    judge, losses = teacher(), []
    for epoch in (1, 2, 3):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / 6))
        order = torch.randperm(20, generator=seeds.stream(0, "shuffle", epoch))
        rows = augmentation.build(small, CPU).draw(20, 16, seeds.stream(0, "augment", epoch))
        cuts, total = seeds.stream(0, "cutmix", epoch), 0.0
        for start in (0, 8, 16):
            batch = order[start : start + 8]
            seen = []
            for index, row in zip(batch.tolist(), rows[start : start + 8], strict=True):
                image = torch.from_numpy(images[index]).permute(2, 0, 1)
                with seeds.global_generators_kept():
                    image = by_hand(image, row[7:].long().tolist(), transform)
                top, left, height, width = row[:4].long().tolist()
                image = F.resized_crop(image / 255, top, left, height, width, [16, 16], antialias=True)
                seen.append(((image.flip(2) if row[4] else image) - mean) / std)
            x = augmentation.draw_cut(len(batch), 16, cuts).apply(torch.stack(seen))
            p, q = torch.softmax(judge(x) / 20, 1), torch.softmax(network(x) / 20, 1)
            loss = (p * (p.log() - q.log())).sum() / len(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / 20)
    # Divergences of 1e-4 are sums of terms around 1: float32 leaves 1e-7 of them.
    assert [report.train_loss for report in reports] == pytest.approx(losses, rel=1e-3, abs=2e-7)


def test_it_matters_that_images_are_changed() -> None:
    """Else the test above says nothing."""
    with_it: list[EpochReport] = []
    train(on_epoch=with_it.append)
    images, labels = sets()
    without: list[EpochReport] = []
    plain = SMALL.model_copy(update={"augmentation": CROP.model_copy(update={"rand_augment": None})})
    train_student(
        plain, "convnet3", images, labels, images, labels, num_classes=10, ipc=2, seed=0, teacher=teacher(),
        on_epoch=without.append,
    )  # fmt: skip
    first, other = with_it[0].train_loss, without[0].train_loss
    assert abs(first - other) > 1e-2 * other


def test_a_resumed_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CHECKPOINT_SECONDS", "0")

    class Killed(Exception):
        pass

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise Killed

    whole: list[EpochReport] = []
    expected = train(on_epoch=whole.append)
    with pytest.raises(Killed):
        train(checkpoint=tmp_path / "c.pt", on_epoch=stop)
    random.seed(5)  # whatever a process did before
    rest: list[EpochReport] = []
    found = train(checkpoint=tmp_path / "c.pt", on_epoch=rest.append)
    assert [report.train_loss for report in rest] == [report.train_loss for report in whole[2:]]
    assert np.array_equal(found.predictions, expected.predictions)

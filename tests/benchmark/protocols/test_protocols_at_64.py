"""The evaluators of Tiny-ImageNet at 64 px: what they do otherwise than the same programs do at 224 px, and no more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.protocols import augmentation
from ddbench.benchmark.protocols.base import Crop, Protocol, Teacher
from ddbench.benchmark.protocols.definitions import soft_bssl, soft_delt, soft_rded
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.soft.committees import Committee

ALL = [soft_rded.WHOLE_64, soft_delt.AT_64, soft_bssl.FIVE_64, soft_bssl.ONE_BY_CVDD_64]
IPCS = (1, 10, 50)


@pytest.mark.parametrize(
    ("protocol", "at_224", "changed"),
    [
        (soft_rded.WHOLE_64, soft_rded.HALF, {"batch_size", "augmentation"}),
        (soft_delt.AT_64, soft_delt.PROTOCOL, {"batch_size"}),
        (soft_bssl.FIVE_64, soft_bssl.FIVE, {"batch_size", "batch_size_beyond_100_classes", "rates"}),
        (soft_bssl.ONE_BY_CVDD_64, soft_bssl.ONE_BY_CVDD, {"batch_size", "batch_size_beyond_100_classes", "rates"}),
    ],
    ids=lambda value: value.name if isinstance(value, Protocol) else "",
)
def test_they_are_their_programs_but_for_what_those_do_with_small_images(
    protocol: Protocol, at_224: Protocol, changed: set[str]
) -> None:
    everywhere = {"name", "summary", "image_size", "test_resize", "students", "teacher"}
    assert {f for f in Protocol.model_fields if getattr(protocol, f) != getattr(at_224, f)} == everywhere | changed
    assert protocol.image_size == 64
    assert not {*protocol.students} & {*at_224.students}
    mine, theirs = protocol.teacher, at_224.teacher
    assert mine is not None
    assert theirs is not None
    assert type(mine) is type(theirs)
    assert (mine.temperature, mine.mode, mine.stored_bits) == (theirs.temperature, theirs.mode, theirs.stored_bits)
    if isinstance(mine, Teacher):
        assert (mine.network, mine.imagenet_1k) == (protocol.default_student, None)


def test_images_a_step() -> None:
    """RDED's and DELT's programs set 100 for tinyimagenet, whatever the IPC and the student; CV-DD's script 16."""
    for protocol, images in zip(ALL, (100, 100, 16, 16), strict=True):
        assert {protocol.batch_size_for(200, ipc, s) for ipc in IPCS for s in protocol.students} == {images}
    assert soft_bssl.FIVE_64.images_at_once(None, 200, 10, "resnet101_cifar") == 8, "two halves"


def test_rates_of_cvdds_program() -> None:
    for protocol in (soft_bssl.FIVE_64, soft_bssl.ONE_BY_CVDD_64):
        found = {
            student: [
                (r.learning_rate, r.stretch) for ipc in IPCS if (r := protocol.rate_of("tiny-imagenet", student, ipc))
            ]
            for student in protocol.students
        }
        assert found == {
            "resnet18_cifar": [(1e-3, 2), (1e-3, 1), (1e-3, 2)],
            "resnet50_cifar": [(1e-3, 1)] * 3,
            "resnet101_cifar": [(5e-4, 2)] * 3,
        }
        with pytest.raises(UsageError, match="none for resnet18_cifar on imagenet-1k at IPC 10"):
            protocol.rate_of("imagenet-1k", "resnet18_cifar", 10)


def test_five_teachers_by_their_scores() -> None:
    committee = soft_bssl.FIVE_64.teacher
    assert isinstance(committee, Committee)
    members = soft_bssl.FIVE_64.teachers_for("tiny-imagenet", 10)
    scores = {
        "resnet18_cifar": 46.5,
        "resnet50_cifar": 28.3,
        "shufflenet_v2_x0_5_cifar": 43.6,
        "mobilenet_v2_cifar": 44.8,
        "densenet121_cifar": 41.5,
    }
    assert [member.network for member in members] == list(scores)
    total = sum(math.exp(score / 10) for score in scores.values())
    assert committee.shares(members) == pytest.approx([math.exp(score / 10) / total for score in scores.values()])
    assert {member.imagenet_1k for member in members} == {None}


def test_test_images() -> None:
    """RDED's and DELT's are enlarged to 64 // 7 · 8 = 72 and cropped; CV-DD's are seen as they are."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for protocol, side in zip(ALL, (72, 72, 64, 64), strict=True):
        assert protocol.test_image_size_for(64) == side
        assert np.array_equal(fit(protocol, image, 64), image)
    assert np.array_equal(fit(soft_bssl.FIVE_64, image, 64, test=True), image)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    expected = v2.Compose([v2.Resize(72, antialias=True), v2.CenterCrop(64)])(pixels.float())
    ours = fit(soft_rded.WHOLE_64, image, 64, test=True).transpose(2, 0, 1)
    assert np.abs(ours - expected.numpy()).max() <= 1, "rounded to 8 bits"


def test_a_crop_of_the_whole_area_changes_nothing() -> None:
    """With a factor of 1 RDED's crops have the image's own area: torchvision's find no other place for that."""
    settings = soft_rded.WHOLE_64.augmentation
    assert isinstance(settings, Crop)
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = v2.RandomResizedCrop(64, scale=settings.scale, ratio=settings.ratio, antialias=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert all(torch.equal(theirs(image), image) for _ in range(200))
    crops = augmentation.draw_crops(2000, 64, settings.scale, settings.ratio, torch.Generator().manual_seed(0))
    assert np.array_equal(np.unique(crops.numpy(), axis=0), [[0, 0, 64, 64]])


def test_looks() -> None:
    assert soft_rded.WHOLE_64.look_epochs(300) == [250, 260, 270, 280, 290, 300]
    for protocol in ALL[1:]:
        assert protocol.look_epochs(300) == [*range(1, 300, 10), 300]

"""What the variants of inverting a classifier set: views, batches, rounds, starts and committees, each by its paper."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import nn
from torchvision import transforms

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.seeds import stream
from ddbench.benchmark.planning.contestants import contestants
from ddbench.benchmark.protocols import networks
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import ImageNet1K, Nette
from ddbench.datasets.tiny_imagenet.dataset import TinyImageNet
from ddbench.methods.inversion import starts
from ddbench.methods.inversion.batches import batches
from ddbench.methods.inversion.method import Inversion
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.schedule import Schedule, admission_rounds
from ddbench.methods.inversion.starts import Starts, around_the_middle
from ddbench.methods.inversion.teachers import weights_of_round
from ddbench.methods.inversion.view import View, draw
from ddbench.methods.rded.crops import best_crops, collages
from ddbench.methods.rded.params import RDEDParams

CLASSES = ("a", "b")
SRE2L = InversionParams()


def of(name: str, dataset: type[Any] = ImageNet1K) -> InversionParams:
    """A registered variant's parameters on a dataset."""
    (contestant,) = contestants(name, dataset, {}, set())
    return InversionParams.model_validate(contestant.spec.params)


# Views ----------------------------------------------------------------------------------------------------------------


def test_a_view_is_torchvisions_crop_flip_and_a_roll() -> None:
    x = torch.randn(3, 2, 12, 12, generator=stream(0, "x"))
    seen = View(top=1, left=4, height=6, width=8, mirrored=True, down=3, right=5).of(x)
    crop = transforms.functional.resized_crop(x, 1, 4, 6, 8, [12, 12], antialias=False)
    expected = np.roll(crop.numpy()[..., ::-1], (3, 5), (2, 3))
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_the_whole_image_is_seen_as_it_is() -> None:
    x = torch.randn(1, 1, 7, 7, generator=stream(0, "x"))
    assert torch.equal(draw(7, 1.0, 0, flip=False, generator=stream(0, "view")).of(x), x)


@pytest.mark.parametrize("min_scale", [0.08, 0.5])
def test_boxes_are_distributed_as_torchvisions(min_scale: float) -> None:
    count, side = 2000, 64
    ours = [draw(side, min_scale, 9, flip=True, generator=stream(i, "view")) for i in range(count)]
    image = torch.zeros(1, side, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [
            transforms.RandomResizedCrop.get_params(image, [min_scale, 1.0], [3 / 4, 4 / 3]) for _ in range(count)
        ]
    boxes = np.array([(v.top, v.left, v.height, v.width) for v in ours])
    for column in range(4):
        assert stats.ks_2samp(boxes[:, column], np.array(theirs)[:, column]).pvalue > 1e-3
    assert abs(sum(v.mirrored for v in ours) - count / 2) < 4 * math.sqrt(count / 4)
    for shifts in ([v.down for v in ours], [v.right for v in ours]):
        found = Counter(shifts)
        assert set(found) == set(range(10)), "0 and the most are both drawn"
        assert stats.chisquare(list(found.values())).pvalue > 1e-3
    assert not any(draw(side, 1, 0, flip=False, generator=stream(i, "view")).mirrored for i in range(20))


# Batches, rounds, schedules -------------------------------------------------------------------------------------------


def test_across_and_within() -> None:
    assert list(batches("across", 2, 3, 2)) == [((0, 0), (1, 0)), ((2, 0),), ((0, 1), (1, 1)), ((2, 1),)]
    assert list(batches("within", 4, 3, 2)) == [((0, 0), (0, 1), (1, 0), (1, 1)), ((2, 0), (2, 1))]
    assert list(batches("within", 3, 2, 2)) == [((0, 0), (0, 1), (1, 0)), ((1, 1),)], "a full batch cuts a class"
    assert list(batches("class", 3, 2, 2)) == [((0, 0), (0, 1)), ((1, 0), (1, 1))]
    assert [len(keys) for keys in batches("class", 3, 1, 5)] == [3, 2]
    on_1k = list(batches("across", SRE2L.batch, 1000, 2))
    assert len(on_1k) == 20
    assert {len({c for c, _ in keys}) for keys in on_1k} == {100}


def test_sre2l_keeps_its_crops_and_cda_begins_with_the_whole_image() -> None:
    for name, expected in (("sre2l", [0.08] * 4), ("cda", [1.0, 0.08 + 0.92 * (1 + math.sqrt(0.5)) / 2, 0.54, 0.08])):
        schedule = Schedule(of(name), 10, [0])
        found = [schedule.at(step) for step in (0, 1000, 2000, 4000 - 1)]
        assert [now.min_scale for now in found] == pytest.approx(expected, abs=1e-6)
        assert [now.learning_rate for now in found[:3]] == pytest.approx([0.25, 0.25 * (2 + math.sqrt(2)) / 4, 0.125])
        assert 0 < found[3].learning_rate < 1e-6


def test_delt_lets_images_in_by_rounds() -> None:
    assert admission_rounds(8, 10) == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7]
    assert Counter(admission_rounds(8, 50)) == {0: 7, 1: 7, **dict.fromkeys(range(2, 8), 6)}
    assert admission_rounds(8, 1) == [0]
    assert admission_rounds(1, 5) == [0] * 5
    delt = of("delt")
    (first, *_) = batches(delt.order, delt.batch, 1000, 50)
    schedule = Schedule(delt, 50, [i for _, i in first])
    assert schedule.steps == 4000
    assert len(schedule.at(499).active) == 14, "two classes, seven images each"
    assert len(schedule.at(500).active) == 28
    assert len(schedule.at(3999).active) == 100
    assert (delt.start, delt.jitter) == ("median", 0)


def test_rounds_before_a_cut_classs_first_image_are_left_out() -> None:
    late = Schedule(of("delt"), 16, [8, 9, 10])  # two images a round: these join in rounds 4, 4 and 5
    assert late.steps == 4 * 500
    assert late.at(0).active == (0, 1)
    assert late.at(500).active == (0, 1, 2)
    assert late.at(0).learning_rate == 0.25
    assert late.at(1000).learning_rate == pytest.approx(0.125), "the cosine is over the steps that are left"


def test_fadrms_sides_are_200_and_224() -> None:
    fadrm = of("fadrm")
    schedule = Schedule(fadrm, 10, [0])
    stages = [schedule.at(step).stage for step in range(2000)]
    assert stages == [s for s in range(4) for _ in range(500)]
    assert [schedule.side(stage, 224) for stage in range(4)] == [200, 224, 200, 224]
    assert fadrm.residual == 0.5
    assert Schedule(SRE2L, 1, [0]).side(0, 224) == 224


def test_the_shift_is_32_pixels_of_224() -> None:
    assert round(SRE2L.jitter * 224) == 32


# Committees -----------------------------------------------------------------------------------------------------------


def softmax(*scores: float) -> tuple[float, ...]:
    shares = [math.exp(score / 5) for score in scores]
    return tuple(share / sum(shares) for share in shares)


@pytest.mark.parametrize(
    ("dataset", "pair", "scores"), [(ImageNet1K, (0, 2), (56.4, 52.5)), (Nette, (3, 4), (54.0, 60.8))]
)
def test_cv_dd_takes_its_best_two_at_ipc_1_and_its_programs_on_nette(
    make_task: Any, random_images: Any, dataset: type[Any], pair: tuple[int, int], scores: tuple[float, float]
) -> None:
    task, params = make_task(random_images(CLASSES), CLASSES, ipc=1), of("cv-dd", dataset)
    (turn,) = weights_of_round(task, params, 0)
    assert tuple(place for place, _ in turn) == pair
    assert tuple(weight for _, weight in turn) == pytest.approx(softmax(*scores))


def test_cv_dd_goes_through_all_pairs_and_then_draws_them(make_task: Any, random_images: Any) -> None:
    params = of("cv-dd")

    def pairs(ipc: int, seed: int = 0) -> list[tuple[int, ...]]:
        task = make_task(random_images(CLASSES), CLASSES, ipc=ipc, seed=seed)
        turns = [weights_of_round(task, params, i) for i in range(ipc)]
        assert all(len(turn) == 1 and sum(w for _, w in turn[0]) == pytest.approx(1) for turn in turns)
        return [tuple(place for place, _ in turn[0]) for turn in turns]

    in_order = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    assert pairs(10) == in_order
    drawn = pairs(200)
    assert set(drawn) == set(in_order)
    assert max(Counter(drawn).values()) < 20 + 4 * math.sqrt(200 * 0.1 * 0.9)
    assert pairs(200, seed=1) != drawn == pairs(200)


def test_a_committee_in_turn_has_one_teacher_a_step(make_task: Any, random_images: Any) -> None:
    params = of("fadrm-plus")
    task = make_task(random_images(CLASSES), CLASSES)
    assert weights_of_round(task, params, 0) == [((place, 1.0),) for place in range(4)]
    assert params.teachers == ("resnet18_bn", "timm:densenet121", "shufflenet_v2_x1_0", "timm:mobilenetv2_100")


@pytest.mark.parametrize("name", sorted({*of("cv-dd").teachers, *of("fadrm-plus").teachers, *of("g-vbsm").teachers}))
def test_every_papers_teacher_can_be_built_and_has_batch_norm(name: str) -> None:
    network = networks.build(name, 3, 64, generator=torch.Generator())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) >= 20


# Starts ---------------------------------------------------------------------------------------------------------------


class Brightness:
    """Takes an image for class b the more, the brighter it is; an `Observer`."""

    sha256 = "brightness"

    def network(self) -> nn.Module:
        class Two(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                mean = x.mean((1, 2, 3))
                return torch.stack([-mean, mean], 1)

        return Two().eval()

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def features(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("not asked for")


@pytest.fixture
def shaded() -> ArraySource:
    """Ten images of each class in shuffled shades: 0, 20, … 180."""
    shades = np.random.default_rng(0).permutation(10) * 20
    pixels = np.concatenate([shades, shades]).astype(np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    return ArraySource(pixels, np.repeat([0, 1], 10), [f"{c}/{i}.png" for c in CLASSES for i in range(10)])


def test_the_middle_is_counted_as_delts_program_does() -> None:
    assert around_the_middle(10, 5).tolist() == [5, 6, 4, 7, 3]
    assert around_the_middle(7, 4).tolist() == [4, 5, 3, 6]
    assert sorted(around_the_middle(4, 4).tolist()) == [0, 1, 2, 3], "all of a small class, whatever falls outside it"


def test_medians_are_real_images_of_middling_probability(
    make_task: Any, shaded: ArraySource, memory_cache: Any
) -> None:
    task = make_task(shaded, CLASSES, ipc=3, batch_size=4, cache=memory_cache)
    found = Starts(task, InversionParams(start="median", normalisation="half"), Brightness())
    levels = [[round((float(found.image(c, i).mean()) / 2 + 0.5) * 255) for i in range(3)] for c in (0, 1)]
    assert levels == [[80, 60, 100], [100, 120, 80]], "bright images of class a are its improbable ones"
    assert memory_cache.made == ["probabilities", "probabilities"]


def test_random_real_images_are_drawn_without_replacement(make_task: Any, shaded: ArraySource) -> None:
    def shades(seed: int) -> list[int]:
        task = make_task(shaded, CLASSES, ipc=10, seed=seed)
        found = Starts(task, InversionParams(start="real", normalisation="half"), Brightness())
        return [round((float(found.image(0, i).mean()) / 2 + 0.5) * 255) for i in range(10)]

    assert sorted(shades(0)) == list(range(0, 200, 20))
    assert shades(0) != shades(1)


def test_collages_are_rdeds(make_task: Any, random_images: Any) -> None:
    """The image of each number, one at a time, as RDED puts all of them together: four crops at 72 px."""
    task = make_task(random_images(CLASSES, per_class=9, image_size=72), CLASSES, ipc=2)
    params = InversionParams(start="collages", normalisation="half", pool=9, crops=2)
    found = Starts(task, params, Brightness())
    best = best_crops(task, RDEDParams(pool=9, crops=2), task.train, 72, Brightness(), 1)
    expected = collages(task.train, best, 2, 2, 72, task.device)
    for i in range(2):
        pixels = ((found.image(1, i) / 2 + 0.5) * 255).round().permute(1, 2, 0)
        np.testing.assert_array_equal(pixels.numpy(), expected[i])


def test_too_few_images_to_start_from_are_named(make_task: Any, random_images: Any) -> None:
    task = make_task(random_images(CLASSES, per_class=3), CLASSES, ipc=4)
    with pytest.raises(
        UsageError, match=r"class a has 3 training images, fewer than the 4 to start from; choose --ipc 3"
    ):
        Starts(task, InversionParams(start="real", normalisation="half"), Brightness())
    odd = make_task(random_images(CLASSES, image_size=73), CLASSES, ipc=1)
    with pytest.raises(UsageError, match="73 px cannot be divided by"):
        Starts(odd, InversionParams(start="collages", normalisation="half"), Brightness())
    assert "pool=300" in str(Inversion(of("fadrm")).supports(ImageNet1K, 100))
    assert Inversion(of("fadrm")).supports(ImageNet1K, 50) is None
    assert "1 channel" in str(Inversion(SRE2L).supports(Digits, 1))
    small = InversionParams(stages=2, steps=2, stage_scale=0.01, normalisation="half")
    assert "makes images of 0 px of the dataset's 8, fewer than 4; choose 0.5" in str(small.unsupported(Digits))
    assert small.model_copy(update={"stage_scale": 0.5}).unsupported(Digits) is None


def test_no_teacher_is_trained_where_images_are_too_few(make_task: Any, random_images: Any) -> None:
    recipes: list[Any] = []
    task = make_task(random_images(CLASSES, per_class=3), CLASSES, ipc=4)
    # A batch of this cell's one class has images of all.
    task = dataclasses.replace(task, trained_classifier=recipes.append, class_indices=())
    with pytest.raises(UsageError, match="fewer than the 4 to start from"):
        Inversion(InversionParams(start="median", normalisation="half")).prepare(task)
    assert recipes == []


# Parameters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": "convnet3"}, "unknown teacher 'convnet3'"),
        ({"network": "resnet18_bn+resnet18_bn"}, "named twice"),
        ({"network": "resnet18_bn+efficientnet_lite0"}, "comes trained and is no part of a committee"),
        ({"steps": 10, "admissions": 4}, "expected steps that admissions=4 divides"),
        ({"steps": 10, "stages": 3}, "expected steps that stages=3 divides"),
        ({"steps": 8, "stages": 2, "admissions": 2}, "exclude each other"),
        ({"stages": 5, "stage_scale": 0.9}, "an even number of stages"),
        ({"committee": "pairs"}, "needs two teachers or more and a score of each, got 1 and 0"),
        ({"committee": "pairs", "network": "resnet18_bn+resnet50_bn", "committee_scores": "1+x"}, "expected numbers"),
        ({"committee": "pairs", "network": "resnet18_bn+resnet50_bn", "committee_scores": "1+nan"}, "expected numbers"),
        ({"committee_scores": "1+2"}, "are for committee=pairs"),
        (
            {
                "committee": "pairs",
                "network": "resnet18_bn+resnet50_bn",
                "committee_scores": "1+2",
                "committee_at_ipc_1": "resnet18_bn",
            },
            "expected two of",
        ),
        ({"network": "resnet18_bn+resnet50_bn", "ascent_steps": 1}, "for a single teacher"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InversionParams(**given)


def test_a_teacher_that_comes_trained_stands_alone() -> None:
    found = InversionParams(network="efficientnet_lite0")
    assert (found.epochs, found.normalisation, found.teachers) == (0, "efficientnet-lite", ("efficientnet_lite0",))


def test_variants_are_the_papers() -> None:
    ours = {e.name: dict(e.overrides) for e in METHODS if e.variant_of == "sre2l" and "small" not in e.tags}
    patches = {"start": "collages"}
    assert ours["sre2l-pp"] == patches
    assert ours["cda"] == {"curriculum": True}
    assert ours["fadrm"] == patches | {"steps": 2000, "stages": 4, "stage_scale": 200 / 224}
    assert ours["dwa"] == {"start": "real", "steps": 2000, "variance_weight": 2.0, "ascent_steps": 15}
    assert (SRE2L.steps, SRE2L.image_learning_rate, SRE2L.batch, SRE2L.min_scale) == (4000, 0.25, 100, 0.08)
    assert (SRE2L.statistics_weight, SRE2L.first_layer_weight, SRE2L.variance_weight) == (0.01, 10, 1)
    assert starts.RDEDParams().pool == SRE2L.pool == 300


def test_on_tiny_imagenet_a_program_s_own_script_for_it_counts() -> None:
    fadrm, plus, dwa, lpld = (of(name, TinyImageNet) for name in ("fadrm", "fadrm-plus", "dwa", "lpld"))
    assert [Schedule(fadrm, 1, [0]).at(step).stage for step in (0, 499, 500, 999)] == [0, 0, 1, 1]
    assert (fadrm.steps, fadrm.image_learning_rate, fadrm.network) == (1000, 0.01, "resnet18_cifar")
    assert (plus.steps, plus.stages, plus.image_learning_rate) == (2000, 4, 0.25)
    assert {one.rsplit("_", 1)[1] for one in plus.teachers} == {"cifar"}, "networks for small images"
    for p in (fadrm, plus):
        assert {Schedule(p, 1, [0]).side(stage, 64) for stage in range(p.stages)} == {64}
    assert dwa.ascent_steps * dwa.ascent_size == pytest.approx(0.015)
    assert (dwa.ascent_steps, dwa.variance_weight, dwa.batch, dwa.image_learning_rate) == (12, 11, 200, 0.1)
    assert (lpld.image_learning_rate, lpld.statistics_weight) == (0.1, 0.05)
    assert {p.jitter * 64 for p in (fadrm, plus, dwa, lpld)} == {4}


def test_variants_with_more_statistics_are_the_papers() -> None:
    ours = {entry.name: dict(entry.overrides) for entry in METHODS if entry.name in ("g-vbsm", "edc", "lpld")}
    assert ours["lpld"] == {
        "order": "class", "batch": 200, "class_statistics_share": 1.0, "class_statistics_momentum": 0.1,
    }  # fmt: skip
    four = "resnet18_bn+timm:mobilenetv2_100+timm:efficientnet_b0+shufflenet_v2_x0_5"
    assert ours["g-vbsm"] == {
        "network": four, "order": "within", "batch": 40, "image_learning_rate": 0.1, "convolution_statistics": True,
        "statistics_momentum": 0.4, "densification_weight": 1.0,
    }  # fmt: skip
    assert ours["edc"] == {
        "network": f"{four}+alexnet", "order": "within", "batch": 20, "steps": 1000, "image_learning_rate": 0.05,
        "min_scale": 0.5, "jitter": 0.0, "start": "collages-drawn", "statistics_weight": 0.1,
        "convolution_statistics": True, "statistics_momentum": 0.8, "class_statistics_share": 0.5,
    }  # fmt: skip

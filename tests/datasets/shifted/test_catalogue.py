"""Which datasets can be tested on which shifted test sets."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.planning.shifted_sets import read_selector
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.datasets.shifted.catalogue import ALL_CORRUPTIONS, SHIFTED, conditions, shifted_set


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_class_lists_are_timms(name: str) -> None:
    timm = find_spec("timm")
    assert timm is not None
    assert timm.submodule_search_locations is not None
    indices = Path(timm.submodule_search_locations[0]) / "data" / "_info" / f"{name.replace('-', '_')}_indices.txt"
    assert SHIFTED[name].wnids == {IMAGENET_1K[int(line)] for line in indices.read_text().split()}


@pytest.mark.parametrize(
    ("dataset", "of_a", "of_r"),
    [("woof", 1, 3), ("nette", 2, 1), ("imageidc", 0, 0), ("imagenet-100", 15, 19), ("imagenet-1k", 200, 200)],
)
def test_adversarial_images_and_renditions_only_from_a_hundred_classes_on(dataset: str, of_a: int, of_r: int) -> None:
    declared = DATASETS.load(dataset)
    for name, shared in (("imagenet-a", of_a), ("imagenet-r", of_r)):
        reason = SHIFTED[name].why_not(declared)
        assert len(SHIFTED[name].shared(declared.class_ids)) == shared
        assert (reason is None) == (shared >= 10)
        assert reason is None or f"{shared} of {dataset}'s 10 classes" in reason


@pytest.mark.parametrize("dataset", ["woof", "nette", "imagenet-100", "tiny-imagenet"])
@pytest.mark.parametrize("name", ["imagenet-c-made", "imagenet-v2", "imagenet-sketch"])
def test_the_others_for_every_set_of_imagenets_classes(dataset: str, name: str) -> None:
    assert SHIFTED[name].why_not(DATASETS.load(dataset)) is None


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_other_classes_are_refused_with_the_size_that_corruptions_are_for(dataset: str) -> None:
    declared = DATASETS.load(dataset)
    assert "of ImageNet's classes" in str(SHIFTED["imagenet-v2"].why_not(declared))
    made = str(SHIFTED["imagenet-c-made"].why_not(declared))
    assert f"belong to 224 px, and these images have {declared.resolution} px" in made


def test_selectors() -> None:
    fog = read_selector("imagenet-c-made[corruption=fog,noise,severity=5,1]")
    assert fog.corruptions == ("gaussian_noise", "shot_noise", "impulse_noise", "fog")
    assert fog.severities == (1, 5)
    assert read_selector("sketch").which.name == "imagenet-sketch"
    everything = read_selector("imagenet-c")
    assert len(conditions(everything.corruptions, everything.severities)) == 75
    assert everything.corruptions == ALL_CORRUPTIONS
    assert conditions((), ()) == [""]
    for wrong, said in [
        ("imagenet-c[severity=6]", "severities of 1 to 5, got 6"),
        ("imagenet-c[severity=true]", "severities of 1 to 5, got True"),
        ("imagenet-c[corruption=rain]", "got 'rain'"),
        ("imagenet-c[level=3]", "no parameter 'level'; it has corruption and severity"),
        ("imagenet-v2[severity=3]", "no parameter 'severity'; it has no parameters"),
    ]:
        with pytest.raises(UsageError) as raised:
            read_selector(wrong)
        assert said in str(raised.value)
    with pytest.raises(UsageError, match="did you mean 'imagenet-v2'"):
        shifted_set("imagenet-v22")


def test_options_are_read_like_the_others() -> None:
    spec = run_spec({}, {"methods": "random", "datasets": "nette", "test_on": "sketch,imagenet-c[severity=1,2]"})
    assert spec.test_on == ["sketch", "imagenet-c[severity=1,2]"]
    assert spec.test_data == []
    with pytest.raises(Problems):
        run_spec({}, {"methods": "random", "datasets": "nette", "test_on": 3})

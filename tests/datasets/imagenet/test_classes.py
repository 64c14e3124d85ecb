"""The class lists: what every 1000-class network agrees on, and what the papers' lists say."""

from pathlib import Path

import pytest

from ddbench.benchmark.core.registry import DATASETS
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K, IMAGENET_100, NETTE, WOOF
from ddbench.methods.diffusion.priors.catalogue import KNOWN

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
LABELS = {
    "woof": [193, 182, 258, 162, 155, 167, 159, 273, 207, 229],
    "nette": [0, 217, 482, 491, 497, 566, 569, 571, 574, 701],
}
"""Label of each class, in the dataset's order, in a network of ImageNet's 1000 classes (torchvision's list)."""


def test_the_thousand_classes_are_in_the_order_of_their_wnids() -> None:
    assert len(IMAGENET_1K) == 1000
    assert list(IMAGENET_1K) == sorted(set(IMAGENET_1K))
    assert (IMAGENET_1K[0], IMAGENET_1K[999]) == ("n01440764", "n15075141")


def test_names_are_those_of_torchvision() -> None:
    from torchvision.models._meta import _IMAGENET_CATEGORIES as CATEGORIES

    pairs = enumerate(zip(CLASS_NAMES.values(), CATEGORIES, strict=True))
    # Two pairs of classes share a name, and torchvision tells them apart: the other crane, the other maillot.
    assert [label for label, (ours, theirs) in pairs if ours != theirs] == [134, 639]


@pytest.mark.parametrize("subset", [WOOF, NETTE, IMAGENET_100])
def test_subsets_are_distinct_classes_of_imagenet(subset: tuple[str, ...]) -> None:
    assert len(set(subset)) == len(subset) == (100 if subset is IMAGENET_100 else 10)
    assert set(subset) <= set(IMAGENET_1K)


def test_the_lists_are_the_published_ones() -> None:
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference lists at {REFERENCE}")
    lists = Path(__file__).parents[3] / "datasets" / "class_lists"
    for name in ("imagenet1k_classes.csv", "imagenet100_wnids.txt"):
        assert (lists / name).read_bytes() == (REFERENCE / name).read_bytes()


@pytest.mark.parametrize("dataset", LABELS)
def test_a_thousand_class_prior_gets_imagenets_labels(dataset: str) -> None:
    """Not 0 … 9, the positions of ten folders: the field's classic mislabelling."""
    metadata = KNOWN["dit-xl-2-256"].metadata
    assert [metadata.label_of(wnid) for wnid in DATASETS.load(dataset).class_ids] == LABELS[dataset]


@pytest.mark.parametrize(
    ("dataset", "split", "train", "test"),
    [("woof", "imagenet", 12_454, 500), ("nette", "imagenet", 12_894, 500),
     ("woof", "fastai", 9_025, 3_929), ("nette", "fastai", 9_469, 3_925),
     ("woof", "imagenet-first100", 1_000, 500), ("nette", "imagenet-first100", 1_000, 500),
     ("imagenet-1k", "imagenet", 1_281_167, 50_000), ("imagenet-100", "imagenet", None, 5_000)],
)  # fmt: skip
def test_expected_numbers_are_the_published_ones(dataset: str, split: str, train: int | None, test: int) -> None:
    declared = DATASETS.load(dataset)
    expected = declared.expected[split]
    assert (expected.n_train, sum(expected.test.values())) == (train, test)
    assert list(expected.test) == list(declared.class_ids)

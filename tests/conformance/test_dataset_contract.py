"""What every registered dataset promises (`datasets/base.py`). One whose files are not here is skipped, with what it
says is missing; those that ship with the benchmark (tag `embedded`) never are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.benchmark.planning.parameters import in_order
from ddbench.benchmark.planning.run_prior import check_prior
from ddbench.benchmark.protocols.network_names import find
from ddbench.datasets import hashing
from ddbench.datasets.base import Dataset, ImageSource, SplitData, Subset
from ddbench.methods.diffusion.priors.files import bundled_priors, find_prior

NAMES = [entry.name for entry in DATASETS]
# The published lists are one class with other wnids (tests/datasets/imagenet/test_published.py).
SPLITS = [
    (name, split)
    for name in NAMES
    if "published" not in DATASETS.entry(name).tags
    for split in DATASETS.load(name).splits
]
every_dataset = pytest.mark.parametrize("name", NAMES)
every_split = pytest.mark.parametrize(
    "opened", SPLITS, indirect=True, ids=[f"{name}-{split}" for name, split in SPLITS]
)

MOST_DECODED = 20_000
"""Training images of which a test decodes every one; those of ImageNet-1K take hours."""

_open: dict[tuple[str, str], tuple[Dataset, SplitData]] = {}


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> tuple[Dataset, SplitData]:
    """A dataset and one of its splits, opened once."""
    name, split = request.param
    if request.param not in _open:
        dataset: Dataset = DATASETS.load(name)()
        try:
            _open[request.param] = dataset, dataset.load(split, None, dataset.resolution)
        except UsageError as error:
            if "embedded" in DATASETS.entry(name).tags:
                raise
            pytest.skip(str(error).splitlines()[0])
    return _open[request.param]


def sides(data: SplitData) -> list[ImageSource]:
    return [data.train, data.test]


# Declarations ---------------------------------------------------------------------------------------------------------


def test_some_dataset_ships_with_the_benchmark() -> None:
    assert [entry.name for entry in DATASETS if "embedded" in entry.tags]
    assert not DATASETS.broken


@every_dataset
def test_declaration(name: str) -> None:
    dataset: type[Dataset] = DATASETS.load(name)
    assert dataset.name == name
    assert DATASETS.entry(name).summary
    ids = dataset.class_ids
    assert len(ids) == len(set(ids)) == len(dataset.class_names) > 1
    assert all(class_id and "/" not in class_id and not class_id.startswith(".") for class_id in ids), "folder names"
    assert len({class_id.casefold() for class_id in ids}) == len(ids), "folders on systems that ignore case"
    assert dataset.channels in (1, 3)
    assert dataset.resolution >= 1
    assert dataset.resolutions is None or dataset.resolution in dataset.resolutions
    assert dataset.splits
    assert len(set(dataset.splits)) == len(dataset.splits)


@every_dataset
def test_headline_can_be_run(name: str) -> None:
    dataset: type[Dataset] = DATASETS.load(name)
    headline = dataset.headline
    protocol = PROTOCOLS.load(headline.protocol)
    find(headline.student)
    protocol.check_student(headline.student, dataset.resolution)
    assert headline.ipc
    assert min(headline.ipc) >= 1
    assert len(set(headline.ipc)) == len(headline.ipc)
    assert headline.sets >= 1
    assert headline.students >= 1


@every_dataset
def test_own_defaults_of_methods_are_valid_and_give_a_reason(name: str) -> None:
    dataset: type[Dataset] = DATASETS.load(name)
    for method, defaults in dataset.method_defaults.items():
        entry, known = METHODS.entry(method), METHODS.load(method)
        known.Params.model_validate(in_order(known.name, dataset, entry.overrides, name=method))
        for key, default in defaults.items():
            assert len(default.reason.split()) >= 3, f"{method}.{key}: why this value?"


@every_dataset
def test_its_prior_knows_its_classes_and_never_saw_its_test_images(name: str) -> None:
    dataset: Dataset = DATASETS.load(name)()
    if dataset.prior not in bundled_priors():
        pytest.skip(f"{name} has no bundled prior")
    prior = find_prior(dataset.prior)
    for split in dataset.splits:
        check_prior(prior, dataset, DatasetSpec(name=name, split=split, resolution=dataset.resolution), None)
        assert prior.metadata.saw_test_images(dataset.split_hash(split, None)) is False, "its metadata says so"


@every_dataset
def test_unknown_splits_and_resolutions_are_usage_errors(name: str) -> None:
    dataset: Dataset = DATASETS.load(name)()
    for ask in (dataset.train_counts, dataset.split_hash):
        with pytest.raises(UsageError, match="no-such-split"):
            ask("no-such-split", None)
    with pytest.raises(UsageError, match="no-such-split"):
        dataset.load("no-such-split", None, dataset.resolution)
    if dataset.resolutions is not None:
        other = max(dataset.resolutions) + 1
        with pytest.raises(UsageError, match=str(other)):
            dataset.load(dataset.splits[0], None, other)


# Splits ---------------------------------------------------------------------------------------------------------------


@every_split
def test_labels_names_and_order(opened: tuple[Dataset, SplitData]) -> None:
    dataset, data = opened
    assert data.name in dataset.splits
    for source in sides(data):
        assert len(source) == len(source.labels) == len(source.names) > 0
        assert source.labels.dtype == np.int64
        class_of = [name.partition("/")[0] for name in source.names]
        assert [dataset.class_ids[label] for label in source.labels] == class_of, "labels go by class id"
        keys = list(zip(source.labels.tolist(), source.names, strict=True))
        assert keys == sorted(keys), "by class in label order, then by name"
        assert set(source.labels.tolist()) == set(range(len(dataset.class_ids))), "every class has images"
        for class_index in range(len(dataset.class_ids)):
            of_class = source.of_class(class_index)
            assert (source.labels[of_class] == class_index).all()
            assert (np.diff(of_class) > 0).all()


@every_split
def test_train_and_test_are_disjoint(opened: tuple[Dataset, SplitData]) -> None:
    _, data = opened
    names = [name for source in sides(data) for name in source.names]
    assert len(set(names)) == len(names)


@every_split
def test_pixels(opened: tuple[Dataset, SplitData]) -> None:
    dataset, data = opened
    shape = (dataset.resolution, dataset.resolution, dataset.channels)
    for source in sides(data):
        some = np.random.default_rng(0).choice(len(source), size=min(32, len(source)), replace=False)
        images = source.read(some)
        assert images.shape == (len(some), *shape)
        assert images.dtype == np.uint8
        assert len({image.tobytes() for image in images}) > 1
        assert images.max() > 127, "uint8 uses its range"
        assert np.array_equal(source.read(some[::-1]), images[::-1]), "in the order asked for"
        assert np.array_equal(source.read(some[:1])[0], images[0]), "alone as among others"
        assert source.read([]).shape == (0, *shape)
        half = Subset(source, some)
        assert np.array_equal(half.read(np.arange(len(some))), source.read(np.sort(some)))


@every_split
def test_what_planning_reads_is_what_loading_finds(opened: tuple[Dataset, SplitData]) -> None:
    dataset, data = opened
    fresh = type(dataset)()
    assert fresh.split_hash(data.name, None) == data.split_hash
    assert data.split_hash == hashing.split_hash(data.train.names, data.test.names)
    if len(data.train) <= MOST_DECODED:
        assert data.content_hash == hashing.content_hash(data.train, data.test)
    found = np.bincount(data.train.labels, minlength=len(dataset.class_ids))
    assert dict(fresh.train_counts(data.name, None)) == dict(zip(dataset.class_ids, found.tolist(), strict=True))
    assert max(dataset.headline.ipc) <= found.min(), "the headline's IPC fits every class"


@every_split
def test_validation_is_a_part_of_train_of_at_most_a_tenth_of_a_class(opened: tuple[Dataset, SplitData]) -> None:
    dataset, data = opened
    validation = data.validation
    assert validation.dtype == np.int64
    assert len(set(validation.tolist())) == len(validation)
    if len(validation):
        assert validation.min() >= 0
        assert validation.max() < len(data.train)
    withheld = np.bincount(data.train.labels[validation], minlength=len(dataset.class_ids))
    per_class = np.bincount(data.train.labels, minlength=len(dataset.class_ids))
    assert (withheld <= np.ceil(per_class / 10)).all()


@every_split
def test_opening_again_gives_the_same(opened: tuple[Dataset, SplitData]) -> None:
    dataset, data = opened
    again: Any = type(dataset)().load(data.name, None, dataset.resolution)
    assert (again.split_hash, again.content_hash) == (data.split_hash, data.content_hash)
    assert np.array_equal(again.validation, data.validation)


def test_hashes_differ_between_splits() -> None:
    for name in NAMES:
        hashes = [data.split_hash for (of, _), (_, data) in _open.items() if of == name]
        assert len(set(hashes)) == len(hashes), f"two splits of {name} are the same"

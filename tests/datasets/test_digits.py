"""The embedded dataset against scikit-learn's own arrays, and its split against what a split must be."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.planning.parameters import in_order
from ddbench.datasets import digits
from ddbench.datasets.digits import SPLIT_FILE, Digits

SPLIT_HASH = "96a832d9c156ff5f4899e7daa9cd2ccc2efdba3513e3dd823a3fde93940351a5"
CONTENT_HASH = "fa2a6a98e41f35f571cf4f761e514dd8508ee9a8724ff4d272a84f79db337b60"


@pytest.fixture(scope="module")
def split():
    return Digits().load("default", None, 8)


@pytest.fixture(scope="module")
def raw():
    return load_digits()


def position(name: str) -> int:
    return int(name.split("/")[1].removesuffix(".png"))


def test_hashes_are_pinned(split):
    assert split.split_hash == SPLIT_HASH
    assert split.content_hash == CONTENT_HASH


def test_every_image_is_on_exactly_one_side(split):
    train, test = ([position(name) for name in image_size.names] for image_size in (split.train, split.test))
    assert not set(train) & set(test)
    assert sorted(train + test) == list(range(1797))
    assert len(train) == 1078  # 60 % of 1,797
    assert len(test) == 719


def test_split_is_stratified(split, raw):
    whole, train = Counter(raw.target.tolist()), Counter(split.train.labels.tolist())
    for label, count in whole.items():
        assert train[label] == pytest.approx(0.6 * count, abs=1)


@pytest.mark.parametrize("image_size", ["train", "test"])
def test_order_names_labels_and_pixels(split, raw, image_size):
    source = getattr(split, image_size)
    keys = list(zip(source.labels.tolist(), source.names, strict=True))
    assert keys == sorted(keys), "by class in label order, then by sorted file name"
    pixels = source.read(np.arange(len(source)))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(source), 8, 8, 1)
    for index, name in enumerate(source.names):
        here = position(name)
        assert name == f"{Digits.class_ids[source.labels[index]]}/{here:04d}.png"
        assert source.labels[index] == raw.target[here]
        expected = [[round(v * 255 / 16) for v in row] for row in raw.images[here].tolist()]
        assert pixels[index, :, :, 0].tolist() == expected


def test_read_keeps_the_order_asked_for(split):
    some = np.array([900, 3, 3, 77])
    assert (split.train.read(some) == split.train.read(np.arange(1078))[some]).all()


def test_validation_part_is_a_tenth_of_every_class_of_train(split):
    picked = Counter(split.train.labels[split.validation].tolist())
    counts = Digits().train_counts("default", None)
    assert picked == {label: min(50, counts[class_id] // 10) for label, class_id in enumerate(Digits.class_ids)}
    assert (np.diff(split.validation) > 0).all()
    stored = json.loads(SPLIT_FILE.read_text())["validation"]
    names = {split.train.names[i] for i in split.validation}
    assert names == {f"{class_id}/{p:04d}.png" for class_id, ps in stored.items() for p in ps}


def test_train_counts_match_the_images_and_need_no_scikit_learn(split):
    assert Digits().train_counts("default", None) == {
        class_id: len(split.train.of_class(label)) for label, class_id in enumerate(Digits.class_ids)
    }
    code = (
        "import sys; from ddbench.datasets.digits import Digits; Digits().train_counts('default', None); "
        "sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_loading_twice_gives_the_same(split):
    again = Digits().load("default", None, 8)
    assert (again.train.read(np.arange(1078)) == split.train.read(np.arange(1078))).all()
    assert again.train.names == split.train.names
    assert (again.validation == split.validation).all()
    assert (again.split_hash, again.content_hash) == (split.split_hash, split.content_hash)


def test_unknown_split_and_resolution_are_refused():
    with pytest.raises(UsageError, match=r"no split 'fastai'.*default"):
        Digits().load("fastai", None, 8)
    with pytest.raises(UsageError, match="no split"):
        Digits().train_counts("fastai", None)
    with pytest.raises(UsageError, match=r"8×8.*32"):
        Digits().load("default", None, 32)


def test_other_pixels_than_the_splits_are_refused(monkeypatch):
    monkeypatch.setattr(digits, "PIXELS_SHA256", "0" * 64)
    with pytest.raises(RunError, match="scikit-learn"):
        Digits().load("default", None, 8)


def test_defaults_are_valid_parameters_with_a_reason():
    for method_name, defaults in Digits.method_defaults.items():
        entry, method = METHODS.entry(method_name), METHODS.load(method_name)
        method.Params.model_validate(in_order(method.name, Digits, entry.overrides, name=method_name))
        assert all(len(default.reason) > 20 for default in defaults.values())
        if method_name in ("dmgd", "dit-tuned"):  # the others' defaults are not tuned, they make the method run here
            assert all("validation part" in default.reason for default in defaults.values())


def test_it_is_registered():
    assert DATASETS.load("digits") is Digits

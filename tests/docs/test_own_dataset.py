"""docs/datasets.md: the dataset of one's own that it shows is one."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddbench.benchmark.commands.train_prior import train_prior_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.datasets.base import Dataset
from ddbench.methods.diffusion.priors import training
from ddbench.methods.diffusion.priors.files import find_prior

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
COUNTS = {"daisy": (25, 8), "rose": (3, 8), "tulip": (12, 8)}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS.entries()))
    (code,) = re.findall(r"```python\n(# flowers\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "flowers.py"
    file.write_text(f"{code}# {tmp_path}\n")
    for k, (name, counts) in enumerate(COUNTS.items()):
        for part, count in zip(("train", "test"), counts, strict=True):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.zeros((40, 50 + i, 3), np.uint8)
                pixels[..., k] = 200 + i
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{i} ü.png")
    return file


def test_its_images_are_the_files_with_their_classes(plugin: Path) -> None:
    load_plugin(plugin)
    dataset: Dataset = DATASETS.load("flowers")()
    data = plugin.parent / "data"
    split = dataset.load("default", data, 16)
    assert dataset.train_counts("default", data) == {name: train for name, (train, _) in COUNTS.items()}
    for source, part in ((split.train, 0), (split.test, 1)):
        assert np.bincount(source.labels).tolist() == [counts[part] for counts in COUNTS.values()]
        pixels = source.read(range(len(source)))
        assert pixels.shape == (len(source), 16, 16, 3)
        assert (pixels.reshape(len(source), -1, 3).max(1).argmax(1) == source.labels).all()
    assert not set(split.train.names) & set(split.test.names)
    assert split.split_hash == dataset.split_hash("default", data)
    assert len(split.validation)


def test_what_is_not_there_or_no_such_picture_is_told(plugin: Path) -> None:
    load_plugin(plugin)
    dataset: Dataset = DATASETS.load("flowers")()
    with pytest.raises(UsageError, match="expected a folder train/daisy in --data DIR"):
        dataset.load("default", None, 16)
    deep = plugin.parent / "data" / "test" / "rose" / "deep.png"
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(deep)
    with pytest.raises(UsageError, match=r"deep\.png: mode I;16, 16 bits a channel"):
        dataset.load("default", plugin.parent / "data", 16)


def test_a_prior_can_be_trained_on_it(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny one, in four steps, at a side that a prior of pixels takes."""
    small = partial(training.PriorTraining, hidden=8, heads=1, layers=1, batch=2)
    monkeypatch.setattr(training, "PriorTraining", small)
    words = ["--plugin", plugin, "--data", plugin.parent / "data", "-d", "flowers", "--out", plugin.parent / "prior"]
    done = CliRunner().invoke(train_prior_app, [*map(str, words), "--steps", "4", "--resolution", "8"])
    assert done.exit_code == 0, done.exception
    prior = find_prior(plugin.parent / "prior")
    assert prior.trained_on.startswith("flowers, split default")
    assert prior.metadata.class_ids == tuple(COUNTS)
    assert prior.metadata.resolution == 8

"""`bench train-prior`: which images it reads and at which side, and what is then not tested on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ddbench.benchmark.cells.priors import check_unseen
from ddbench.benchmark.commands.train_prior import train_prior_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.prior_names import NamedPrior
from ddbench.benchmark.planning.run_prior import check_prior, names_of
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.base import SplitData, Subset
from ddbench.datasets.digits import Digits
from ddbench.datasets.hashing import content_hash, split_hash
from ddbench.datasets.validation import validation_of
from ddbench.methods.diffusion.priors.files import PriorFiles, find_prior
from ddbench.methods.diffusion.priors.training import PriorTraining, train_prior


class Opened(Exception):
    """The side at which the images were asked for."""


class AnySide(Digits):
    """Images in files, which can be read at every side."""

    resolution = 224

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        raise Opened(resolution)


@pytest.mark.parametrize(("words", "side"), [((), 224), (("--resolution", "32"), 32)])
def test_images_are_read_at_the_side_asked_for(
    words: tuple[str, ...], side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DATASETS, "load", lambda name: AnySide)
    done = CliRunner().invoke(train_prior_app, ["-d", "digits", "--out", str(tmp_path / "prior"), *words])
    assert isinstance(done.exception, Opened)
    assert done.exception.args == (side,)


def test_a_side_that_a_dataset_has_not_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "prior"
    done = CliRunner().invoke(train_prior_app, ["-d", "digits", "--out", str(out), "--resolution", "16"])
    assert isinstance(done.exception, UsageError)
    assert "digits are 8×8 pixels, got --resolution 16" in str(done.exception)
    assert not out.exists()


# What it was trained on, and what it may be tested on -----------------------------------------------------------------


class Halves(Digits):
    """Two splits of the same images: what one tests, the other trains on."""

    name = "halves"
    splits = ("whole", "turned")
    prior = None

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        opened = Digits().load("default", data_dir, resolution)
        if split == "whole":
            return opened
        some, rest = np.arange(0, len(opened.train), 2), np.arange(1, len(opened.train), 2)
        train, test = Subset(opened.train, some), Subset(opened.train, rest)
        return replace(
            opened, name=split, train=train, test=test, validation=np.arange(0, len(train), 10),
            split_hash=split_hash(train.names, test.names), content_hash=content_hash(train, test),
        )  # fmt: skip

    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        return dict.fromkeys(self.class_ids, 10)

    def split_hash(self, split: str, data_dir: Path | None) -> str:
        return self.load(split, data_dir, 8).split_hash


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    known = DATASETS.load
    names = {"halves": Halves, "halves:validation": validation_of(Halves)}
    monkeypatch.setattr(DATASETS, "load", lambda name: names.get(name) or known(name))


def trained(out: Path, dataset: str, split: str, **recipe: object) -> PriorFiles:
    images = DATASETS.load(dataset)().load(split, None, 8)
    settings = replace(PriorTraining(), hidden=8, heads=1, layers=1, steps=1, batch=2, **recipe)
    train_prior(images, Digits.class_ids, settings, out, seed=0, trained_on=f"{dataset}, split {split}",
                names_of=names_of(dataset))  # fmt: skip
    return find_prior(out)


def test_the_split_is_said(tmp_path: Path, halves: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Halves, "load", lambda self, split, data, side: asked.append(split) or 1 / 0)
    for words in ((), ("--split", "turned")):
        CliRunner().invoke(train_prior_app, ["-d", "halves", "--out", str(tmp_path / "prior"), *words])
    assert asked == ["whole", "turned"]
    done = CliRunner().invoke(train_prior_app, ["-d", "halves", "--out", str(tmp_path / "prior"), "--split", "other"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == "--split other: halves has whole and turned"


def test_a_prior_is_not_tested_on_what_it_was_trained_on(tmp_path: Path, halves: None) -> None:
    """By the images' names where splits differ, and by the splits' hashes before anything is sampled."""
    prior = trained(tmp_path / "prior", "halves", "whole")
    assert "split whole, training part without its 101 validation images" in prior.trained_on
    named = NamedPrior("mine", prior)

    def look(dataset: str, split: str) -> None:
        opened, spec = DATASETS.load(dataset)(), DatasetSpec(name=dataset, split=split, resolution=8)
        check_prior(prior, opened, spec, None)
        check_unseen(named, spec, opened.load(split, None, 8).test)

    look("halves", "whole")
    look("halves:validation", "whole")
    look("digits", "default")  # names of another dataset are other images
    turned = r"prior mine was trained on test images of halves, split turned \(492 of 539, such as .*train one"
    with pytest.raises(UsageError, match=turned):
        look("halves", "turned")
    with pytest.raises(UsageError, match=r"on validation images of halves, split turned \(47 of 54, such as"):
        look("halves:validation", "turned")


def test_a_prior_that_saw_the_validation_images_is_not_tuned_on_them(tmp_path: Path, halves: None) -> None:
    prior = trained(tmp_path / "prior", "halves", "whole", withhold_validation=False)
    spec = DatasetSpec(name="halves:validation", split="whole", resolution=8)
    with pytest.raises(UsageError, match="trained on validation images of halves, split whole: its results"):
        check_prior(prior, DATASETS.load("halves:validation")(), spec, None)
    check_prior(prior, Halves(), DatasetSpec(name="halves", split="whole", resolution=8), None)
    unknown = replace(prior, metadata=prior.metadata.model_copy(update={"train_images": ""}))
    check_unseen(NamedPrior("mine", unknown), spec, Halves().load("turned", None, 8).test)


def test_which_images_it_saw_is_no_part_of_a_priors_hash(tmp_path: Path, halves: None) -> None:
    prior = trained(tmp_path / "prior", "halves", "whole")
    file = tmp_path / "prior" / "prior.json"
    content = json.loads(file.read_text())
    assert len(content["train_images"]) == 12 * 977
    del content["train_images"]
    file.write_text(json.dumps(content))
    assert find_prior(tmp_path / "prior").sha256 == prior.sha256


def test_a_prior_of_which_it_is_not_known_says_so(tmp_path: Path) -> None:
    """As one that has seen all training images of ImageNet, on a part of them."""
    prior = trained(tmp_path / "prior", "digits", "default")
    file = tmp_path / "prior" / "prior.json"
    given = {"methods": "dit,random", "seeds": 0, "ipc": 1, "prior": str(tmp_path / "prior"), "device": "cpu"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "train_split_hashes": []}))
    notes = plan_run(run_spec({}, {**given, "datasets": "digits:validation"})).notes
    (note,) = [note for note in notes if "may have seen" in note]
    assert f"the validation images of digits (trained on {prior.trained_on})" in note
    assert not [note for note in plan_run(run_spec({}, {**given, "datasets": "digits"})).notes if "seen" in note]
    del given["prior"]
    assert not plan_run(run_spec({}, {**given, "datasets": "digits:validation"})).notes, "the bundled one left them out"

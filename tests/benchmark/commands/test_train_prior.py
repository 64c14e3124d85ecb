"""`bench train-prior`: at which side it reads the images."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddbench.benchmark.commands.train_prior import train_prior_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.datasets.base import SplitData
from ddbench.datasets.digits import Digits


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

"""A real Slurm for the tests of this folder: two nodes with two cores and two GPUs each, on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Skips with the reason where there can be none; where CI is set, that is a failure."""
    folder = tmp_path_factory.mktemp("slurm")
    began = subprocess.run(
        [HERE / "slurm_up.sh", folder], env=os.environ | {"SLURM_TEST_ARRAY": "4"}, capture_output=True, text=True
    )
    if began.returncode == 77 and not os.environ.get("CI"):
        pytest.skip(began.stderr.strip())
    assert began.returncode == 0, began.stderr
    try:
        yield Cluster(folder)
    finally:
        subprocess.run([HERE / "slurm_down.sh", folder], check=True, capture_output=True)

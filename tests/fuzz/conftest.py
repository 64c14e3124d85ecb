"""A results folder that was really run: what is checked before it is bundled and merged must be true."""

from __future__ import annotations

from pathlib import Path

import pytest

import ddbench


@pytest.fixture(scope="session")
def really_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set and its student."""
    out = tmp_path_factory.mktemp("real") / "runs"
    done = ddbench.run(
        methods=["random"], datasets=["digits"], ipc=1, seeds=[0], repeats=1, protocol="quick[epochs=1]", out=out
    )
    assert done.ok
    return out

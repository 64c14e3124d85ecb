"""A small results folder that was really run, and bundles that were not made by `bench bundle`."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

import ddbench
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer.bundle import write_bundle


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of one method, two students each."""
    out = tmp_path_factory.mktemp("transfer") / "runs"
    done = ddbench.run(
        methods=["random"], datasets=["digits"], ipc=1, seeds=[0, 1], repeats=2, protocol="quick[epochs=1]", out=out
    )
    assert done.ok
    return out


@pytest.fixture
def runs(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(made_once, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def bundled_once(made_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bundle") / "lab-a.tar.zst"
    write_bundle(Store(made_once), file, by="Lab A")
    return file


@pytest.fixture
def members(bundled_once: Path) -> dict[str, bytes]:
    """The files of a true bundle, by name, without its index."""
    plain = zstandard.ZstdDecompressor().stream_reader(bundled_once.open("rb")).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        found = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    del found["bundle.json"]
    return found


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle with an index that is right of whatever is in it, and says what `changed` says."""

    def write(
        files: Mapping[str, bytes],
        *extra: tuple[tarfile.TarInfo, bytes],
        index: bytes | None = None,
        changed: Mapping[str, Any] = {},
    ) -> Path:
        listed = {name: {"size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for name, b in files.items()}
        value = {"format": 1, "by": "Mallory", "ddbench": "0.1.0", "members": listed, **changed}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in {"bundle.json": index or json.dumps(value).encode(), **files}.items():
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
            for header, data in extra:
                tar.addfile(header, io.BytesIO(data) if data else None)
        path = tmp_path / "hostile.tar.zst"
        path.write_bytes(zstandard.compress(buffer.getvalue()))
        return path

    return write

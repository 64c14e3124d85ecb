"""A stranger's package, built and installed by pip, adds a method to every command by its entry point alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from ddbench.benchmark.commands import new_method

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "stranger-methods"
version = "2.3"

[project.entry-points."ddbench.methods"]
stranger = "stranger_methods:Stranger"
entries = "stranger_methods.variants:ENTRIES"

[tool.setuptools]
packages = ["stranger_methods"]
"""
VARIANTS = """
from ddbench.benchmark.core.registry import Entry
ENTRIES = [Entry("stranger-alone", variant_of="stranger", overrides={"images_mixed": 1}, summary="one image each")]
"""


def skip_unless_packages_can_be_built() -> None:
    """Asks what is installed, not `find_spec("pip")`: setuptools takes that for a running pip, hands `distutils` back
    to the standard library, and cannot be imported in this process any more, which PyTorch's compiler does.
    """
    for needed in ("pip", "setuptools"):
        if not any(distributions(name=needed)):
            pytest.skip(f"{needed} is not installed, so no package can be built")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package, without network."""
    skip_unless_packages_can_be_built()
    root = tmp_path_factory.mktemp("stranger")
    source, target = root / "source", root / "site"
    package = source / "stranger_methods"
    package.mkdir(parents=True)
    plugin, _ = new_method.write("stranger", root / "stranger.py")
    (package / "__init__.py").write_text(plugin.read_text())
    (package / "variants.py").write_text(VARIANTS)
    (source / "pyproject.toml").write_text(PROJECT)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--disable-pip-version-check", "--no-compile", "--target", target, source]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def bench(site: Path, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [Path(sys.executable).with_name("bench"), *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_with_where_it_comes_from(site: Path, tmp_path: Path) -> None:
    listed = {row["name"]: row for row in json.loads(bench(site, "list", "methods", "--json", cwd=tmp_path))}
    assert listed["stranger"]["origin"] == "package stranger-methods 2.3"
    assert listed["stranger-alone"]["variant_of"] == "stranger"


def test_it_distills_by_name_in_cells_of_their_own(site: Path, tmp_path: Path) -> None:
    said = bench(
        site, "distill", "-m", "stranger-alone", "-d", "digits", "--ipc", "1", "--seeds", "0", "--device", "cpu",
        cwd=tmp_path,
    )  # fmt: skip
    assert "10 images" in said
    (cell,) = (tmp_path / "runs" / "cells").iterdir()
    result = json.loads((cell / "result.json").read_text())
    assert (result["status"], result["label"]) == ("ok", "stranger-alone")
    assert result["method"]["name"] == "stranger"
    assert result["method"]["params"] == {"images_mixed": 1}


def test_a_wheel_of_the_benchmark_holds_every_file_of_its_folders(tmp_path: Path) -> None:
    """What pyproject forgets is missed by whoever does not work in a checkout."""
    skip_unless_packages_can_be_built()
    root, source = Path(__file__).parents[3], tmp_path / "source"
    tops = {"api": "ddbench", **{top: f"ddbench/{top}" for top in ("benchmark", "methods", "datasets", "reports")}}
    for top in tops:
        shutil.copytree(root / top, source / top, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--disable-pip-version-check", "--wheel-dir", tmp_path, source]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {
        f"{package}/{file.relative_to(root / top)}"
        for top, package in tops.items()
        for file in (root / top).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

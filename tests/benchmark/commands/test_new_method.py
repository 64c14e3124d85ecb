"""`bench new-method`: what it writes runs as written, and nothing is overwritten."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.commands import new_method
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS


@pytest.fixture(autouse=True)
def _methods_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))


def test_the_files_run_as_they_are_written(tmp_path: Path) -> None:
    plugin, test = new_method.write("my-method2", tmp_path / "mine.py")
    assert (plugin.name, test.name) == ("mine.py", "test_mine.py")
    spec = importlib.util.spec_from_file_location("generated_test", test)
    assert spec is not None
    assert spec.loader is not None
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    assert METHODS.load("my-method2").__name__ == "MyMethod2"
    assert METHODS.entry("my-method2").origin == "plugin mine.py"
    planted = Planted()
    generated.test_it_keeps_its_contract(planted)
    generated.test_a_mixture_of_one_is_a_real_image_of_its_class(planted, tmp_path / "runs")
    assert {name for name in vars(generated) if name.startswith("test_")} == {
        "test_it_keeps_its_contract",
        "test_a_mixture_of_one_is_a_real_image_of_its_class",
    }


def test_the_files_are_clean(tmp_path: Path) -> None:
    """For ruff as a stranger's project has it."""
    files = new_method.write("clean-one", tmp_path / "clean_one.py")
    for check in (["check", "--no-cache", "--select=E,F,I,UP,B,SIM,N,PT,RET"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length=120", *files]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Bad", "expected a name of small letters"),
        ("two--hyphens", "expected a name of small letters"),
        ("-x", "expected a name of small letters"),
        ("../up", "expected a name of small letters"),
        ("a_b", "expected a name of small letters"),
        ("", "expected a name of small letters"),
        ("dmgd", "there is a method dmgd = "),
        ("json", "json.py would hide Python's own module json"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        new_method.write(name, None)
    assert not list(tmp_path.iterdir())


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    with pytest.raises(UsageError, match="test_mine.py: there already, and not overwritten"):
        new_method.write("mine", tmp_path / "mine.py")
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    for out, message in (
        ("no/mine.py", "there is no folder"),
        ("mine.txt", "expected a Python file"),
        ("my-m.py", "can be"),
    ):
        with pytest.raises(UsageError, match=message):
            new_method.write("mine", tmp_path / out)


def test_what_to_do_next_names_the_files(tmp_path: Path) -> None:
    said = new_method.next_steps("mine", Path("mine.py"), Path("test_mine.py"))
    assert "bench check mine.py" in said
    assert "bench run --plugin mine.py --method mine,random,full" in said

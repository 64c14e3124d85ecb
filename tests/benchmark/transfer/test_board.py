"""A public board is a folder of bundles and one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ddbench.benchmark.commands.cli import app
from ddbench.benchmark.commands.report import report_app
from ddbench.benchmark.core.errors import RunError


def report(bundles: Path, to: Path) -> tuple[int, str]:
    done = CliRunner().invoke(report_app, ["--public", "--bundles", str(bundles), "--to", str(to)])
    return done.exit_code, " ".join((done.output + str(done.exception or "")).split())


def test_a_folder_of_bundles_is_a_board(bundled_once: Path, tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    shutil.copy(bundled_once, tmp_path / "bundles" / "a.tar.zst")
    code, said = report(tmp_path / "bundles", tmp_path / "site")
    assert (code, "Left out" in said) == (0, False)
    (page,) = (tmp_path / "site" / "tables").glob("*.html")
    assert "Lab A" in page.read_text()
    assert ">verified<" in page.read_text()


def test_what_is_wrong_is_left_out_and_said(
    bundled_once: Path, members: dict[str, bytes], pack: Any, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    shutil.copy(bundled_once, bundles / "a.tar.zst")
    (bundles / "b.tar.zst").write_bytes(b"no bundle")
    name = next(name for name in members if "evaluate-" in name and name.endswith("result.json"))
    forged = json.loads(members[name])
    forged["metrics"]["acc_last"] = 99.5
    pack({**members, name: json.dumps(forged).encode()}).rename(bundles / "c.tar.zst")
    code, said = report(bundles, tmp_path / "site")
    assert (code, "Left out (2)" in said) == (1, True)
    index = (tmp_path / "site" / "index.html").read_text()
    assert "b.tar.zst</span>: refused: not a bundle" in index
    assert "c.tar.zst</span>: refused: nothing is merged" in index
    assert "Mallory" not in "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))


def test_a_folder_without_bundles(tmp_path: Path) -> None:
    code, said = report(tmp_path, tmp_path / "site")
    assert code != 0
    assert "no bundle (*.tar.zst) in it" in said


def test_the_templates_commands_are_what_it_says(
    bundled_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CI job of docs/board, command by command."""
    shutil.copytree(Path(__file__).parents[3] / "docs" / "board", tmp_path / "board")
    shutil.copy(bundled_once, tmp_path / "board" / "bundles" / "lab-a.tar.zst")
    job = yaml.safe_load((tmp_path / "board" / ".github" / "workflows" / "board.yml").read_text())
    lines = [step["run"] for step in job["jobs"]["verify"]["steps"] if step.get("run", "").startswith("bench ")]
    assert [line.split()[1] for line in lines] == ["merge", "verify-results", "report"]
    monkeypatch.chdir(tmp_path / "board")
    for line in lines:
        words = line.replace("${{ github.run_number }}", "7").replace("bundles/*.tar.zst", "bundles/lab-a.tar.zst")
        done = CliRunner().invoke(app, words.split()[1:])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "board" / "site" / "index.html").exists()


def test_several_bundles_at_once(bundled_once: Path, tmp_path: Path) -> None:
    """One that is refused takes no other with it."""
    (tmp_path / "a.tar.zst").write_bytes(b"no bundle")
    shutil.copy(bundled_once, tmp_path / "b.tar.zst")
    files = [str(tmp_path / name) for name in ("a.tar.zst", "b.tar.zst")]
    done = CliRunner().invoke(app, ["merge", *files, "--runs", str(tmp_path / "runs")])
    assert isinstance(done.exception, RunError)
    assert "a.tar.zst: not a bundle" in str(done.exception)
    assert "merged: 6 cells and 2 sets" in done.output

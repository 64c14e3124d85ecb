"""A public board is a folder of bundles and one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from ddbench.benchmark.commands.report import report_app


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

"""What a site shows lies in the results folder, and pictures are those of the set that their result names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddbench.benchmark.commands.report import report_app as app
from ddbench.reports.quality.records import folder_of
from ddbench.reports.results import rows
from ddbench.reports.site.model import Site

OUT = "a link out of the results folder"
OTHERS = "not the images of its result"


@pytest.fixture
def sets(folder: Any, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two sets that may be published, with pictures."""
    monkeypatch.setattr("ddbench.reports.site.model.may_be_published", lambda method: True)
    folder.method("mine", [[80], [81]])
    return list(folder.pictures())


def report(folder: Any, to: Path, *options: str) -> tuple[str, list[str]]:
    """What the command says, as one line, and the names of the site's pictures."""
    done = CliRunner().invoke(app, ["--runs", str(folder.out), "--to", str(to), *options], catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.output.split()), sorted(path.name for path in (to / "images").glob("*"))


def pages(site: Path) -> str:
    return "".join(page.read_text() for page in site.rglob("*.html"))


def left_out(folder: Any, to: Path, made: Path, why: str) -> None:
    """Of the two sets that one has no picture, publicly or not, and the console, the index and its page say why."""
    for options in ([], ["--public"]):
        site = to / ("public" if options else "private")
        said, pictures = report(folder, site, *options)
        assert len(pictures) == 1
        assert not pictures[0].startswith(made.name)
        assert why in said
        assert why in (site / "index.html").read_text()
        (shown,) = [page for page in (site / "runs").glob("*.html") if "Its pictures are left out" in page.read_text()]
        assert why in shown.read_text()
        assert str(to) not in pages(site) or not options


def test_whole_sets_are_shown(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    said, pictures = report(folder, tmp_path / "site", "--public")
    assert [name[:16] for name in pictures] == sorted(made.name for made in sets)
    assert "Left out" not in said


@pytest.mark.parametrize("part", ["", "3", "3/00001.png"])
def test_a_link_out_of_the_results_is_not_followed(folder: Any, sets: list[Path], tmp_path: Path, part: str) -> None:
    """Not even to the very images of the set: what lies elsewhere is not there to be published."""
    elsewhere = tmp_path / "elsewhere"
    (sets[0] / part).rename(elsewhere)
    (sets[0] / part).symlink_to(elsewhere)
    left_out(folder, tmp_path, sets[0], OUT)


def test_a_link_inside_the_results_is_followed(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    sets[0].rename(folder.out / "moved")
    sets[0].symlink_to("../moved")
    (tmp_path / "link to runs").symlink_to(folder.out)
    folder.out = tmp_path / "link to runs"
    said, pictures = report(folder, tmp_path / "site", "--public")
    assert len(pictures) == 2
    assert "Left out" not in said


def test_a_set_that_is_replaced_is_not_shown(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    shutil.rmtree(sets[0])
    shutil.copytree(sets[1], sets[0])
    left_out(folder, tmp_path, sets[0], OTHERS)


@pytest.mark.parametrize("index", [0, 1])
def test_one_other_picture_and_none_is_shown(folder: Any, sets: list[Path], tmp_path: Path, index: int) -> None:
    file = sets[0] / "7" / f"{index:05d}.png"
    pixels = np.array(Image.open(file))
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(file)
    left_out(folder, tmp_path, sets[0], OTHERS)


def test_an_unshown_picture_counts_too(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    """A sheet is of a set, not of its first images."""
    shutil.copyfile(sets[0] / "9" / "00000.png", sets[0] / "9" / "00011.png")
    left_out(folder, tmp_path, sets[0], OTHERS)


def test_a_damaged_picture_leaves_the_set_out(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    (sets[0] / "9" / "00000.png").write_bytes(b"no image")
    left_out(folder, tmp_path, sets[0], OTHERS)


def test_a_link_to_itself_leaves_the_set_out(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    (sets[0] / "9" / "00000.png").unlink()
    (sets[0] / "9" / "00000.png").symlink_to("00000.png")
    left_out(folder, tmp_path, sets[0], OTHERS)


@pytest.mark.parametrize("file", ["", "result.json", "spec.json"])
def test_cells_elsewhere_are_not_published(folder: Any, sets: list[Path], tmp_path: Path, file: str) -> None:
    """Another folder's result is no part of this one, whatever it says."""
    folder.method("private-method", [[12.34]])
    for cell in [*rows.read(folder.out).distills.values(), *rows.read(folder.out).evaluates.values()]:
        if cell.label == "private-method":
            path = folder.store.cell(cell.id).path / file
            path.rename(tmp_path / f"elsewhere-{cell.id}")
            path.symlink_to(tmp_path / f"elsewhere-{cell.id}")
    said, _ = report(folder, tmp_path / "site")
    assert OUT in said
    assert "private-method" not in pages(tmp_path / "site")
    assert OUT in (tmp_path / "site" / "index.html").read_text()
    assert any(cell.label == "private-method" for cell in rows.read(folder.out).evaluates.values())


def test_plans_and_measurements_elsewhere_are_not_published(folder: Any, sets: list[Path], tmp_path: Path) -> None:
    folder.plan("private-method", folder.distill_spec("private-method"), 1)
    folder_of(folder.store).mkdir()
    (plan,) = folder.store.plans.glob("*.json")
    for number, path in enumerate((plan, folder_of(folder.store) / "x.json")):
        elsewhere = tmp_path / f"elsewhere-{number}.json"
        elsewhere.write_bytes(plan.read_bytes() if path == plan else b"[]")
        path.unlink(missing_ok=True)
        path.symlink_to(elsewhere)
    said, _ = report(folder, tmp_path / "site")
    assert said.count(OUT) == 2
    assert "private-method" not in pages(tmp_path / "site")


def test_nearest_real_images_elsewhere_are_not_copied(
    folder: Any, sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is the link, not the file."""
    from types import SimpleNamespace

    from ddbench.reports.quality.records import Measured

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.png").write_bytes(b"x")
    folder_of(folder.store).symlink_to(elsewhere)
    site = Site(rows.read(folder.out), public=False, margin=1.0)
    run = next(iter(site.runs.values()))
    record: Any = SimpleNamespace(values={}, sheet=SimpleNamespace(file="secret.png"))
    site.__dict__["quality"] = Measured({str(run.image_set_sha256): [record]}, [])
    assert site.nearest(run) is None
    assert [OUT in problem.reason for problem in site.problems] == [True]

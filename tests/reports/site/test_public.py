"""`bench report --public`: no page names a folder, a user or a machine, wherever a result mentions them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddbench.methods.dmgd.method import DMGD
from ddbench.reports.quality.records import Measured
from ddbench.reports.results import rows
from ddbench.reports.results.paths import without_paths
from ddbench.reports.site.build import build_site
from ddbench.reports.site.model import Run, Site


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane doe/secret/w.pt", "w.pt"),
        ("~/secret/w.pt", "w.pt"),
        ("../../secret/w.pt", "w.pt"),
        ("C:\\Users\\jane\\w.pt", "w.pt"),
        ("\\\\server\\share\\w.pt", "w.pt"),
        ("file:///home/jane/w.pt", "w.pt"),
        ("herding[checkpoint=/home/jane doe/w.pt,epochs=3]", "herding[checkpoint=w.pt,epochs=3]"),
        ("herding[checkpoint=secret/w.pt]", "herding[checkpoint=w.pt]"),
        ("[Errno 2] No such file: '/home/jane doe/x y.pt'", "[Errno 2] No such file: 'x y.pt'"),
        ("see /home/jane/log.txt. Then error:/home/jane/b: bad", "see log.txt. Then error:b: bad"),
        ("/home/jane/runs is not there", "runs is not there"),
        ("bench run --prior '/home/jane doe/prior' --seeds 0", "bench run --prior 'prior' --seeds 0"),
    ],
)
def test_of_a_path_the_last_part_stays(text: str, shown: str) -> None:
    assert without_paths(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sets / students, and/or 1/2",
        "https://example.org/a/b",
        "../",
        "tables/digits-ipc10.html",
        "quick[epochs=60,image_size=32]@1",
        "W₂ = 3 / 4; p < 0.05",
        "2×1",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert without_paths(text) == text


HIDDEN = re.compile(r"secret|jane|/home|/srv|/mnt|myhost")


def test_no_page_names_a_folder_or_a_machine(folder_with_paths: Any, tmp_path: Path) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    build_site(folder_with_paths.out, private)
    build_site(folder_with_paths.out, public, public=True)
    named = {p.relative_to(private).parts[0] for p in private.rglob("*.html") if HIDDEN.search(p.read_text())}
    assert named >= {"ablation.html", "compare", "index.html", "overall.html", "runs", "students.html", "tables"}
    for file in public.rglob("*"):
        if file.suffix in (".html", ".json", ".js"):
            found = HIDDEN.search(text := file.read_text())
            assert found is None, (file.name, text[max(0, found.start() - 80) : found.end() + 40])
            assert str(folder_with_paths.out) not in text
    assert "weights-0.pt" in "".join(page.read_text() for page in public.rglob("*.html"))


@pytest.fixture
def folder_with_paths(tmp_path: Path, builder: Any) -> Any:
    """Paths wherever results have free text: parameters, labels, priors, reasons, notes, environments, problems."""
    environment = {
        "python": "3.11",
        "hardware": {"cpu": "Testing CPU", "gpus": []},
        "device": "cpu",
        "variables": {"DATA": "/home/jane/secret"},
        "hostname": "myhost",
        "argv": ["/srv/secret/bench"],
    }
    folder = builder(tmp_path / "runs", environment=environment, warning="read from /mnt/secret/digits")
    params = DMGD.Params().model_dump(mode="json")
    for index in range(2):
        path = f"/home/jane doe/secret/weights-{index}.pt"
        label = f"dmgd[checkpoint={path}]"
        folder.method(label, [[80.0 + index], [82.0]], prior="ab" * 32, params={**params, "checkpoint": path})
        for student in ("convnet3", "resnet18"):
            folder.method(f"other[file={path}]", [[60.0], [61.0]], student=student, params={"file": path, "n": index})
    failed = folder.distill_spec("broken", seed=7)
    folder.distill(failed, "broken", status="failed", reason="[Errno 2] No such file: '/home/jane doe/secret/data'")
    folder.plan("broken", failed, 2)
    for cell in folder.store.cell_dirs():
        file = cell.path / "result.json"
        noted = json.loads(file.read_text())
        if noted.get("prior"):
            noted["prior"] |= {"name": "/srv/secret/prior-of-mine", "trained_on": "what lies in /srv/secret/images"}
        if noted["kind"] == "distill" and noted["status"] == "ok":
            noted["recorded"] = {"weights": "/home/jane/secret/w.pt", "list": ["~jane/secret/x"]}
            noted["plugins"] = {"/home/jane/secret/plugin.py": "ab" * 32}
        file.write_text(json.dumps(noted))
    (folder.out / "cells" / "foreign").mkdir()
    return folder


def test_a_set_in_which_copies_were_found_is_not_shown(folder_with_paths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generative method may be published, unless it has copied."""
    site = Site(rows.read(folder_with_paths.out), public=True, margin=1.0)
    run = next(run for run in site.runs.values() if run.label.startswith("dmgd"))
    monkeypatch.setattr("ddbench.reports.site.model.may_be_published", lambda method: True)
    assert site.shows_images(run)
    assert not _measured(site, run, 2.5).shows_images(run)
    assert _measured(site, run, 0.0).shows_images(run)


def _measured(site: Site, run: Run, copies_percent: float) -> Site:
    record: Any = SimpleNamespace(values={"copies_percent": copies_percent})
    found = Site(site.results, site.public, site.margin)
    found.__dict__["quality"] = Measured({str(run.image_set_sha256): [record]}, [])
    return found

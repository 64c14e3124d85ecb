"""A bundle made in one folder is merged, checked and shown from another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ddbench
from ddbench.benchmark.commands.bundle import bundle_app
from ddbench.benchmark.commands.merge import merge_app
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.provenance import provenance_of
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.transfer.bundle import file_sha256, write_bundle
from ddbench.benchmark.transfer.merge import merge


def command(app: Any, *words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def students(runs: Path) -> list[Path]:
    return sorted((runs / "cells").glob("evaluate-*"))


def test_from_one_folder_to_another(runs: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "a.tar.zst", tmp_path / "other"
    code, said = command(bundle_app, "--runs", runs, "--out", file, "--by", "Lab A")
    assert code == 0, said
    assert "6 cells and 2 sets" in said
    code, said = command(merge_app, file, "--runs", other)
    assert code == 0, said
    assert "merged: 6 cells and 2 sets" in said
    mine, theirs = (ddbench.results(folder).sort_values("cell") for folder in (runs, other))
    assert mine["acc_last"].tolist() == theirs["acc_last"].tolist()
    assert len(ddbench.leaderboard(other)) == len(ddbench.leaderboard(runs)) == 1
    assert sorted(p.name for p in (runs / "sets").iterdir()) == sorted(p.name for p in (other / "sets").iterdir())
    for cell in (other / "cells").iterdir():
        provenance = provenance_of(cell)
        assert provenance is not None
        assert (provenance.first.bundle, provenance.first.by) == ("a.tar.zst", "Lab A")
        assert provenance.first.sha256 == file_sha256(file)
        assert provenance.first.unverified == ()
    code, said = command(merge_app, file, "--runs", other)
    assert (code, "here already: 6 cells" in said) == (0, True)
    assert not list(tmp_path.glob(".ddbench-*"))


SHM = Path("/dev/shm")


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="needs a second file system")
def test_into_a_folder_that_lies_on_another_disk_than_its_link(runs: Path, tmp_path: Path) -> None:
    """As home folders have on clusters: `runs` is a link into scratch."""
    bundle, link = tmp_path / "b.tar.zst", tmp_path / "linked"
    assert command(bundle_app, "--runs", runs, "--out", bundle)[0] == 0
    with TemporaryDirectory(dir=SHM) as scratch:
        Store(Path(scratch)).create()
        link.symlink_to(scratch)
        status, said = command(merge_app, bundle, "--runs", link)
        assert status == 0, said
        assert sorted(p.name for p in (link / "cells").iterdir()) == sorted(p.name for p in (runs / "cells").iterdir())
        assert not [p.name for folder in (tmp_path, link) for p in folder.glob(".ddbench-*")]


def test_equal_results_make_equal_files(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(runs, copy, symlinks=True)
    (copy / "cells" / "half").mkdir()
    for folder, name in ((runs, "a"), (copy, "b")):
        write_bundle(Store(folder), tmp_path / f"{name}.tar.zst")
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()


def test_nothing_of_this_machine_goes_along(runs: Path, tmp_path: Path, members: dict[str, bytes]) -> None:
    for cell in (runs / "cells").iterdir():
        edit(cell / "launch.json", data_dir="/home/jane/secret", plugins=["/home/jane/plugin.py"], prior="/home/x")
    (plan,) = (runs / "plans").glob("*.json")
    plan.write_text(plan.read_text().replace('"data_dir": null', '"data_dir": "/home/jane/secret"'))
    write_bundle(Store(runs), tmp_path / "a.tar.zst")
    merge(tmp_path / "a.tar.zst", Store(tmp_path / "other"))
    for file in (tmp_path / "other").rglob("*.json"):
        assert "/home/" not in file.read_text(), file
    assert not {name.rpartition("/")[2] for name in members} & {"log.txt", "progress.json", "lock", "plan.json"}


def test_without_images_their_hash_is_not_verified(runs: Path, tmp_path: Path) -> None:
    write_bundle(Store(runs), tmp_path / "a.tar.zst", images=False)
    merged = merge(tmp_path / "a.tar.zst", Store(tmp_path / "other"))
    assert not list((tmp_path / "other" / "sets").iterdir())
    assert {finding.what for finding in merged.proof.findings} == {"images"}
    made = next((tmp_path / "other" / "cells").glob("distill-*"))
    provenance = provenance_of(made)
    assert provenance is not None
    assert provenance.last.unverified == ("images: the set's images are not here",)


def test_images_made_elsewhere_travel_as_a_folder_of_the_usual_form(runs: Path, tmp_path: Path) -> None:
    images = tmp_path / "theirs"
    for number in range(10):
        (images / str(number)).mkdir(parents=True)
        for name in ("b", "a"):
            pixels = np.full((8, 8), 20 * number + (name == "b"), np.uint8)
            Image.fromarray(pixels).save(images / str(number) / f"{name}.bmp")
    ddbench.evaluate(images, "digits", protocol="quick[epochs=1]", repeats=1, out=runs)
    made = write_bundle(Store(runs), tmp_path / "a.tar.zst")
    assert made.sets == 3
    shutil.rmtree(images)
    merged = merge(tmp_path / "a.tar.zst", Store(tmp_path / "other"))
    assert merged.proof.findings == []
    frame = ddbench.results(tmp_path / "other")
    folder = frame.loc[frame["method"] == "theirs", "set_folder"].item()
    assert sorted(p.name for p in (Path(folder) / "3").iterdir()) == ["00000.png", "00001.png"]


def test_sets_of_floats_travel_as_they_are(runs: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.uniform(-0.02, 1.02, (10, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "floats.npz", images=images, labels=np.arange(10))
    ddbench.evaluate(
        tmp_path / "floats.npz", "digits", normalisation="none", protocol="quick[epochs=1]", repeats=1, out=runs
    )
    (note,) = write_bundle(Store(runs), tmp_path / "a.tar.zst").notes
    assert note.startswith("1 of the results name a folder")  # the file that the set was read from
    assert merge(tmp_path / "a.tar.zst", Store(tmp_path / "other")).proof.findings == []
    assert len(list((tmp_path / "other" / "sets").glob("*/images.npy"))) == 1


def test_test_images_that_nobody_named_are_found(runs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A set made of test images, by a program that did not look."""
    from ddbench.datasets.digits import Digits

    test = Digits().load("default", None, 8).test
    for label in range(10):
        (tmp_path / "theirs" / str(label)).mkdir(parents=True)
        pixels = test.read(test.of_class(label)[:1])[0]
        Image.fromarray(pixels[..., 0]).save(tmp_path / "theirs" / str(label) / "0.png")
    with monkeypatch.context() as blind:
        blind.setattr("ddbench.benchmark.running.foreign_set.find_test_images", lambda *_: {})
        ddbench.evaluate(tmp_path / "theirs", "digits", protocol="quick[epochs=1]", repeats=1, out=runs)
    with pytest.raises(RunError, match="images wrong: 10 of the images are test images, and it does not say so"):
        write_bundle(Store(runs), tmp_path / "a.tar.zst")


def test_what_is_here_is_never_replaced(runs: Path, tmp_path: Path, members: dict[str, bytes], pack: Any) -> None:
    """Another result of the same cell, true to its own predictions."""
    name = students(runs)[0].name
    predicted = np.load(students(runs)[0] / "predictions.npy")
    labels = np.load(next((runs / "artefacts" / "test-labels").glob("*.npy")))
    np.save(tmp_path / "p.npy", np.where(np.arange(len(labels)) < 300, labels, predicted).astype(np.uint16))
    accuracy = 100 * float((np.load(tmp_path / "p.npy") == labels).mean())
    other = json.loads(members[f"cells/{name}/result.json"])
    look = {"epoch": 1, "accuracy": accuracy, "train_loss": 0.1}
    other["metrics"] |= {"acc_last": accuracy, "acc_best": accuracy, "top5_last": 99.0, "curve": [look]}
    members[f"cells/{name}/result.json"] = json.dumps(other).encode()
    members[f"cells/{name}/predictions.npy"] = (tmp_path / "p.npy").read_bytes()

    def contents() -> dict[Path, bytes]:
        files = (path for part in ("cells", "sets", "artefacts") for path in (runs / part).rglob("*"))
        return {path: path.read_bytes() for path in files if path.is_file()}

    before = contents()
    code, said = command(merge_app, pack(members), "--runs", runs)
    assert code == 1
    assert f"conflict, ours stays: {name} (random): acc_last is" in said
    assert "here already: 5 cells" in said
    assert contents() == before


def test_the_same_numbers_of_another_machine_are_no_conflict(runs: Path, members: dict[str, bytes], pack: Any) -> None:
    name = students(runs)[0].name
    other = json.loads(members[f"cells/{name}/result.json"])
    other["cost"]["seconds"] = 1234.5
    members[f"cells/{name}/result.json"] = json.dumps(other).encode()
    merged = merge(pack(members), Store(runs))
    assert (merged.agreeing, merged.conflicts, len(merged.same)) == ([name], [], 5)


def test_results_that_are_wrong_are_not_bundled(runs: Path, tmp_path: Path) -> None:
    result = students(runs)[0] / "result.json"
    noted = json.loads(result.read_text())
    edit(result, metrics=noted["metrics"] | {"acc_last": 50.0, "acc_best": 50.0})
    with pytest.raises(RunError, match="would be refused"):
        write_bundle(Store(runs), tmp_path / "a.tar.zst")
    assert not (tmp_path / "a.tar.zst").exists()


def test_what_cannot_be_bundled_says_why(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends with \.tar\.zst"):
        write_bundle(Store(runs), tmp_path / "a.zip")
    with pytest.raises(UsageError, match="no finished cells of woof"):
        write_bundle(Store(runs), tmp_path / "a.tar.zst", datasets=["woof"])
    with pytest.raises(UsageError, match="control characters"):
        write_bundle(Store(runs), tmp_path / "a.tar.zst", by="\x1b[31mred")


def test_a_cell_that_is_run_here_is_no_longer_from_a_bundle(runs: Path, tmp_path: Path) -> None:
    write_bundle(Store(runs), tmp_path / "a.tar.zst")
    other = tmp_path / "other"
    merge(tmp_path / "a.tar.zst", Store(other))
    done = ddbench.run(
        methods=["random"], datasets=["digits"], ipc=1, seeds=[0], repeats=1, protocol="quick[epochs=1]",
        out=other, reuse="never",
    )  # fmt: skip
    assert all(provenance_of(item.cell.path) is None for item in done.cells)


def test_what_was_not_verified_is_once_it_can_be(runs: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    for images, unverified in ((False, True), (True, False)):
        write_bundle(Store(runs), tmp_path / "a.tar.zst", images=images)
        merged = merge(tmp_path / "a.tar.zst", other)
        found = [provenance_of(cell.path) for cell in other.cell_dirs() if cell.id.startswith("distill")]
        assert [bool(one and one.last.unverified) for one in found] == [unverified, unverified]
    assert merged.sets == 2


def test_the_whole_training_set_stays_at_home_and_is_verified(runs: Path, tmp_path: Path) -> None:
    ddbench.run(methods=["full"], datasets=["digits"], seeds=0, repeats=1, protocol="quick[epochs=1]", out=runs)
    assert write_bundle(Store(runs), tmp_path / "a.tar.zst").sets == 2
    assert merge(tmp_path / "a.tar.zst", Store(tmp_path / "other")).proof.findings == []

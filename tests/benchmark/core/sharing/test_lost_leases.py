"""Whoever was taken for dead while it worked shows nothing of that work: neither over another's, nor beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.cells.tidy import tidy
from ddbench.benchmark.core.files import remove_strays, whole_file, whole_folder
from ddbench.benchmark.core.sharing import lease as lease_module
from ddbench.benchmark.core.sharing.lease import LeaseLost
from ddbench.benchmark.core.sharing.locks import giving_way, lock, made_once
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec, MethodSpec
from ddbench.benchmark.core.store import Launch, Store
from ddbench.datasets import decoded_cache
from ddbench.datasets.decoded_cache import DecodedCache, Part
from ddbench.datasets.image_sets import write_png

SPEC = DistillSpec(
    method=MethodSpec(name="random", version=1, params={}),
    dataset=DatasetSpec(name="digits", split="default", resolution=8),
    prior_sha256=None,
    ipc=1,
    seed=0,
    precision="fp32",
    device_type="cpu",
)


def take_over(lease: Path) -> None:
    """What a lease looks like that another machine has taken from a dead holder and given back."""
    highest = max(int(path.name[:6]) for path in lease.iterdir() if path.name[0].isdigit())
    (lease / f"{highest + 1:06d}.free").touch()


def put(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "file").write_text(text)


def test_a_folder_of_a_later_holder_is_not_replaced(tmp_path: Path) -> None:
    target, lease = tmp_path / "made", tmp_path / "made.lease"
    refused = pytest.raises(LeaseLost, match="taken for dead")
    with lock(lease), refused, whole_folder(target, existing="replace", lease=lease) as partial:
        (partial / "file").write_text("late")
        take_over(lease)
        put(target, "first")
    assert (target / "file").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "made.lease"]


def test_a_file_of_a_later_holder_is_not_replaced(tmp_path: Path) -> None:
    target, lease = tmp_path / "made", tmp_path / "made.lease"
    refused = pytest.raises(LeaseLost)
    with lock(lease), refused, whole_file(target, lease=lease) as file:
        file.write(b"late")
        take_over(lease)
        target.write_text("first")
    assert target.read_text() == "first"


def test_unfinished_files_that_the_next_holder_swept_are_no_traceback(tmp_path: Path) -> None:
    target, lease = tmp_path / "made", tmp_path / "made.lease"
    refused = pytest.raises(LeaseLost)
    with lock(lease), refused, whole_folder(target, existing="keep", lease=lease) as partial:
        take_over(lease)
        remove_strays(tmp_path)
        (partial / "file").write_text("late")
    with lock(lease), pytest.raises(FileNotFoundError), whole_folder(target, existing="keep", lease=lease) as partial:
        (partial / "no such" / "file").write_text("a fault of its own")


def test_who_lost_the_lease_looks_again(tmp_path: Path) -> None:
    found, lease, makes = list[str](), tmp_path / "lease", 0

    def make() -> str:
        nonlocal makes
        makes += 1
        if makes == 1:
            take_over(lease)
            found.append("another's")
            raise LeaseLost
        return "own"

    assert made_once(lease, lambda: found[0] if found else None, make) == "another's"
    found.clear()
    assert made_once(lease, lambda: found[0] if found else None, make) == "own"
    with pytest.raises(LeaseLost), lock(lease) as held, giving_way(held):
        raise LeaseLost("of another lease: its cell's")


@pytest.mark.parametrize("other_finishes", [True, False])
def test_cells_that_need_an_artefact_have_the_same_one(tmp_path: Path, other_finishes: bool) -> None:
    """Two makers of one artefact differ in rounding on a GPU: whoever used the first must not find the second there."""
    made: list[Mapping[str, np.ndarray]] = []
    cost = {name: Meter(torch.device("cpu"), tmp_path / f"{name}.json") for name in ("slept", "other", "third")}

    def arrays(name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        return DiskArtefacts(tmp_path / "artefacts", cost[name]).arrays("latents", {"of": 1}, make)

    def other() -> Mapping[str, np.ndarray]:
        return {"a": np.array([1.0])}

    def slept() -> Mapping[str, np.ndarray]:
        (lease,) = (tmp_path / "artefacts").glob("latents/*.lease")
        take_over(lease)
        if other_finishes:
            own = dict(lease_module._held)  # else this process holds nothing after the other one, which it plays too
            made.append(arrays("other", other))
            lease_module._held.update(own)
        return {"a": np.array([2.0])}

    made.append(arrays("slept", slept))
    made.append(arrays("third", other))
    assert {float(one["a"][0]) for one in made} == {1.0 if other_finishes else 2.0}
    assert [phase.cached_from is None for phase in cost["slept"].cost(batch_size=1, threads=1).phases] == [True]
    assert any(phase.cached_from for phase in cost["third"].cost(batch_size=1, threads=1).phases)


def test_decoded_images_of_a_later_holder_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, lease = tmp_path / "image.png", tmp_path / "decode.lease"
    write_png(image, np.zeros((4, 4, 3), np.uint8))
    part = Part("n1-train", 1, lambda: [image], "as it was")
    cache = DecodedCache(tmp_path / "decoded", 4)
    fit_image = decoded_cache.fit_image

    def slow(*arguments: object) -> np.ndarray:
        monkeypatch.setattr(decoded_cache, "fit_image", fit_image)
        take_over(lease)
        write_png(image, np.full((4, 4, 3), 255, np.uint8))
        cache.decode([Part("n1-train", 1, lambda: [image], "as it is now")], lambda done: None)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(decoded_cache, "fit_image", slow)
    with lock(lease) as held, giving_way(held):
        cache.decode([part], lambda done: None, lease=lease)
    found = cache.find(Part("n1-train", 1, list, "as it is now"))
    assert found is not None
    assert np.load(found.path).min() == 255


def test_a_cell_that_another_process_goes_on_with_is_neither_cleared_nor_tidied(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    cell = store.add(SPEC, Launch(label="random"))
    (cell.path / "rounds").mkdir()
    with cell.lock():
        take_over(cell.path / "lease")
        with pytest.raises(LeaseLost):
            tidy(cell, SPEC, [])
    assert (cell.path / "rounds").is_dir()

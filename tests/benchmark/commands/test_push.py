"""`bench push`: what is written is the set that the results name, with its numbers; the hub is a stand-in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ddbench.benchmark.commands.cli import app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import DatasetRecord, EvaluateResult, Look, Metrics, SetSource, SoftLabelsRecord
from ddbench.benchmark.core.spec import DatasetSpec, EvaluateSpec, ForeignImages, ProtocolSpec, cell_id
from ddbench.benchmark.core.store import Launch, Store
from ddbench.datasets.digits import Digits
from ddbench.datasets.float_images import store_floats
from ddbench.datasets.foreign.soft_labels import checked
from ddbench.datasets.image_sets import describe_set, write_png

IDS = Digits.class_ids
LABELS = np.arange(10)


def picture_set(folder: Path) -> Path:
    for label in LABELS:
        (folder / str(label)).mkdir(parents=True)
        write_png(folder / str(label) / "any name.png", np.full((8, 8, 1), 20 * label, np.uint8))
    return folder


def float_set(folder: Path) -> Path:
    store_floats(folder, np.random.default_rng(0).random((10, 8, 8, 1), np.float32), LABELS, IDS, {"source": {"a": 1}})
    return folder


def with_student(runs: Path, folder: Path, *, soft: bool = False) -> str:
    """A results folder with one finished student of a set; returns the set's hash."""
    store = Store(runs)
    store.create()
    sha256, labels = describe_set(folder, IDS, 1).sha256, None
    if soft:
        own = checked(0.5 * np.eye(10) + 0.05, LABELS, None, "x")
        store.soft_labels(own.sha256).parent.mkdir(parents=True)
        np.save(store.soft_labels(own.sha256), own.values)
        labels = SoftLabelsRecord(source="x", used=True, sha256=own.sha256, kind=own.kind, label_bytes=own.label_bytes)
    for seed, accuracy in enumerate((61.25, 63.25)):
        spec = EvaluateSpec(
            images=ForeignImages(image_set_sha256=sha256, soft_labels_sha256=labels and labels.sha256),
            dataset=DatasetSpec(name="digits", split="default", resolution=8),
            ipc=1,
            protocol=ProtocolSpec(name="quick", version=1, overrides={}, hash="11" * 32),
            student="convnet3",
            seed=seed,
            device_type="cpu",
        )
        cell = store.add(spec, Launch(label="my<b>set", images=str(folder), soft_labels=labels))
        data = DatasetRecord(
            **dict(spec.dataset), split_hash="a", content_hash="b", n_train=10, n_test=360, warning=None
        )
        look = Look(epoch=1, accuracy=accuracy, train_loss=0.1)
        result = EvaluateResult(
            cell=cell_id(spec), status="ok", label="my<b>set", method=None, dataset=data, ipc=1, distill_seed=None,
            image_set_sha256=sha256, distill_cell=None, protocol=spec.protocol, protocol_label="quick@1",
            modified_protocol=False, student="convnet3", evaluate_seed=seed, soft_labels=labels,
            metrics=Metrics(acc_last=accuracy, acc_best=accuracy, top5_last=None, curve=[look]),
            source=SetSource(address="set.pt"),
        )  # fmt: skip
        write_json(cell.path / "result.json", result.model_dump(mode="json"))
    return sha256


def push(*words: str) -> str:
    done = CliRunner().invoke(app, ["push", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("make", [picture_set, float_set])
def test_what_is_written_is_the_set_with_its_numbers(tmp_path: Path, make: Any) -> None:
    runs, to = tmp_path / "runs", tmp_path / "out"
    sha256 = with_student(runs, make(tmp_path / "set"), soft=make is float_set)
    push(sha256[:8], "--to", str(to), "--runs", str(runs))
    assert describe_set(to, IDS, 1).sha256 == sha256
    card = (to / "README.md").read_text()
    assert "| quick@1 | convnet3 | 360 (default split, 8 px) | 62.25 | 1.41 | 2 |" in card
    assert sha256 in card
    assert "<b>" not in card.replace("\\<b\\>", "").replace("&lt;b&gt;", "")
    assert (to / "soft_labels.npy").exists() == (make is float_set)
    with pytest.raises(UsageError, match="is there already"):
        push(sha256[:8], "--to", str(to), "--runs", str(runs))


def test_what_lies_there_must_be_the_set_of_the_results(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    sha256 = with_student(runs, picture_set(tmp_path / "set"))
    write_png(tmp_path / "set" / "3" / "any name.png", np.full((8, 8, 1), 61, np.uint8))
    with pytest.raises(UsageError, match="does not hold the set that the results name"):
        push(sha256, "--to", str(tmp_path / "out"), "--runs", str(runs))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=f"is no set of these results; .* Sets of .*: {sha256[:16]}"):
        push("ffffff", "--to", str(tmp_path / "out"), "--runs", str(runs))


def test_the_hub_gets_the_folder_and_only_what_may_be_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, Any] = {}

    class Api:
        def create_repo(self, repo: str, **said: Any) -> None:
            calls["repo"] = repo, said

        def upload_folder(self, *, folder_path: Path, **said: Any) -> Any:
            calls["files"] = sorted(path.name for path in folder_path.iterdir())
            calls["said"] = said
            return SimpleNamespace(oid="c" * 40)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    runs = tmp_path / "runs"
    sha256 = with_student(runs, float_set(tmp_path / "set"), soft=True)
    words = (sha256[:8], "--to", "hf:me/set", "--runs", str(runs))
    with pytest.raises(UsageError, match="may show real images.* say --real-images"):
        push(*words)
    shown = push(*words, "--dry-run")
    assert "bench eval --images hf:me/set --dataset digits --protocol soft-stored --class-order dataset" in shown
    assert not calls
    said = push(*words, "--real-images", "--private")
    assert calls["repo"] == ("me/set", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert calls["files"] == ["README.md", "images.npy", "labels.npy", "manifest.json", "soft_labels.npy"]
    assert f"hf:me/set@{'c' * 40} -d digits" in said
    with pytest.raises(UsageError, match="expected hf:OWNER/NAME"):
        push(sha256[:8], "--to", "hf:me/set@v1", "--runs", str(runs))

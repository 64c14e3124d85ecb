"""Committees of teachers on disk: each found, checked and loaded as one teacher is, and named together in results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from ddbench.benchmark.cells import teachers
from ddbench.benchmark.commands.train_teacher import _what
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.result import TeacherRecord
from ddbench.benchmark.planning import teacher_files
from ddbench.benchmark.planning.teacher_files import TeacherCard
from ddbench.benchmark.protocols import memory, networks
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions import soft_bssl, soft_edc, soft_rded
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.subsets import ImageNet1K, Woof
from ddbench.datasets.tiny_imagenet.dataset import TinyImageNet

CPU = torch.device("cpu")
PAIR = "convnet3+timm:resnet18"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and no file in torch's own."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache"
    torch.set_num_threads(threads)


def pair(protocol: Protocol = soft_edc.PROTOCOL, **given: float) -> Protocol:
    return protocol.with_overrides({"image_size": 8, "teacher": PAIR, **given})


def made(network: str, seed: int = 0) -> TeacherCard:
    """With weights as they were drawn."""
    return teachers.train(
        "digits",
        split=None,
        data=None,
        recipe=teachers.recipe(network, 8, epochs=0, seed=seed),
        resolution=8,
        device=CPU,
        progress=lambda note: None,
        on_epoch=lambda epoch, loss: None,
    )


def test_found_loaded_and_named_together() -> None:
    with pytest.raises(Problems) as absent:
        teacher_files.find_all(pair(), Digits, "default", 8, 1)
    commands = re.findall(r"(?m)^  bench train-teacher .*$", str(absent.value))
    assert commands == [
        f"  bench train-teacher --dataset digits --network {network} --image-size 8" for network in PAIR.split("+")
    ], "all that are missing, at once"
    cards = [made(network) for network in PAIR.split("+")]
    found = teacher_files.find_all(pair(), Digits, "default", 8, 1)
    assert found is not None
    assert [(m.network, m.sha256, m.accuracy, m.share) for m in found.record.members] == [
        (card.recipe.network, card.sha256, card.validation_accuracy, 0.5) for card in cards
    ]
    assert (found.record.network, found.record.accuracy, found.record.networks) == (PAIR, None, 2)
    assert TeacherRecord.model_validate_json(found.record.model_dump_json()) == found.record
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    each = [teachers.load(member, Digits.class_ids, pair(), 8, CPU) for member in found.members]
    together = teachers.load_all(found, Digits.class_ids, pair(), 8, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(together(x), (each[0](x) + each[1](x)) / 2)
    assert not any(module.training for module in together.modules())
    assert not any(parameter.requires_grad for parameter in together.parameters())
    made("convnet3", seed=1)
    other = teacher_files.find_all(pair(), Digits, "default", 8, 1)
    assert other is not None
    assert other.record.sha256 != found.record.sha256, "their hash is that of all"


def test_records_of_one_teacher_are_as_they_were() -> None:
    one = TeacherRecord(network="convnet3", sha256="a", accuracy=1.0, accuracy_of="some", recipe={})
    assert "members" not in one.model_dump(mode="json")
    assert one.networks == 1


def put(file: Path, network: str, *, old_names: bool = False) -> torchvision.models.DenseNet:
    """A file of that network's names and shapes, with weights as they were drawn."""
    reference = torchvision.models.get_model(network, weights=None)
    state = {name: tensor for name, tensor in reference.state_dict().items() if "num_batches" not in name}
    if old_names:
        dotted = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): state[name] for name in state}
        assert dotted.keys() != state.keys()
        state = dotted
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return reference.eval()


def test_imagenets_teachers_are_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files of the same names and shapes, whose hashes are pinned instead; DenseNet's has names of old."""
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    protocol = soft_bssl.FOUR.with_overrides({"teacher": "shufflenet_v2_x0_5+densenet121", "learning_rate": 1e-3})
    with pytest.raises(Problems) as absent:
        teacher_files.find_all(protocol, ImageNet1K, "imagenet", 224, 10)
    for known in (TORCHVISION["shufflenet_v2_x0_5"], TORCHVISION["densenet121"]):
        function = known.weights.partition("_Weights")[0].lower()
        assert f"torchvision.models.{function}(weights='IMAGENET1K_V1')" in str(absent.value)
        assert callable(getattr(torchvision.models, function))
        assert str(hub / known.file) in str(absent.value)
    references = [
        put(hub / TORCHVISION["shufflenet_v2_x0_5"].file, "shufflenet_v2_x0_5"),
        put(hub / TORCHVISION["densenet121"].file, "densenet121", old_names=True),
    ]
    with pytest.raises(UsageError, match="expected a SHA-256 that begins with f707e7126e, found"):
        teacher_files.find_all(protocol, ImageNet1K, "imagenet", 224, 10)
    with pytest.raises(UsageError, match=r"is not torchvision's: expected SHA-256 (a639ec97|f707e7126e)"):
        teachers.take_over(ImageNet1K, hub, imagenet_1k="")
    hashes = {}
    for network, digits in (("shufflenet_v2_x0_5", 10), ("densenet121", 64)):
        known = TORCHVISION[network]
        hashes[network] = hashlib.sha256((hub / known.file).read_bytes()).hexdigest()
        monkeypatch.setitem(TORCHVISION, network, dataclasses.replace(known, sha256=hashes[network][:digits]))
    protocol = soft_bssl.FOUR.with_overrides({"teacher": "shufflenet_v2_x0_5+densenet121", "learning_rate": 1e-3})
    assert teachers.take_over(ImageNet1K, hub, imagenet_1k="") is None
    found = teacher_files.find_all(protocol, ImageNet1K, "imagenet", 224, 10)
    assert found is not None
    assert all(member.weights.parent != hub for member in found.members), "those that were taken over"
    assert [(m.sha256, m.accuracy) for m in found.record.members] == [
        (hashes[network], TORCHVISION[network].accuracy) for network in ("shufflenet_v2_x0_5", "densenet121")
    ]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(
            teachers.load_all(found, ImageNet1K.class_ids, protocol, 224, CPU)(images),
            (references[0](images) + references[1](images)) / 2,
        )


def test_who_is_missing_depends_on_dataset_and_ipc() -> None:
    def missing(protocol: Protocol, dataset: type, split: str, ipc: int, side: int = 224) -> set[str]:
        with pytest.raises(Problems) as absent:
            teacher_files.find_all(protocol, dataset, split, side, ipc)
        named = re.findall(rf"torchvision's [\w-]+ \(([\w.-]+)\)|: (\w+) at {side} px", str(absent.value))
        return {file or network for file, network in named}

    four = {"resnet18_bn", "shufflenet_v2_x1_0", "mobilenet_v2", "densenet121"}
    assert missing(soft_bssl.FOUR, Woof, "imagenet", 1) == four
    assert missing(soft_bssl.FOUR, ImageNet1K, "imagenet", 10) == {TORCHVISION[name].file for name in four}
    at_one = four - {"densenet121"} | {"alexnet"}
    assert missing(soft_bssl.FOUR, ImageNet1K, "imagenet", 1) == {TORCHVISION[name].file for name in at_one}
    five = {"resnet18", "resnet50", "shufflenet_v2_x0_5", "mobilenet_v2", "densenet121"}
    assert missing(soft_bssl.FIVE_64, TinyImageNet, "default", 10, 64) == {f"{name}_cifar" for name in five}


def test_a_step_has_room_for_the_largest_teacher() -> None:
    def on_meta(name: str) -> torch.nn.Module:
        return networks.build(name, 10, 64, 3, None, seeds.stream(0, "memory")).to("meta").eval()

    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 10)).to("meta")
    shape = 64, 3, 64, 64
    small, large = (memory.step_bytes(student, shape, on_meta(name)) for name in ("alexnet", "densenet121"))
    both = torch.nn.ModuleList([on_meta("alexnet"), on_meta("densenet121")])
    assert small < large
    assert memory.step_bytes(student, shape, both) == pytest.approx(large, rel=0.05)


def test_run_from_end_to_end(tmp_path: Path) -> None:
    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", "from ddbench.benchmark.commands.cli import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for network in PAIR.split("+"):
        made(network)
    run = (
        "run", "-d", "digits", "-m", "random", "--ipc", "1", "--seeds", "0", "--repeats", "1",
        "--out", str(tmp_path / "runs"), "--student", "convnet3", "--protocol",
    )  # fmt: skip
    done = bench(*run, f"soft-bssl-4[epochs=2,image_size=8,learning_rate=0.001,teacher={PAIR}]")
    assert done.returncode == 0, done.stderr
    (result,) = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("cells/evaluate-*/result.json")]
    assert [member["network"] for member in result["teacher"]["members"]] == PAIR.split("+")
    assert (result["images_seen"], result["stored_label_bytes"]) == (20, 20 * (10 * 2 + 29))
    said = re.sub(r"\s+", " ", done.stdout)
    assert "2 teachers labelled 40 images together for each student" in said
    assert f"0.50 of convnet3 of unknown accuracy ({result['teacher']['members'][0]['sha256'][:8]})" in said


def test_a_teacher_that_guesses_is_told_from_one_that_has_learnt() -> None:
    """Networks without a norm may not learn at all, and a committee would not show it."""
    assert teachers.recipe("alexnet", 224).learning_rate == 0.01
    assert {teachers.recipe(name, 224).learning_rate for name in ("resnet18_bn", "mobilenet_v2")} == {0.1}
    card = made("convnet3")
    told = [_what(card.model_copy(update={"validation_accuracy": accuracy})) for accuracy in (10.0, 60.0, None)]
    assert ["(guessing gives 10.00 %" in text for text in told] == [True, False, False]


def test_the_pin_of_one_teacher_is_resnet18s() -> None:
    """Another network on ImageNet-1K is trained here, as before."""
    other = soft_rded.HALF.with_overrides({"teacher": "resnet50_bn"})
    with pytest.raises(UsageError, match="bench train-teacher --dataset imagenet-1k --network resnet50_bn"):
        teacher_files.find_all(other, ImageNet1K, "imagenet", 224, 10)

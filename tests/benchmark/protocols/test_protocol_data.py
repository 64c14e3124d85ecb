"""Protocols as data: the numbers of the published ones, their hashes, and what may be changed of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.protocols.base import AdamW, MultiStep, Protocol, Sgd
from ddbench.benchmark.protocols.builtin import ENTRIES
from ddbench.benchmark.protocols.network_names import NETWORKS

HARD = ["hard-minimax-sgd", "hard-dmgd-adamw", "hard-igd-adamw"]
TEXTS = ("summary", "notice", "comparable_with_papers", "overrides")

# A published protocol is never edited: results cite these hashes, and numbers under one name must stay comparable.
# If this test fails, do not change the hash here: give the change a new version (name@2) and keep this one runnable.
PUBLISHED = {
    "quick@1": "ce616cf6be464947e5d2bfac73b116ff302255dad356c6b0f57174e622f95082",
    "hard-minimax-sgd@1": "cb9672d2b80fdc20f4cf3d7e67314a02d729ad2a6d6a9202488c7562f0761c0f",
    "hard-dmgd-adamw@1": "6772543beca24c196b47e5ad0f90c77243ec4c242a89e9a21eb907a045ac9d62",
    "hard-igd-adamw@1": "cc79296f7595903cfbc56d23a40406b3492dddf1b35beb18ffc3553f2807e642",
    "soft-rded-shuffle@1": "07ea9c496dd20597cdbc297f111c17c379ee819e65502d7a3f79a3813438684c",
    "soft-rded-half@1": "c58a40426086c34613287863cf9fbd66a4bec682eeb14e54eb18193378e84f13",
    "soft-rded-crop@1": "8d791aa3486f119658cde64e1668c76a65c324f9931db007205b60564bb2a045",
    "soft-delt@1": "646e96f2da6779c2aae44bba3cd642ed694312a912014c99300f91f441161a80",
    "soft-fkd@1": "528540a6ddbdbc7fd070334d247179b10d0662c8aafbd1fbbdc398070b493237",
    "soft-fkd-128@1": "0f198324e60e32d12c5bb225b2571315a456a91bcf54f5d7268e415e400c484c",
    "hard-rethinkdc@1": "431af7caab477b789b6b126d81864228b6fac8ee1c65c41fcee01ffe3f01131d",
    "hard-nodistill@1": "d6c16859e67811603944063e2fc8bb42f9eb91e4c98dcd5e3ab71b6d78c8d740",
    "dc-convnet3@1": "f82b0dbe2f41c7b8add301787c6e75305e919190bfa03beb8453575c87907769",
    "dc-convnet3-zca@1": "b4f7110193654fd2d33a30b9073e47640f8e6e5336602cd7387e28e517da0857",
    "soft-bssl-1@1": "027204d2a0fdef6025a821abda8ea737533361711ca550fa958e895cee0dd644",
    "soft-bssl-4@1": "d52f18a8226dad28df993b29346c9d8d42d43af444dff0e9320af9f30558e7ca",
    "soft-bssl-5@1": "4a17c17beb3530cf6da3c3cefc59fbd50ecfb0d26163154821675afc286deed7",
    "soft-bssl-1-cvdd@1": "0cb3b9de64a40ab881a9d5612eb419d657acca8c157f4fd64364726d9b88b44e",
    "soft-rded-whole-64@1": "2faba2debc0174151bf7ebe4289f7f95d064d688391ef6d65fa65d31a7b56bfd",
    "soft-delt-64@1": "8d62282d1e8af3f480b0856629012bbc5fe254c70d127696c81b25efbabb4496",
    "soft-bssl-5-64@1": "4c261cac878f1297a8dfff1abfde7176a98b7e382408eec015f3896954ca0c7f",
    "soft-bssl-1-cvdd-64@1": "b82152bc34a838e0c6ea8c24793c300e69ef274c9af2f8f86a2f355972b0f091",
    "soft-gvbsm@1": "6c81ebd25c6a0e0bddc0212814bb4150367db933ca7428e7616cd4f20da0eea4",
    "soft-edc@1": "82ffdc7a125665f4f102d161363d2d0a37448a5bd2fa43346eba4308d3de5d6a",
    "soft-edc-linear@1": "4feba1154ae349f704bb3ac34bb4e12231525398402bd4a08a86a7747952693b",
    "soft-budget-3k@1": "d53f83d572fcb4f27b859f6acd359f2d051c8222bd52cbd535bbe1a8bb3ad8f0",
    "soft-budget@1": "51fb2f11226cf7d8095d238c89e3096010a2a7730bb300f2336468ebce5b533b",
    "soft-budget-190k@1": "99a89038a5987f3eb43e9cea6f7a728d58684de4e817619c0cd3b199091ecaae",
    "soft-stored@1": "320e1541a07865efbc5eff9acf9d00c24c8fe6e0dfef2e86443ed439a0af0965",
}


def protocol(name: str) -> Protocol:
    return PROTOCOLS.load(name)


def test_published_protocols_are_never_edited() -> None:
    assert {p.id: p.hash for p in map(protocol, (entry.name for entry in ENTRIES))} == PUBLISHED


def test_entries_say_what_the_protocols_say() -> None:
    for entry in ENTRIES:
        assert (entry.name, entry.summary) == (protocol(entry.name).name, protocol(entry.name).summary)


def test_listing_and_planning_import_no_torch() -> None:
    code = (
        "import sys; from ddbench.benchmark.core.registry import PROTOCOLS; "
        "from ddbench.benchmark.protocols.network_names import NETWORKS; "
        "[PROTOCOLS.load(entry.name).with_overrides({'weight_decay': 0.5}).hash for entry in PROTOCOLS]; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(
    ("num_classes", "table"),
    [
        (10, {1: 3000, 2: 2000, 10: 2000, 11: 1500, 50: 1500, 51: 1000, 200: 1000, 201: 500, 500: 500, 501: 300}),
        (100, {1: 2000, 2: 1300, 10: 1300, 11: 1000, 50: 1000, 51: 600, 200: 600, 201: 300, 500: 300, 501: 200}),
        (101, {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500, 1300: 300}),
    ],
)
def test_hard_epochs(name: str, num_classes: int, table: dict[int, int]) -> None:
    assert {ipc: protocol(name).epochs_for(ipc, num_classes) for ipc in table} == table
    # What --epochs is where a program is given no IPC: 1000 in DMGD's, 300 in Minimax's and IGD's.
    assert protocol(name).epochs_for(None, num_classes) == (1000 if name == "hard-dmgd-adamw" else 300)


def test_dmgd_looks_after_every_epoch_of_the_whole_training_split_alone() -> None:
    dmgd = protocol("hard-dmgd-adamw")
    assert dmgd.look_epochs(1000, full=True) == list(range(1, 1001))
    assert dmgd.look_epochs(1000) == list(range(10, 1001, 10))  # IPC 51 to 200
    for name in ("hard-minimax-sgd", "hard-igd-adamw"):
        assert protocol(name).look_epochs(300, full=True) == list(range(3, 301, 3))
    fewer = dmgd.with_overrides({"looks": 100})
    assert fewer.modified
    assert fewer.look_epochs(1000, full=True) == fewer.look_epochs(1000) == dmgd.look_epochs(1000)


def test_quick_epochs() -> None:
    table = {1: 300, 10: 300, 11: 150, 50: 150, 51: 60, 1000: 60, None: 60}
    assert {ipc: protocol("quick").epochs_for(ipc, 10) for ipc in table} == table
    assert protocol("quick").epochs_for(10, 100) == 300


@pytest.mark.parametrize("ipc", [0, -1])
def test_ipc_below_one_is_refused(ipc: int) -> None:
    with pytest.raises(UsageError, match=f"at least 1, got {ipc}"):
        protocol("quick").epochs_for(ipc, 10)


@pytest.mark.parametrize(
    ("name", "epochs", "every", "looks"),
    [
        ("hard-minimax-sgd", 3000, 30, 100),
        ("hard-minimax-sgd", 2000, 20, 100),
        ("hard-minimax-sgd", 1500, 15, 100),
        ("hard-minimax-sgd", 1300, 13, 100),
        ("hard-minimax-sgd", 1000, 10, 100),
        ("hard-minimax-sgd", 600, 6, 100),
        ("hard-minimax-sgd", 500, 5, 100),
        ("hard-minimax-sgd", 300, 3, 100),
        ("hard-minimax-sgd", 60, 1, 60),
        ("hard-minimax-sgd", 199, 1, 199),
        ("hard-minimax-sgd", 205, 2, 103),
        ("quick", 300, 30, 10),
        ("quick", 150, 15, 10),
        ("quick", 60, 6, 10),
        ("quick", 7, 1, 7),
        ("quick", 1, 1, 1),
    ],
)
def test_looks(name: str, epochs: int, every: int, looks: int) -> None:
    at = protocol(name).look_epochs(epochs)
    assert len(at) == looks
    assert at[0] == every
    assert at[-1] == epochs
    assert all(epoch % every == 0 for epoch in at[:-1])


@pytest.mark.parametrize("epochs", [3000, 2000, 1500, 1300, 300, 60, 7, 3, 2, 1])
def test_learning_rates_equal_torchs_multistep(epochs: int) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2 * epochs // 3, 5 * epochs // 6], gamma=0.2)
    expected = []
    for _ in range(epochs):
        expected.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    assert MultiStep().learning_rates(0.01, epochs) == pytest.approx(expected, rel=1e-12)


def test_optimisers_and_batches() -> None:
    sgd, dmgd, igd, quick = map(protocol, ["hard-minimax-sgd", "hard-dmgd-adamw", "hard-igd-adamw", "quick"])
    assert sgd.optimiser_for(100) == Sgd(learning_rate=0.01, momentum=0.9, weight_decay=5e-4)
    assert sgd.optimiser_for(101) == Sgd(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    adamw = AdamW(learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
    assert {p.optimiser_for(k) for p in (dmgd, igd, quick) for k in (10, 1000)} == {adamw}
    assert [[p.batch_size_for(k) for k in (10, 100, 101)] for p in (sgd, dmgd, igd)] == [[64, 64, 128]] * 3
    assert [quick.batch_size_for(k) for k in (10, 101)] == [64, 64]


def test_what_else_the_specification_fixes() -> None:
    sgd, dmgd, igd, quick = map(protocol, ["hard-minimax-sgd", "hard-dmgd-adamw", "hard-igd-adamw", "quick"])
    assert [p.students_per_set for p in (sgd, dmgd, igd, quick)] == [3, 5, 5, 3]
    assert [p.image_size for p in (sgd, dmgd, igd, quick)] == [224, 224, 256, None]
    assert [p.cutmix for p in (sgd, dmgd, igd, quick)] == [True, True, True, False]
    assert [p.comparable_with_papers for p in (sgd, dmgd, igd, quick)] == [True, True, True, False]
    assert (sgd.mean, igd.mean, igd.std) == ((0.485, 0.456, 0.406), (0.5,), (0.5,))
    assert sgd.students == ("resnet_ap10", "resnet18", "convnet6")
    assert (quick.default_student, quick.width, quick.notice) == ("convnet3", 64, "quick: not comparable with papers")
    # The other two are Minimax's with the differences that their summaries name, and no others.
    same = set(Protocol.model_fields) - {"name", "summary", "notice", "students_per_set"}
    assert {f for f in same if getattr(sgd, f) != getattr(dmgd, f)} == {
        "optimiser", "optimiser_beyond_100_classes", "epochs", "looks_of_full"
    }  # fmt: skip
    assert dmgd.epochs.model_copy(update={"full": 300}) == sgd.epochs == igd.epochs
    same.add("students_per_set")
    assert {f for f in same if getattr(dmgd, f) != getattr(igd, f)} == {
        "image_size", "mean", "std", "epochs", "looks_of_full"
    }  # fmt: skip


def test_hash_covers_numbers_and_leaves_out_texts() -> None:
    quick = protocol("quick")
    assert quick.model_copy(update={"summary": "other", "notice": "other"}).hash == quick.hash
    changes = {
        "version": 2,
        "image_size": 32,
        "antialias": False,
        "mean": (0.4,),
        "students": ("convnet3",),
        "students_per_set": 5,
        "batch_size": 32,
        "schedule": MultiStep(factor=0.1),
        "epochs": quick.epochs.model_copy(update={"full": 61}),
        "augmentation": quick.augmentation.model_copy(update={"shift": 0.2}),
        "cutmix": True,
        "looks": 20,
        "tf32_convolutions": True,
        "cudnn_benchmark": True,
    }
    hashes = {quick.model_copy(update={field: value}).hash for field, value in changes.items()}
    assert len(hashes | {quick.hash}) == len(changes) + 1


def test_hash_covers_the_box_of_cutmix_where_there_is_cutmix() -> None:
    def without_box(published: Protocol) -> str:
        return digest(published.model_dump(mode="json", exclude={"cutmix_box", *TEXTS}, exclude_none=True))

    for mixing in (*map(protocol, HARD), protocol("quick").with_overrides({"cutmix": True})):
        assert mixing.hash != without_box(mixing)
    for plain in (protocol("quick"), protocol("hard-minimax-sgd").with_overrides({"cutmix": False})):
        assert plain.hash == without_box(plain)


def test_overrides_are_named_and_marked() -> None:
    published = protocol("hard-minimax-sgd")
    modified = published.with_overrides({"learning_rate": "3e-2", "epochs": 60})
    assert modified.label == "hard-minimax-sgd[epochs=60,learning_rate=0.03]@1"
    assert (modified.id, modified.modified) == ("hard-minimax-sgd@1", True)
    assert modified.overrides == {"epochs": 60, "learning_rate": 0.03}
    assert not modified.comparable_with_papers
    assert modified.notice == "modified: not comparable with papers"
    assert [modified.epochs_for(ipc, k) for ipc in (1, 50, None) for k in (10, 100)] == [60] * 6
    assert [modified.optimiser_for(k).learning_rate for k in (10, 1000)] == [0.03, 0.03]
    assert modified.optimiser_for(1000).weight_decay == 1e-4
    assert modified.hash != published.hash
    assert published.label == published.id
    assert not published.modified
    with pytest.raises(ValueError, match="modified already"):
        modified.with_overrides({"looks": 3})


def test_every_override_does_what_it_says() -> None:
    published = protocol("hard-minimax-sgd")
    settings = {
        "epochs": 5,
        "batch_size": 7,
        "learning_rate": 0.5,
        "weight_decay": 0.0,
        "image_size": 64,
        "width": 8,
        "looks": 2,
        "cutmix": False,
    }
    modified = published.with_overrides(settings)
    assert modified.overrides == settings
    recipe = modified.optimiser_for(1000)
    assert {
        "epochs": modified.epochs_for(10, 100),
        "batch_size": modified.batch_size_for(1000),
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "image_size": modified.image_size_for(32),
        "width": modified.width,
        "looks": len(modified.look_epochs(4)),
        "cutmix": modified.cutmix,
    } == settings
    assert modified.label.startswith("hard-minimax-sgd[batch_size=7,cutmix=false,epochs=5,")
    assert len({published.with_overrides({key: value}).hash for key, value in settings.items()}) == len(settings)


def test_augmentation_can_be_turned_off() -> None:
    plain = protocol("quick").with_overrides({"augmentation": "false"})
    assert (plain.label, plain.augmentation) == ("quick[augmentation=false]@1", None)
    assert plain.hash != protocol("quick").hash
    assert protocol("quick").with_overrides({"augmentation": True}) == protocol("quick")


def test_override_that_changes_nothing_is_none() -> None:
    same = protocol("hard-minimax-sgd").with_overrides({"image_size": 224, "cutmix": "true"})
    assert same == protocol("hard-minimax-sgd")
    assert not same.modified


def test_all_bad_overrides_are_reported_at_once() -> None:
    bad = {"epochs": 0, "epoch": 5, "learning_rate": "fast", "looks": True, "cutmix": "maybe", "image_size": None}
    with pytest.raises(Problems) as caught:
        protocol("quick").with_overrides({**bad, "batch_size": 8})
    problems = caught.value.problems
    assert len(problems) == len(bad)
    assert all(any(f"{key}={value}" in p or repr(key) in p for p in problems) for key, value in bad.items())
    unknown = next(p for p in problems if "'epoch'" in p)
    assert "allowed: epochs (epochs at every IPC, 1 to 100000); batch_size" in unknown


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_learning_rate_must_be_a_positive_number(value: float) -> None:
    with pytest.raises(Problems, match="learning_rate"):
        protocol("quick").with_overrides({"learning_rate": value})


def test_students_are_checked_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        protocol("quick").check_student("resnet_18", 32)
    with pytest.raises(UsageError, match=r"trains resnet_ap10, resnet18, convnet6; got --student convnet3.*modified"):
        protocol("hard-minimax-sgd").check_student("convnet3", 32)
    protocol("hard-minimax-sgd").with_overrides({"image_size": 32, "epochs": 60}).check_student("convnet3", 32)
    with pytest.raises(UsageError, match="convnet6 needs images of at least 64×64"):
        protocol("hard-minimax-sgd").with_overrides({"image_size": 32}).check_student("convnet6", 32)
    with pytest.raises(UsageError, match="width to 64, but network resnet18_bn has one width"):
        protocol("quick").with_overrides({"epochs": 3}).check_student("resnet18_bn", 32)
    with pytest.raises(UsageError, match=r"convnet6 needs images of at least 64×64 pixels, got 32×32.*use resnet_ap10"):
        protocol("quick").check_student("convnet6", 32)
    protocol("quick").check_student("convnet3", 8)
    protocol("hard-minimax-sgd").check_student("convnet6", 8)


def test_protocols_of_others_are_validated() -> None:
    quick = protocol("quick").model_dump()
    with pytest.raises(ValidationError, match="extra"):
        Protocol.model_validate({**quick, "batchsize": 3})
    with pytest.raises(ValidationError, match="channels must be 3"):
        Protocol.model_validate({**quick, "augmentation": protocol("hard-igd-adamw").augmentation.model_dump()})
    with pytest.raises(ValidationError, match="IPCs must rise"):
        Protocol.model_validate({**quick, "epochs": {"up_to": [[10, 300], [10, 150]], "beyond": 60, "full": 60}})
    with pytest.raises(ValidationError, match="mean and std"):
        Protocol.model_validate({**quick, "mean": (0.5, 0.5)})
    with pytest.raises(ValidationError, match="frozen"):
        protocol("quick").version = 2  # type: ignore[misc]


def test_network_names_are_unique_and_described() -> None:
    names = [network.name for network in NETWORKS]
    assert len(set(names)) == len(names)
    assert all(network.summary for network in NETWORKS)

"""Teachers of the protocols with soft labels: how one is loaded, trained, and carried to another machine.

Where they lie, and what is known of them, is planning's `teacher_files`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save
from torch import nn

from ddbench.benchmark.cells.classifiers import load_state, train_classifier, weights_sha256
from ddbench.benchmark.cells.pretrained import Renormalised, build
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import write_atomically, write_json
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.planning.teacher_files import (
    CURRENT,
    TORCHVISION_FILE,
    FoundTeacher,
    FoundTeachers,
    TeacherCard,
    own_torchvision_file,
    read_card,
    teacher_folder,
)
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD, Protocol
from ddbench.benchmark.protocols.epoch import to_device
from ddbench.benchmark.protocols.soft.committees import Committee
from ddbench.benchmark.protocols.soft.outputs import CommitteeOutput
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION
from ddbench.datasets.base import Dataset
from ddbench.datasets.file_dataset import load_anew
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.pretrained import Pretrained

RATES = {"alexnet": 0.01}
"""Learning rates of networks without a norm, for which torchvision's reference training calls 0.1 too high."""


def recipe(network: str, image_size: int, *, epochs: int = 200, seed: int = 0) -> ClassifierRecipe:
    """The pinned recipe of teachers that are trained here."""
    return ClassifierRecipe(
        network=network,
        image_size=image_size,
        epochs=epochs,
        optimiser="sgd",
        learning_rate=RATES.get(network, 0.1),
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
        batch_size=128,
        augmentation="crop-colour",
        cutmix=False,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=seed,
    )


OLD_DENSE_NAMES = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$")
"""Names of weights in torchvision's files of DenseNets, which date from when a module's name could hold a dot."""


def load_all(
    found: FoundTeachers, class_ids: Sequence[str], protocol: Protocol, image_size: int, device: torch.device
) -> nn.Module:
    """The one that labels, or several as one network (`load`)."""
    networks_ = [load(teacher, class_ids, protocol, image_size, device) for teacher in found.members]
    if not isinstance(protocol.teacher, Committee):
        return networks_[0]
    return CommitteeOutput(networks_, found.shares, scaled=bool(protocol.teacher.scaled)).eval()


def load(
    found: FoundTeacher, class_ids: Sequence[str], protocol: Protocol, image_size: int, device: torch.device
) -> nn.Module:
    """The teacher on the device, in evaluation mode, its parameters frozen; it takes images as the protocol normalises
    them for students.

    Raises:
        RunError: its weights are not the ones that its hash names.
        UsageError: they cannot be read.
    """
    if found.pretrained is not None:
        return _come_trained(found.pretrained, class_ids, protocol, image_size, device)
    try:
        data = found.weights.read_bytes()
        if found.card is None:
            sha256 = hashlib.sha256(data).hexdigest()
            tensors = torch.load(found.weights, map_location="cpu", weights_only=True)
            state = {OLD_DENSE_NAMES.sub(r"\1\2", name): tensor.numpy() for name, tensor in tensors.items()}
            for name in [name for name in state if name.endswith("running_mean")]:
                # Weights from before BatchNorm counted its batches.
                state.setdefault(name.replace("running_mean", "num_batches_tracked"), np.array(0))
        else:
            state = load_arrays(data)
            sha256 = weights_sha256(state)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"the teacher's weights {found.weights} cannot be read: {error}") from error
    if sha256 != found.record.sha256:
        raise RunError(
            f"{found.weights} does not hold the teacher that it should: expected SHA-256 {found.record.sha256}, found "
            f"{sha256}. Get or train it anew."
        )
    network = networks.build(found.record.network, len(class_ids), image_size, generator=torch.Generator())
    load_state(network, state)
    return to_device(network, device).eval().requires_grad_(False)


def _come_trained(
    known: Pretrained, class_ids: Sequence[str], protocol: Protocol, image_size: int, device: torch.device
) -> nn.Module:
    network = build(known, class_ids, image_size)
    network = Renormalised(network, given=(protocol.mean, protocol.std), own=(known.mean, known.std))
    return to_device(network, device).eval().requires_grad_(False)


def train(
    dataset_name: str,
    *,
    split: str | None,
    data: Path | None,
    recipe: ClassifierRecipe,
    resolution: int,
    device: torch.device,
    progress: Callable[[str], None],
    on_epoch: Callable[[int, float], None],
) -> TeacherCard:
    """Train a teacher on a dataset's training images without the validation part, and keep it as the one in use.

    A training that is killed goes on where it was when the same command is given again.

    Raises:
        UsageError: unknown dataset or split, no data, or a recipe that the images do not fit.
        RunError: a loss that is not finite.
    """
    dataset: Dataset = DATASETS.load(dataset_name)()
    split = split or dataset.splits[0]
    if dataset.resolutions is not None and recipe.image_size not in dataset.resolutions:
        allowed = " or ".join(map(str, dataset.resolutions))
        raise UsageError(
            f"{dataset_name} can be opened at {allowed} px, and the teacher is to see {recipe.image_size} px; use a "
            f"dataset that can be opened at any side (woof, nette, …), or --image-size {allowed} where a "
            "network works on that"
        )
    opened = load_anew(dataset, split, data, resolution)
    folder = teacher_folder(dataset_name, split, recipe.network, recipe.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    training = digest([recipe.model_dump(mode="json"), opened.content_hash, device.type])
    began = time.perf_counter()
    arrays = train_classifier(
        recipe,
        opened.train,
        withheld=opened.validation,
        num_classes=len(dataset.class_ids),
        device=device,
        progress=progress,
        on_epoch=on_epoch,
        checkpoint=folder / f"training-{training[:16]}.pt",
    )
    accuracy = float(arrays.pop("validation_accuracy")[0])
    state = {name.partition(".")[2]: array for name, array in arrays.items()}
    card = TeacherCard(
        dataset=dataset_name,
        split=split,
        split_hash=opened.split_hash,
        content_hash=opened.content_hash,
        class_ids=dataset.class_ids,
        recipe=recipe,
        n_train=len(opened.train) - len(opened.validation),
        n_validation=len(opened.validation),
        validation_accuracy=None if np.isnan(accuracy) else round(accuracy, 4),
        sha256=weights_sha256(state),
        device_type=device.type,
        seconds=round(time.perf_counter() - began, 3),
    )
    _keep(folder, card, save(state))
    return card


def export(card: TeacherCard, target: Path) -> None:
    """Copy a teacher into a folder, from which `take_over` reads it on another machine."""
    folder = teacher_folder(card.dataset, card.split, card.recipe.network, card.recipe.image_size)
    target.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(folder / f"{card.sha256[:16]}{suffix}", target / f"{card.sha256[:16]}{suffix}")


def take_over(dataset: type[Dataset], source: Path, *, imagenet_1k: str) -> TeacherCard | None:
    """Keep a teacher that was made elsewhere as the one in use: a folder that `export` filled; for ImageNet-1K, a file
    of torchvision's, or a folder that holds some.

    Args:
        imagenet_1k: SHA-256 of the ResNet-18's.

    Returns:
        its card; None for torchvision's, which has none.

    Raises:
        UsageError: no teacher of this dataset there, or not the pinned file.
    """
    if dataset.class_ids == IMAGENET_1K and _take_over_torchvisions(source, imagenet_1k):
        return None
    cards = sorted(source.glob("*.json")) if source.is_dir() else []
    if len(cards) != 1:
        wanted = f"the file {TORCHVISION_FILE}, or " if dataset.class_ids == IMAGENET_1K else ""
        raise UsageError(
            f"{source}: expected {wanted}a folder with one teacher as `bench train-teacher --out` writes it "
            f"(<hash>.json and <hash>.safetensors), found {len(cards)} such"
        )
    card = read_card(cards[0])
    if (card.dataset, card.class_ids) != (dataset.name, dataset.class_ids):
        raise UsageError(f"{cards[0]} is a teacher of {card.dataset}, not of {dataset.name}")
    weights = cards[0].with_suffix(".safetensors")
    try:
        content = weights.read_bytes()
        sha256 = weights_sha256(load_arrays(content))
    except Exception as error:  # a file from elsewhere may hold anything
        raise UsageError(f"{weights} cannot be read as a teacher's weights: {error}") from error
    if sha256 != card.sha256:
        raise UsageError(f"{weights} is damaged: expected SHA-256 {card.sha256}, found {sha256}")
    _keep(teacher_folder(card.dataset, card.split, card.recipe.network, card.recipe.image_size), card, content)
    return card


def _take_over_torchvisions(source: Path, resnet18: str) -> bool:
    """Keep torchvision's files of ImageNet-1K, one or a folder with some; whether there were any."""
    pinned = {known.file: known.sha256 for known in TORCHVISION.values()} | {TORCHVISION_FILE: resnet18}
    files = [source / name for name in pinned] if source.is_dir() else [source]
    there = [file for file in files if file.name in pinned and file.is_file()]
    for file in there:
        content = file.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        if not sha256.startswith(pinned[file.name]):
            raise UsageError(
                f"{file} is not torchvision's: expected SHA-256 {pinned[file.name]}, found {sha256}. Get it anew."
            )
        own = own_torchvision_file(file.name)
        own.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(own, content)
    return bool(there)


def _keep(folder: Path, card: TeacherCard, weights: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{card.sha256[:16]}.safetensors", weights)
    write_json(folder / f"{card.sha256[:16]}.json", card.model_dump(mode="json"))
    write_json(folder / CURRENT, {"sha256": card.sha256})

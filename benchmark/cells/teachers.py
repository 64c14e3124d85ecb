"""Teachers of the protocols with soft labels: where they lie, what is known of them, how one is trained.

    <cache>/teachers/<dataset>/<split>/<network>-<side>px/<hash>.safetensors  weights, named by their content
    <cache>/teachers/<dataset>/<split>/<network>-<side>px/<hash>.json         `TeacherCard`
    <cache>/teachers/<dataset>/<split>/<network>-<side>px/current.json        the hash of the one that runs use

The last one trained or taken over is the one in use. A cell's id holds its teacher's hash, so students of different
teachers are never mixed. For ImageNet-1K the teacher is torchvision's, one file pinned by the protocol.

Finding a teacher imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.files import write_atomically, write_json
from ddbench.benchmark.core.result import TeacherRecord
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD, Protocol
from ddbench.datasets.base import Dataset
from ddbench.datasets.cache import cache_dir, read_json
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.methods.classifier import ClassifierRecipe

if TYPE_CHECKING:
    import torch
    from torch import nn

TORCHVISION_FILE = "resnet18-f37072fd.pth"
TORCHVISION_NETWORK = "resnet18_bn"
TORCHVISION_ACCURACY = 69.758
"""Top-1 on ImageNet-1K's validation images, percent, as torchvision publishes it for `IMAGENET1K_V1`."""
CURRENT = "current.json"


def recipe(network: str, image_size: int, *, epochs: int = 200, seed: int = 0) -> ClassifierRecipe:
    """The pinned recipe of teachers that are trained here."""
    return ClassifierRecipe(
        network=network,
        image_size=image_size,
        epochs=epochs,
        optimiser="sgd",
        learning_rate=0.1,
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


class TeacherCard(BaseModel):
    """What is known of a teacher that was trained here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    split: str
    split_hash: str
    content_hash: str
    """Of the images at the resolution at which the dataset was opened."""
    class_ids: tuple[str, ...]
    recipe: ClassifierRecipe
    n_train: int
    """Images that it was trained on."""
    n_validation: int
    """Training images that were withheld, and on which it was tested."""
    validation_accuracy: float | None
    """Percent; None where nothing was withheld."""
    sha256: str
    """Of its weights."""
    device_type: str
    seconds: float
    """That the last start of its training took."""


@dataclass(frozen=True)
class FoundTeacher:
    """A teacher on disk."""

    weights: Path
    record: TeacherRecord
    card: TeacherCard | None
    """None for torchvision's."""


def find(protocol: Protocol, dataset: type[Dataset], split: str, resolution: int) -> FoundTeacher | None:
    """The teacher of a protocol on a dataset; None for a protocol with hard labels.

    Raises:
        UsageError: there is none, or it does not fit; the message says how to get one.
    """
    if protocol.teacher is None:
        return None
    network, image_size = protocol.teacher.network, protocol.image_size_for(resolution)
    if dataset.class_ids == IMAGENET_1K and network == TORCHVISION_NETWORK:
        return _torchvision(protocol.teacher.imagenet_1k)
    folder = _folder(dataset.name, split, network, image_size)
    options = "" if network == TORCHVISION_NETWORK else f" --network {network}"
    options += "" if split == dataset.splits[0] else f" --split {split}"
    options += "" if image_size == 224 else f" --image-size {image_size}"
    command = f"bench train-teacher --dataset {dataset.name}{options}"
    sha256 = read_json(folder / CURRENT).get("sha256")
    if sha256 is None:
        raise UsageError(
            f"protocol {protocol.label} needs a teacher for {dataset.name}, split {split}: {network} at {image_size} "
            f"px, trained on its training images. There is none in {folder}. Train one with\n"
            f"  {command}\n"
            f"or take over one that was trained elsewhere: {command} --from FOLDER"
        )
    card = _read_card(folder / f"{sha256[:16]}.json")
    if card.class_ids != dataset.class_ids:
        raise UsageError(
            f"the teacher in {folder} knows other classes than {dataset.name} has; train it anew: {command}"
        )
    if (card.recipe.mean, card.recipe.std) != (protocol.mean, protocol.std):
        raise UsageError(
            f"the teacher in {folder} takes images normalised by {card.recipe.mean} and {card.recipe.std}, but "
            f"protocol {protocol.label} normalises by {protocol.mean} and {protocol.std}"
        )
    record = TeacherRecord(
        network=network,
        sha256=card.sha256,
        accuracy=card.validation_accuracy,
        accuracy_of=f"{card.n_validation} training images that it did not see",
        recipe=card.recipe.model_dump(mode="json"),
    )
    return FoundTeacher(folder / f"{card.sha256[:16]}.safetensors", record, card)


def check_split(found: FoundTeacher, split_hash: str, dataset: str) -> None:
    """Refuse a teacher that was trained on another split than the one that is tested on.

    Raises:
        UsageError: it was.
    """
    if found.card is not None and found.card.split_hash != split_hash:
        raise UsageError(
            f"the teacher of {dataset} was trained on a split with hash {found.card.split_hash}, but the split is now "
            f"{split_hash}: it may have seen test images. Train it anew: bench train-teacher --dataset {dataset}"
        )


def load(found: FoundTeacher, num_classes: int, image_size: int, device: torch.device) -> nn.Module:
    """The teacher on the device, in evaluation mode, its parameters frozen.

    Raises:
        RunError: its weights are not the ones that its hash names.
        UsageError: they cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays

    from ddbench.benchmark.cells.classifiers import load_state, weights_sha256
    from ddbench.benchmark.protocols import networks
    from ddbench.benchmark.protocols.epoch import to_device

    try:
        data = found.weights.read_bytes()
        if found.card is None:
            sha256 = hashlib.sha256(data).hexdigest()
            tensors = torch.load(found.weights, map_location="cpu", weights_only=True)
            state: Mapping[str, np.ndarray] = {name: tensor.numpy() for name, tensor in tensors.items()}
            # Weights from before BatchNorm counted its batches.
            state = {**state, **_batch_counts(state)}
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
    network = networks.build(found.record.network, num_classes, image_size, generator=torch.Generator())
    load_state(network, state)
    return to_device(network, device).eval().requires_grad_(False)


def _batch_counts(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = (name.replace("running_mean", "num_batches_tracked") for name in state if name.endswith("running_mean"))
    return {name: np.array(0) for name in names if name not in state}


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
    from safetensors.numpy import save

    from ddbench.benchmark.cells.classifiers import train_classifier, weights_sha256
    from ddbench.benchmark.core.registry import DATASETS

    dataset: Dataset = DATASETS.load(dataset_name)()
    split = split or dataset.splits[0]
    if dataset.resolutions is not None and recipe.image_size not in dataset.resolutions:
        allowed = " or ".join(map(str, dataset.resolutions))
        raise UsageError(
            f"{dataset_name} can be opened at {allowed} px, and the teacher is to see {recipe.image_size} px; use a "
            f"dataset that can be opened at any side (woof, nette, …), or --image-size {allowed} where a "
            "network works on that"
        )
    opened = dataset.load(split, data, resolution)
    folder = _folder(dataset_name, split, recipe.network, recipe.image_size)
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
    folder = _folder(card.dataset, card.split, card.recipe.network, card.recipe.image_size)
    target.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(folder / f"{card.sha256[:16]}{suffix}", target / f"{card.sha256[:16]}{suffix}")


def take_over(dataset: type[Dataset], source: Path, *, imagenet_1k: str) -> TeacherCard | None:
    """Keep a teacher that was made elsewhere as the one in use: a folder that `export` filled; for ImageNet-1K,
    torchvision's file, or a folder that holds it.

    Args:
        imagenet_1k: SHA-256 of that file.

    Returns:
        its card; None for torchvision's, which has none.

    Raises:
        UsageError: no teacher of this dataset there, or not the pinned file.
    """
    from safetensors.numpy import load as load_arrays

    from ddbench.benchmark.cells.classifiers import weights_sha256

    file = source / TORCHVISION_FILE if source.is_dir() else source
    if dataset.class_ids == IMAGENET_1K and file.name == TORCHVISION_FILE and file.is_file():
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if sha256 != imagenet_1k:
            raise UsageError(f"{file} is not torchvision's: expected SHA-256 {imagenet_1k}, found {sha256}")
        _own_torchvision_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_own_torchvision_file(), file.read_bytes())
        return None
    cards = sorted(source.glob("*.json")) if source.is_dir() else []
    if len(cards) != 1:
        wanted = f"the file {TORCHVISION_FILE}, or " if dataset.class_ids == IMAGENET_1K else ""
        raise UsageError(
            f"{source}: expected {wanted}a folder with one teacher as `bench train-teacher --out` writes it "
            f"(<hash>.json and <hash>.safetensors), found {len(cards)} such"
        )
    card = _read_card(cards[0])
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
    _keep(_folder(card.dataset, card.split, card.recipe.network, card.recipe.image_size), card, content)
    return card


def _keep(folder: Path, card: TeacherCard, weights: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{card.sha256[:16]}.safetensors", weights)
    write_json(folder / f"{card.sha256[:16]}.json", card.model_dump(mode="json"))
    write_json(folder / CURRENT, {"sha256": card.sha256})


def _folder(dataset: str, split: str, network: str, image_size: int) -> Path:
    return cache_dir() / "teachers" / dataset / split / f"{network.replace(':', '-')}-{image_size}px"


def _read_card(file: Path) -> TeacherCard:
    try:
        return TeacherCard.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{file} is no teacher's card: {error}") from error


def _own_torchvision_file() -> Path:
    return cache_dir() / "teachers" / TORCHVISION_FILE


def _torchvision(sha256: str) -> FoundTeacher:
    places = [_own_torchvision_file(), _hub_file()]
    weights = next((place for place in places if place.is_file()), None)
    if weights is None:
        raise UsageError(
            f"the teacher for ImageNet-1K, torchvision's ResNet-18 ({TORCHVISION_FILE}), is not on this machine. With "
            "access to the internet, fetch it with\n"
            "  python -c \"import torchvision; torchvision.models.resnet18(weights='IMAGENET1K_V1')\"\n"
            f"or copy that file to {places[0]} or {places[1]}; "
            "or name it: bench train-teacher --dataset imagenet-1k --from FILE"
        )
    record = TeacherRecord(
        network=TORCHVISION_NETWORK,
        sha256=sha256,
        accuracy=TORCHVISION_ACCURACY,
        accuracy_of="ImageNet-1K's validation images, as torchvision publishes it",
        recipe={"torchvision": "ResNet18_Weights.IMAGENET1K_V1"},
    )
    return FoundTeacher(weights, record, None)


def _hub_file() -> Path:
    """Where `torch.hub` keeps the file, by its documented rule, without importing torch."""
    home = os.environ.get("TORCH_HOME")
    if home is None:
        home = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints" / TORCHVISION_FILE

"""Teachers of the protocols with soft labels on disk: where they lie, and what is known of them. Imports no torch.

    <cache>/teachers/<dataset>/<split>/<network>-<size>px/<hash>.safetensors  weights, named by their content
    <cache>/teachers/<dataset>/<split>/<network>-<size>px/<hash>.json         `TeacherCard`
    <cache>/teachers/<dataset>/<split>/<network>-<size>px/current.json        the hash of the one that runs use

The last one trained or taken over is the one in use. A cell's id holds its teacher's hash, so students of different
teachers are never mixed. For ImageNet-1K the teacher is torchvision's, one file pinned by the protocol. A classifier of
ImageNet-1K that comes trained (`methods/pretrained.py`) is the teacher where a run names it. Where several networks
label together, each of them is such a teacher, and their hash is one over all of theirs.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ddbench.benchmark.core.errors import Collector, UsageError
from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.result import MemberRecord, TeacherRecord
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.protocols import network_names
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.soft.committees import Committee, Member
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION
from ddbench.datasets.base import Dataset
from ddbench.datasets.cache import cache_dir, read_json
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.pretrained import PRETRAINED, Pretrained

TORCHVISION_NETWORK = "resnet18_bn"
"""The network of the protocols with one teacher."""
TORCHVISION_FILE = TORCHVISION[TORCHVISION_NETWORK].file
CURRENT = "current.json"
SHA256_DIGITS = 64


class TeacherCard(BaseModel):
    """What is known of a teacher that was trained here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    split: str
    split_hash: str
    content_hash: str
    """Hash of the images at the resolution at which the dataset was opened."""
    class_ids: tuple[str, ...]
    recipe: ClassifierRecipe
    n_train: int
    """Images that it was trained on."""
    n_validation: int
    """Training images that were withheld, and on which it was tested."""
    validation_accuracy: float | None
    """Accuracy on them, percent; None where nothing was withheld."""
    sha256: str
    """SHA-256 of its weights."""
    device_type: str
    seconds: float
    """Seconds that the last start of its training took."""


@dataclass(frozen=True)
class FoundTeacher:
    """A teacher on disk."""

    weights: Path
    record: TeacherRecord
    card: TeacherCard | None
    """What is known of its training; None for one that was not trained here."""
    pretrained: Pretrained | None = None
    """What is known of one that comes trained."""


@dataclass(frozen=True)
class FoundTeachers:
    """The networks that label under a protocol, on disk."""

    members: tuple[FoundTeacher, ...]
    record: TeacherRecord
    """Of the one, or of all together."""
    shares: tuple[float, ...] = (1.0,)
    """Of their outputs in the labels."""


def find_all(
    protocol: Protocol, dataset: type[Dataset], split: str, resolution: int, ipc: int | None
) -> FoundTeachers | None:
    """The teachers of a protocol on a dataset at `ipc` images per class; None for a protocol with none.

    Raises:
        Problems: some are not there, or do not fit; the messages say how to get them.
        UsageError: the protocol has none for this dataset.
    """
    members, problems, found = protocol.teachers_for(dataset.name, ipc), Collector(), list[FoundTeacher]()
    if not members:
        return None
    for member in members:
        with problems.catching():
            found.append(_find(protocol, member, dataset, split, resolution))
    problems.raise_any()
    if not isinstance(protocol.teacher, Committee):
        return FoundTeachers(tuple(found), found[0].record)
    shares = protocol.teacher.shares(members)
    return FoundTeachers(tuple(found), _of_committee(protocol.teacher, found, shares), shares)


def _of_committee(committee: Committee, found: list[FoundTeacher], shares: tuple[float, ...]) -> TeacherRecord:
    records = [teacher.record for teacher in found]
    return TeacherRecord(
        network="+".join(record.network for record in records),
        sha256=digest([[record.network, record.sha256] for record in records]),
        accuracy=None,
        accuracy_of="not measured of their common output; of each, in members",
        recipe={"scaled": bool(committee.scaled), "mode": committee.mode or "eval"},
        members=[
            MemberRecord(**record.model_dump(exclude={"members"}), share=share)
            for record, share in zip(records, shares, strict=True)
        ],
    )


def find(protocol: Protocol, dataset: type[Dataset], split: str, resolution: int) -> FoundTeacher | None:
    """The teacher of a protocol with one; None for a protocol with hard labels.

    Raises:
        UsageError: there is none, or it does not fit; the message says how to get one.
    """
    found = find_all(protocol, dataset, split, resolution, None)
    return None if found is None else found.members[0]


def _find(protocol: Protocol, member: Member, dataset: type[Dataset], split: str, resolution: int) -> FoundTeacher:
    network, image_size = member.network, protocol.image_size_for(resolution)
    if network in PRETRAINED:
        return _pretrained(PRETRAINED[network], dataset, image_size)
    # The pin of a protocol with one teacher is ResNet-18's, whatever network an override names.
    pinned = network == TORCHVISION_NETWORK or isinstance(protocol.teacher, Committee)
    if dataset.class_ids == IMAGENET_1K and pinned and member.imagenet_1k is not None:
        return _torchvision(network, member.imagenet_1k)
    folder = teacher_folder(dataset.name, split, network, image_size)
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
    card = read_card(folder / f"{sha256[:16]}.json")
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


def teacher_folder(dataset: str, split: str, network: str, image_size: int) -> Path:
    """Where the teachers of a network on a split lie."""
    return cache_dir() / "teachers" / dataset / split / f"{network.replace(':', '-')}-{image_size}px"


def read_card(file: Path) -> TeacherCard:
    """Read a teacher's card.

    Raises:
        UsageError: it is none.
    """
    try:
        return TeacherCard.model_validate_json(read_regular(file))
    except (OSError, ValidationError) as error:
        raise UsageError(f"{file} is no teacher's card: {error}") from error


def own_torchvision_file(file: str = TORCHVISION_FILE) -> Path:
    """Where a file of torchvision's lies once it was taken over."""
    return cache_dir() / "teachers" / file


def _pretrained(known: Pretrained, dataset: type[Dataset], image_size: int) -> FoundTeacher:
    reason = known.unsupported(dataset)
    if reason is not None:
        raise UsageError(f"teacher {known.network}: {reason}")
    network_names.check_image_size(known.network, image_size)
    record = TeacherRecord(
        network=known.network,
        sha256=known.sha256,
        accuracy=known.accuracy,
        accuracy_of=known.accuracy_of,
        recipe={"pretrained": known.source, "mean": list(known.mean), "std": list(known.std)},
    )
    return FoundTeacher(known.checked(), record, None, known)


def _torchvision(network: str, pinned: str) -> FoundTeacher:
    known = TORCHVISION[network]
    places = [own_torchvision_file(known.file), _hub_file(known.file)]
    weights = next((place for place in places if place.is_file()), None)
    if weights is None:
        called = "ResNet-18" if network == TORCHVISION_NETWORK else network
        function, _, enum = known.weights.partition("_Weights.")
        raise UsageError(
            f"the teacher for ImageNet-1K, torchvision's {called} ({known.file}), is not on this machine. With "
            "access to the internet, fetch it with\n"
            f"  python -c \"import torchvision; torchvision.models.{function.lower()}(weights='{enum}')\"\n"
            f"or copy that file to {places[0]} or {places[1]}; "
            "or name it: bench train-teacher --dataset imagenet-1k --from FILE"
        )
    record = TeacherRecord(
        network=network,
        sha256=pinned if len(pinned) == SHA256_DIGITS else _checked_sha256(weights, pinned),
        accuracy=known.accuracy,
        accuracy_of="ImageNet-1K's validation images, as torchvision publishes it",
        recipe={"torchvision": known.weights},
    )
    return FoundTeacher(weights, record, None)


def _checked_sha256(file: Path, pinned: str) -> str:
    """The whole hash of a file of which the first digits are known."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if not found.startswith(pinned):
        raise UsageError(
            f"{file} is not torchvision's: expected a SHA-256 that begins with {pinned}, found {found}. Get it anew."
        )
    return found


def _hub_file(file: str = TORCHVISION_FILE) -> Path:
    """Where `torch.hub` keeps a file, by its documented rule, without importing torch."""
    home = os.environ.get("TORCH_HOME")
    if home is None:
        home = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints" / file

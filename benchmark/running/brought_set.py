"""A set made elsewhere, wherever it lies, as a folder that cells read: a folder of images as it is, a file of tensors
decoded into the results folder, a repository of the hub fetched first."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import whole_file, whole_folder, write_json
from ddbench.benchmark.core.result import SetSource, SoftLabelsRecord
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.protocols.base import Protocol
from ddbench.datasets.base import Dataset
from ddbench.datasets.float_images import FloatImages, store_floats
from ddbench.datasets.foreign import hub
from ddbench.datasets.foreign.soft_labels import Beside, Kind, checked, read_beside
from ddbench.datasets.foreign.tensors import TensorSet, read_tensors, tensor_file
from ddbench.datasets.image_sets import image_name, pixels_sha256, set_sha256, write_png
from ddbench.datasets.whitening import Zca


@dataclass(frozen=True)
class TensorOptions:
    """What a user says of a file of tensors."""

    normalisation: str | None = None
    """How its floats were made from pixels in 0…1 (`foreign.normalisation`)."""
    set_index: int | None = None
    """Which of a file's sets is meant, from 0."""

    def refuse(self, images: str) -> None:
        """Raises UsageError if something is said, of what is no file of tensors."""
        for option, value in (("--normalisation", self.normalisation), ("--set-index", self.set_index)):
            if value is not None:
                raise UsageError(f"{option} {value}: {images} is a folder of images, which it says nothing of")


@dataclass(frozen=True)
class BroughtSet:
    """A set as cells will read it."""

    folder: Path
    name: str
    """What leaderboards call it where nothing is said."""
    source: SetSource | None
    """None for a folder of images on this machine, whose launch file names it."""
    class_order: str | None
    """Which folder is which class: what the user said, or the hub's known sets; of tensors, done already."""
    tensors: TensorSet | None = None
    notes: list[str] = field(default_factory=list)


@contextmanager
def brought(
    images: str,
    dataset: type[Dataset],
    out: Path,
    options: TensorOptions,
    class_order: str | None,
    *,
    keep: bool,
    zca: Callable[[int], Zca] | None = None,
) -> Iterator[BroughtSet]:
    """Find a set and bring it into a form that cells read.

    Args:
        images: folder, file, or address on the hub.
        out: the results folder.
        zca: as `read_tensors` takes it.
        keep: put decoded tensors into the results folder, as `sets/<hash>`; else they are gone afterwards.

    Raises:
        UsageError: nothing there, or what must be said of it.
    """
    if not images.strip():  # which as a path is the folder that one stands in
        raise UsageError("--images is empty; expected a folder of images, a file of tensors, or hf:OWNER/NAME")
    path, source, notes = Path(images).expanduser(), SetSource(address=images), list[str]()
    name = path.resolve().name if path.is_dir() else "/".join(path.resolve().parts[-2:])  # images_best.pt says little
    if images.startswith(hub.PREFIX):
        address = hub.parse(images)
        fetched = hub.fetch(address)
        path, name = fetched.folder, images.removeprefix(hub.PREFIX)
        notes.append(fetched.note)
        source = source.model_copy(update={"revision": fetched.commit})
        if class_order is None and (class_order := hub.known_order(address)) is not None:
            notes.append(f"its class numbers are read as --class-order {class_order}, as its authors' programs do")
    file = None if path.is_dir() and FloatImages.at(path) is not None else tensor_file(path)
    if not path.exists():
        raise UsageError(
            f"{images}: no such folder; expected one sub-folder per class, a file of tensors, or hf:OWNER/NAME"
        )
    if file is None:
        options.refuse(images)
        if path.is_file():
            raise UsageError(f"{images}: expected a folder of images, or a file of tensors (.pt, .pth, .npz, .npy, …)")
        hub_source = source if source.revision is not None else None
        yield BroughtSet(path, name, hub_source, class_order, notes=notes)
        return
    found = read_tensors(
        file,
        dataset.class_ids,
        dataset.channels,
        normalisation=options.normalisation,
        order=class_order,
        set_index=options.set_index,
        zca=zca,
    )
    source = source.model_copy(
        update={
            "files": {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in found.files},
            "layout": found.layout,
            "normalisation": options.normalisation,
            "class_order": class_order,
            "learned_learning_rate": found.learned_learning_rate,
        }
    )
    made = BroughtSet(path, name, source, None, found, [*notes, *found.notes])
    if keep:
        store = Store(out)
        store.create()
        yield replace(made, folder=_store(found, store.sets, dataset.class_ids, source))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield replace(made, folder=_store(found, Path(temporary), dataset.class_ids, source))


def _store(found: TensorSet, sets: Path, class_ids: tuple[str, ...], source: SetSource) -> Path:
    """The set as a folder `<hash>`: PNG files of 8-bit pixels, arrays of floats."""
    count, names = Counter[int](), []
    for label in found.labels.tolist():
        names.append((class_ids[label], count[label]))
        count[label] += 1
    sha256 = set_sha256((*name, pixels_sha256(image)) for name, image in zip(names, found.pixels, strict=True))
    target = sets / sha256[:16]
    manifest = {"image_set_sha256": sha256, "source": source.model_dump(mode="json", exclude_none=True)}
    if target.exists():
        return target
    if found.pixels.dtype == np.float32:
        store_floats(target, found.pixels, found.labels, class_ids, manifest)
        return target
    with whole_folder(target, existing="keep") as folder:
        for (class_id, index), image in zip(names, found.pixels, strict=True):
            (folder / class_id).mkdir(exist_ok=True)
            write_png(folder / class_id / image_name(index), image)
        write_json(folder / "manifest.json", {**manifest, "class_ids": list(class_ids)})
    return target


def own_labels(
    given: BroughtSet,
    beside: Beside | None,
    everything: Sequence[Sequence[Path]],
    chosen: Sequence[Path],
    class_ids: Sequence[str],
    *,
    order: str | None,
    kind: Kind | None,
    protocol: Protocol,
    store: Store | None,
) -> SoftLabelsRecord | None:
    """The soft labels that came with a set; those that students are trained with are put into the results folder.

    Args:
        beside: files of labels beside its images (`labels_beside`).
        everything: all images of the set, for each class in label order.
        chosen: those that count.
        store: None: put them nowhere.

    Raises:
        UsageError: the protocol needs them, and there are none, or none that can be used.
    """
    images = [path for here in everything for path in here]
    classes = np.repeat(np.arange(len(everything)), [len(here) for here in everything])
    of_tensors = None if given.tensors is None else given.tensors.soft_labels
    needed = protocol.stored is not None
    if beside is None and of_tensors is None:
        if needed:
            raise UsageError(
                f"protocol {protocol.label} trains with the set's own soft labels, and {given.name} has none; expected "
                "a file .pt or .npy beside each image, or labels.pt for all, or (N, K) labels in a file of tensors"
            )
        if kind is not None:
            raise UsageError(f"--labels {kind}: no soft labels come with {given.name}; leave it out")
        return None
    source = "in the file of tensors" if beside is None else beside.source
    try:
        if beside is not None:
            soft = read_beside(beside, images, classes, class_ids, order=order, kind=kind)
        else:
            assert of_tensors is not None
            soft = checked(of_tensors, classes, kind, source)
    except UsageError:
        if needed:
            raise
        values = hashlib.sha256(source.encode())
        for file in () if beside is None else beside.files:
            values.update(file.read_bytes())
        values.update(b"" if of_tensors is None else of_tensors.tobytes())
        return SoftLabelsRecord(source=source, used=False, sha256=values.hexdigest())
    rows = {path: row for row, path in enumerate(images)}
    soft = soft.rows([rows[path] for path in chosen])
    if needed and store is not None:
        store.create()
        file = store.soft_labels(soft.sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as opened:
            np.save(opened, soft.values)
    return SoftLabelsRecord(
        source=source, used=needed, sha256=soft.sha256, kind=soft.kind, label_bytes=soft.label_bytes
    )

"""A distilled set made elsewhere, on its way into a plan: which images count, and that no test image is among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import numpy as np

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.benchmark.core.reading import Reading
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.result import SoftLabelsRecord
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.benchmark.core.sharing.claims import claim, free_number
from ddbench.benchmark.core.spec import EvaluateSpec, ForeignImages
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.core.subsets import How
from ddbench.benchmark.planning.planned_sets import Planned, foreign_setting, plan_foreign
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.setting import Setting
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.running.brought_set import TensorOptions, brought, own_labels
from ddbench.benchmark.running.reporter import Reporter
from ddbench.datasets import whitening
from ddbench.datasets.base import Dataset
from ddbench.datasets.float_images import as_uint8
from ddbench.datasets.foreign.class_folders import class_folders
from ddbench.datasets.foreign.class_names import named_otherwise
from ddbench.datasets.foreign.soft_labels import Beside, Kind, labels_beside
from ddbench.datasets.foreign.test_images import Print, find_test_images, print_of, refusal
from ddbench.datasets.image_files import background, counted_kinds
from ddbench.datasets.image_sets import BLACK, SetRecord, all_black, describe_set
from ddbench.datasets.set_layout import choose_subset, layout_of
from ddbench.datasets.whitening import Zca


def plan_images(
    spec: RunSpec,
    images: Path | str,
    reporter: Reporter,
    *,
    name: str | None = None,
    ipc: int | None = None,
    subset: How | None = None,
    subset_seed: int = 0,
    class_order: str | None = None,
    flatten: str | None = None,
    normalisation: str | None = None,
    set_index: int | None = None,
    labels: Kind | None = None,
    allow_test_images: bool = False,
    same_method_as: str | None = None,
    dry_run: bool = False,
) -> Planned:
    """Load the plugins that are named, and plan students for a set made elsewhere: a folder of images, one sub-folder
    per class; a file of tensors; or an address on the hub.

    Args:
        spec: names the one dataset whose classes and test images count.
        name: what leaderboards call it; None: the name of its folder, file or repository.
        ipc: images per class that count; None: all.
        subset: which, where there are more.
        subset_seed: seed of `subset="random"`.
        class_order: which folder, label or column is which class (`class_folders`, `class_order`); None: they are named
            by class id, or come in the dataset's order where that is the usual one.
        flatten: what lies behind transparent pixels; None: such images are refused.
        normalisation: how the floats of a file of tensors were made from pixels (`foreign.normalisation`).
        set_index: which set of a file that holds several.
        labels: what the set's soft labels are; None: probabilities, else it must be said.
        allow_test_images: take a set with test images in it; it is never ranked.
        same_method_as: name of a set in the results folder whose method made this one too; None: another method.
        dry_run: decode nothing to look for test images; their names are looked for all the same.

    Raises:
        UsageError: no such set, too few images, what must be said of it, or test images among them.
    """
    for file in spec.plugins:
        load_plugin(file)
    declared: type[Dataset] = DATASETS.load(spec.datasets[0])
    if flatten is not None:
        background(flatten)
    setting = foreign_setting(spec)
    options = TensorOptions(normalisation, set_index)
    zca = _whitening(declared, setting, spec.data)
    with brought(str(images), declared, spec.out, options, class_order, keep=not dry_run, zca=zca) as given:
        class_ids, folder = declared.class_ids, given.folder
        folders = {} if given.tensors else class_folders(folder, class_ids, given.class_order)
        reading = Reading(class_folders=folders, flatten=flatten) if folders or flatten else None
        chosen = choose_subset(folder, class_ids, ipc, subset, subset_seed, reading)
        image_size = spec.resolution or declared.resolution
        prints: dict[Path, Print] = {}
        light = False

        def look(path: Path, pixels: np.ndarray) -> None:
            nonlocal light
            seen = as_uint8(pixels)
            light = light or bool(seen.max() > BLACK)
            prints[path] = print_of(seen, image_size)

        found = describe_set(folder, class_ids, declared.channels, subset=chosen, reading=reading, look=look)
        if not light:
            raise all_black(folder)
        everything = layout_of(folder, class_ids, None, reading).files
        beside = None if given.tensors else labels_beside(folder, [path for here in everything for path in here])
        soft = own_labels(
            given, beside, everything, list(prints), class_ids,
            order=given.class_order, kind=labels, protocol=setting.protocol, store=None if dry_run else Store(spec.out),
        )  # fmt: skip
        leaked: dict[Path, str] = {}
        if spec.reuse != "only-cache":  # which shows what is there, and needs no data for it
            with reporter.progress() as progress:
                shown = None if dry_run else progress
                leaked = find_test_images(prints, found.labels, declared(), setting.spec, spec.data, shown)
        if leaked and not allow_test_images:
            raise refusal(leaked, len(prints), declared(), setting.spec.split)
        founder = None if same_method_as is None else _founder(Store(spec.out), same_method_as, setting.spec.name)
        place, look_only = (setting.spec.name, found.ipc), dry_run or spec.reuse == "only-cache"
        group = 0 if founder is None else _group(Store(spec.out), founder, found.sha256, *place, look_only=look_only)
        planned = plan_foreign(
            spec, setting, folder, found.sha256, found.ipc, name or same_method_as or given.name,
            subset=chosen, reading=reading, source=given.source, soft_labels=soft,
            with_test_images=allow_test_images, test_images=len(leaked) if allow_test_images and not dry_run else None,
            same_method_as=None if founder == found.sha256 else founder,
            group=group,
        )  # fmt: skip
    if allow_test_images:
        among = (
            "test images were not looked for" if spec.reuse == "only-cache" or dry_run else "no test image was found"
        )
        among = f"{len(leaked)} of its {len(prints)} images are test images" if leaked else among
        given.notes.append(f"{among}; as --allow-test-images says, the set takes no rank")
    said = [] if soft is None else [_of_labels(soft, setting.protocol)]
    before = _called_before(Store(spec.out), found.sha256, setting.spec.name, planned.plan.sets[0].label)
    if before:
        said.append(
            f"{spec.out} has students of the same images, called {', '.join(before)}: a set is one row of tables, "
            "under the name that was said when its last student was trained"
        )
    return planned._replace(notes=[*planned.notes, *given.notes, *_notes(found, prints, folders, beside), *said])


def _whitening(declared: type[Dataset], setting: Setting, data: Path | None) -> Callable[[int], Zca] | None:
    """What the protocol does to training images of a side, which takes a set back that is whitened already."""
    wanted = setting.protocol.whitening
    if wanted is None:
        return None

    def of_side(image_size: int) -> Zca:
        split = declared().load(setting.spec.split, data, image_size)
        return whitening.of_dataset(split.train, split.content_hash, image_size, wanted.epsilon)

    return of_side


def _founder(store: Store, name: str, dataset: str) -> str:
    """Image hash of the first set of the method that a set of this name is of.

    Raises:
        UsageError: the results folder has no such set, or several of different methods.
    """
    known: dict[str, set[str]] = {}
    for _, images, label in _foreign(store, dataset):
        known.setdefault(label, set()).add(images.same_method_as or images.image_set_sha256)
    found = known.get(name, set())
    if len(found) == 1:
        return found.pop()
    if found:
        hashes = ", ".join(sorted(sha256[:8] for sha256 in found))
        raise UsageError(
            f"--same-method-as {name}: {len(found)} sets in {store.out} are called so and are not of one method "
            f"({hashes}); evaluate the one that is meant under a --name of its own"
        )
    raise UsageError(
        f"--same-method-as {name}: no set made elsewhere is called so in {store.out}; {did_you_mean(name, known)}"
    )


def _group(store: Store, founder: str, sha256: str, dataset: str, ipc: int, *, look_only: bool) -> int:
    """The number of a set among those of its method and IPC, by which its students' seeds differ from those of the
    others: a seed's luck that all of a row's sets share would be in no interval. One that has students keeps theirs;
    another one's is claimed, since its students are written down later, and two sets may be on their way at once."""
    groups: dict[str, int] = {}
    for spec, images, _ in _foreign(store, dataset):
        if founder in (images.image_set_sha256, images.same_method_as) and spec.ipc == ipc:
            first = groups.get(images.image_set_sha256, spec.seed // STUDENTS_PER_SET)
            groups[images.image_set_sha256] = min(first, spec.seed // STUDENTS_PER_SET)
    others = {group for known, group in groups.items() if known != sha256}
    if sha256 in groups:
        return groups[sha256]
    claims = store.student_seeds(dataset, ipc, founder)
    if look_only:
        return free_number(claims, sha256, others)
    claims.parent.mkdir(exist_ok=True)
    return claim(claims, sha256, others)


def _called_before(store: Store, sha256: str, dataset: str, name: str) -> list[str]:
    """Other names than this one under which students of a set were trained."""
    return sorted(
        {label for _, images, label in _foreign(store, dataset) if images.image_set_sha256 == sha256} - {name}
    )


def _foreign(store: Store, dataset: str) -> Iterator[tuple[EvaluateSpec, ForeignImages, str]]:
    """(specification, its images, name) of each student of a set made elsewhere in a results folder."""
    for cell in store.cell_dirs():
        try:
            spec, label = cell.spec(), cell.launch().label
        except (RunError, OSError, ValueError):  # reports list what cannot be read
            continue
        if isinstance(spec, EvaluateSpec) and isinstance(spec.images, ForeignImages) and spec.dataset.name == dataset:
            yield spec, spec.images, label


def _of_labels(soft: SoftLabelsRecord, protocol: Protocol) -> str:
    size = "" if soft.label_bytes is None else f", {soft.label_bytes:,} bytes"
    if soft.used:
        return f"students are trained with the set's own soft labels: {soft.source} ({soft.kind}{size})"
    return (
        f"soft labels come with the set and are not used ({soft.source}{size}): {protocol.label} trains with "
        f"{protocol.labels}; --protocol soft-stored trains with them"
    )


def _notes(found: SetRecord, files: Iterable[Path], folders: Mapping[str, str], beside: Beside | None) -> list[str]:
    """What a user may not know of the set, besides what is said of its soft labels."""
    notes = []
    counts = np.bincount(found.labels)
    if counts.min() < counts.max():
        notes.append(f"classes have {counts.min()} to {counts.max()} images; the set counts as IPC {found.ipc}")
    of_labels = Counter(f"{file.suffix.lower()} file" for file in (() if beside is None else beside.files))
    if skipped := Counter(found.skipped) - of_labels:
        notes.append(f"left out, since they are no images: {counted_kinds(skipped)}")
    class_of = {folder: class_id for class_id, folder in folders.items()}
    strange = []
    for folder, here in groupby(files, key=lambda path: path.parent.name):
        class_id = class_of.get(folder, folder)
        strange += [f"{class_id}/{file}" for file in named_otherwise([path.name for path in here], class_id)]
    if strange:
        notes.append(
            f"warning: {len(strange)} files are named as images of other classes than their folder's, such as "
            f"{strange[0]}; is the order of classes right?"
        )
    return notes

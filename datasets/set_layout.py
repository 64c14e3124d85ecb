"""How a distilled set's folder is laid out: one folder of image files per class, and which of them count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.reading import AS_IT_IS, Reading
from ddbench.benchmark.core.subsets import How, SubsetOf
from ddbench.datasets.float_images import FloatImages
from ddbench.datasets.foreign.class_folders import folder_names
from ddbench.datasets.image_files import Listing, counted_kinds, list_images


def choose_subset(
    folder: Path,
    class_ids: Sequence[str],
    ipc: int | None,
    how: How | None,
    seed: int,
    reading: Reading | None = None,
) -> SubsetOf | None:
    """The subset that a request means; None where every image counts. Decodes nothing.

    Raises:
        Problems: all that is wrong with the layout.
        UsageError: fewer images than `ipc` of some class; more, without a word on which; `how` without `ipc`; values
            that no subset has.
    """
    if ipc is None:
        if how is not None:
            raise UsageError(f"--subset {how}: of how many images? Say it with --ipc")
        return None
    try:
        asked = SubsetOf(how=how or "first", ipc=ipc, seed=seed if how == "random" else 0)
    except ValidationError as error:
        options = {"how": "--subset", "ipc": "--ipc", "seed": "--subset-seed"}
        raise Problems([f"{options[str(e['loc'][0])]} {e['input']!r}: {e['msg']}" for e in error.errors()]) from error
    counts = [len(here) for here in layout_of(folder, class_ids, None, reading).files]
    if max(counts) == asked.ipc == min(counts):
        return None
    if max(counts) > asked.ipc and how is None:
        raise UsageError(
            f"{folder} holds up to {max(counts)} images of a class, more than --ipc {asked.ipc}; say which count with "
            "--subset first (by number), lexicographic (by file name as text, as published loaders do) or random"
        )
    return asked


@dataclass(frozen=True)
class Layout:
    """What lies in the folders of a set."""

    files: list[list[Path]]
    """The images that count, sorted, for each class in label order."""
    skipped: Counter[str]
    """Kind -> how many things beside all its images are none."""


def layout_of(
    folder: Path, class_ids: Sequence[str], subset: SubsetOf | None = None, reading: Reading | None = None
) -> Layout:
    """List a set's folder. Decodes nothing.

    Raises:
        Problems: all that is wrong with the layout.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one sub-folder per class, named by class id")
    reading, floats = reading or AS_IT_IS, FloatImages.at(folder)
    names = [reading.folder_of(class_id) for class_id in class_ids]
    problems: list[str] = []
    if floats is not None:
        there, files, skipped = floats.class_ids, [floats.files(class_id) for class_id in class_ids], Counter[str]()
    else:
        there, top = set(folder_names(folder)), list_images(folder)
        here = [list_images(folder / name) if name in there else Listing() for name in names]
        files = [listing.files for listing in here]
        skipped = sum((listing.skipped for listing in here), _beside_the_classes(top, there))
        problems += [problem for listing in here for problem in listing.problems]
    problems += [f"{folder / unknown}: no class has this id" for unknown in sorted(there - set(names))]
    missing = [class_id for class_id, here in zip(class_ids, files, strict=True) if not here]
    if missing:
        problems.append(f"{folder}: no images for {len(missing)} of {len(class_ids)} classes: {_some(missing)}")
    if problems:
        expected = f"expected one folder per class id: {_some(list(class_ids))}"
        hints = _layout_hints(folder, there, class_ids) if missing else []
        raise Problems([*first_of(problems), *hints, expected])
    if subset is None:
        return Layout(files, skipped)
    few = [f"{class_ids[c]} ({len(here)})" for c, here in enumerate(files) if len(here) < subset.ipc]
    if few:
        raise UsageError(f"{folder}: {len(few)} classes have fewer than {subset.ipc} images: {_some(few)}")
    picked = [subset.pick(here, class_id) for class_id, here in zip(class_ids, files, strict=True)]
    return Layout(picked, skipped)


def _beside_the_classes(top: Listing, folders: Collection[str]) -> Counter[str]:
    """What lies in a set's own folder besides those of its classes and its manifest."""
    skipped = top.skipped.copy()
    skipped["folder"] -= len(folders)
    skipped[".json file"] -= (top.folder / "manifest.json").is_file()
    skipped["image beside the class folders"] = len(top.files)
    return +skipped


def _layout_hints(folder: Path, folders: set[str], class_ids: Sequence[str]) -> list[str]:
    """What the folder seems to be instead."""
    hints = []
    deeper = [name for name in sorted(folders) if any((folder / name / class_id).is_dir() for class_id in class_ids)]
    if deeper:
        places = " or ".join(f"--images {folder / name}" for name in deeper[:3])
        hints.append(f"the class folders seem to lie one level deeper; try {places}")
    for place in (folder / class_id for class_id in class_ids if class_id in folders):
        inner = next((name for name in folder_names(place) if list_images(place / name).files), None)
        if inner is not None and not list_images(place).files:
            hints.append(f"the images of {place.name} seem to lie in {place / inner}: put them into its folder")
            break
    links = [class_id for class_id in class_ids if (folder / class_id).is_symlink() and class_id not in folders]
    if links:
        hints.append(f"{folder / links[0]} is a link to nothing ({len(links)} such links)")
    for place in (folder / class_id for class_id in class_ids if class_id in folders):
        here = list_images(place)
        if here.skipped and not here.files:
            hints.append(f"{place} holds {counted_kinds(here.skipped)}, which is read as no image")
            break
    loose = len(list_images(folder).files)
    if loose:
        hints.append(f"{loose} images lie in {folder} itself; sort them into folders named by class id")
    if folders and not deeper and folders.isdisjoint(class_ids):
        hints.append("the folders may be named otherwise: say which is which class with --class-order FILE")
    return hints


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")


def first_of(problems: list[str], most: int = 10) -> list[str]:
    """What is shown of a long list, and how many more there are."""
    rest = len(problems) - most
    return problems[:most] + ([f"… and {rest} more"] if rest > 0 else [])

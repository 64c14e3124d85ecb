"""`--test-on`: which shifted test sets a run's students are looked at on, and where the files lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddbench.benchmark.core.errors import Collector, UsageError
from ddbench.benchmark.core.spec import DatasetSpec, Scalar, ShiftedSpec, digest
from ddbench.benchmark.planning.run_spec import RunSpec, parse_selector
from ddbench.datasets.base import Dataset
from ddbench.datasets.imagenet.wnid_dataset import DATA_VARIABLE
from ddbench.datasets.shifted import corruptions
from ddbench.datasets.shifted.catalogue import ALL_CORRUPTIONS, CORRUPTIONS, SEVERITIES, ShiftedSet, shifted_set
from ddbench.datasets.shifted.files import ShiftedFiles, find_folder, read_files

MADE_HERE = "imagenet-c-made@1"
"""How the corruptions are made, in the id of cells that are looked at on them."""


class Asked(NamedTuple):
    """One test set, as a selector names it."""

    which: ShiftedSet
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]


def resolve(
    run: RunSpec, dataset: type[Dataset], where: DatasetSpec
) -> tuple[tuple[ShiftedSpec, ...], dict[str, Path]]:
    """(what students are looked at on, sorted by name; name -> folder of its files).

    Raises:
        Problems: an unknown set or condition; one that the dataset's classes cannot be tested on; files that are not
            there, or not whole.
    """
    problems, asked = Collector(), list[Asked]()
    for selector in run.test_on:
        with problems.catching():
            asked.append(read_selector(selector))
    names = [one.which.name for one in asked]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problems.add(f"--test-on: {name} is named twice; name it once, with all its conditions")
    from_files = [one for one in asked if one.which.kind != "corrupted here"]
    if run.test_data and not from_files and not problems.found:
        problems.add("--test-data: no test set is asked for that is read from files (--test-on)")
    problems.raise_any()
    specs, folders = [], dict[str, Path]()
    for one in sorted(asked, key=lambda one: one.which.name):
        with problems.catching():
            if (reason := one.which.why_not(dataset)) is not None:
                raise UsageError(f"--test-on {one.which.name}: {reason}")
            if one.which.kind == "corrupted here":
                sha256 = digest([MADE_HERE, corruptions.version(), corruptions.IMAGE_SIZE, corruptions.JPEG_QUALITY])
            else:
                folder = find_folder(one.which, _places(run), alone=bool(run.test_data) and len(from_files) == 1)
                files = files_of(one.which, folder, dataset, where, run.data, one.corruptions, one.severities)
                sha256, folders[one.which.name] = files.sha256, files.folder.resolve()
            specs.append(
                ShiftedSpec(name=one.which.name, corruptions=one.corruptions, severities=one.severities, sha256=sha256)
            )
    problems.raise_any()
    return tuple(specs), folders


def files_of(
    which: ShiftedSet,
    folder: Path,
    dataset: type[Dataset],
    where: DatasetSpec,
    data_dir: Path | None,
    wanted: Sequence[str],
    severities: Sequence[int],
) -> ShiftedFiles:
    """A test set's files for a dataset; of a corrupted one, those of its test images. Raises as `read_files`."""
    return read_files(
        which,
        folder,
        dataset.class_ids,
        corruptions=wanted,
        severities=severities,
        test_names=dataset().test_names(where.split, data_dir) if which.corrupted else (),
    )


def read_selector(selector: str) -> Asked:
    """`imagenet-c[corruption=fog,noise,severity=1,3]` → that set, fog and the three kinds of noise, severities 1 and 3.

    Raises:
        UsageError: no such set or condition.
    """
    name, values = parse_selector(selector)
    which = shifted_set(name)
    allowed = ("corruption", "severity") if which.corrupted else ()
    for key in values:
        if key not in allowed:
            known = f"it has {' and '.join(allowed)}" if allowed else "it has no parameters"
            raise UsageError(f"--test-on {selector}: {which.name} has no parameter {key!r}; {known}")
    if not which.corrupted:
        return Asked(which, (), ())
    wanted = {one for said in values.get("corruption", ALL_CORRUPTIONS) for one in _corruptions(selector, said)}
    severities = values.get("severity", SEVERITIES)
    if strange := [one for one in severities if isinstance(one, bool) or one not in SEVERITIES]:
        raise UsageError(f"--test-on {selector}: expected severities of 1 to 5, got {strange[0]!r}")
    return Asked(
        which,
        tuple(one for one in ALL_CORRUPTIONS if one in wanted),
        tuple(one for one in SEVERITIES if one in severities),
    )


def _corruptions(selector: str, said: Scalar) -> tuple[str, ...]:
    if said in CORRUPTIONS:
        return CORRUPTIONS[str(said)]
    if said in ALL_CORRUPTIONS:
        return (str(said),)
    raise UsageError(
        f"--test-on {selector}: expected a corruption ({', '.join(ALL_CORRUPTIONS)}) or a group of them "
        f"({', '.join(CORRUPTIONS)}), got {said!r}"
    )


def _places(run: RunSpec) -> list[Path]:
    if run.test_data:
        return list(run.test_data)
    usual = os.environ.get(DATA_VARIABLE)
    place = None if not usual else Path(usual).expanduser()
    return [place] if place is not None and place.is_dir() else []

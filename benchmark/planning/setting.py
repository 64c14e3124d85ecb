"""What a run uses on one dataset, after the headline has filled in what was not said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ddbench.benchmark.core.errors import Collector, Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS, ENGINES, PROTOCOLS
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.benchmark.core.spec import DatasetSpec, ProtocolSpec, ShiftedSpec
from ddbench.benchmark.planning import shifted_sets
from ddbench.benchmark.planning.run_spec import RunSpec, parse_selector
from ddbench.benchmark.protocols import network_names
from ddbench.datasets.base import Dataset, Resize

if TYPE_CHECKING:
    from ddbench.benchmark.protocols.base import Protocol

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What a run uses on one dataset."""

    dataset: type[Dataset]
    spec: DatasetSpec
    protocol: Protocol
    protocol_spec: ProtocolSpec
    student: str
    """Name of the student network."""
    teacher_sha256: Callable[[int | None], str | None]
    """IPC -> SHA-256 of the teacher's weights, or over those of several; None under a protocol with hard labels."""
    ipc: tuple[int, ...]
    set_seeds: tuple[int, ...]
    """Seeds of the distilled sets, one set for each."""
    repeats: int
    """Students per distilled set."""
    assumed: tuple[str, ...]
    """What came from the headline, for people to read."""
    images_at: tuple[tuple[int, Resize], ...] = ()
    """Further image sizes, in pixels, at which methods will read training images (`Method.images_at`)."""
    prior_image_size: int | None = None
    """Size in pixels of the images that methods with a prior make; None: no method needs a prior."""
    test_on: tuple[ShiftedSpec, ...] = ()
    """Shifted test sets that students are looked at on as well."""
    test_data: Mapping[str, Path] = field(default_factory=dict)
    """Name of such a set -> the folder of its files."""


def resolve_setting(run: RunSpec, dataset_name: str, prior_image_size: int | None = None) -> Setting:
    """Fill in from the dataset's headline what the run does not say.

    Args:
        prior_image_size: pixels of the pixel prior that the run needs, whose resolution it takes where it names none.

    Raises:
        Problems: unknown dataset, split, protocol or student, or a protocol override that does not exist.
    """
    dataset: type[Dataset] = DATASETS.load(dataset_name)
    headline, problems, assumed = dataset.headline, Collector(), list[str]()

    def said(name: str, given: T | None, declared: T) -> T:
        if given is None:
            assumed.append(f"{name} {declared}")
            return declared
        return given

    split = said("split", run.split, dataset.splits[0])
    if split not in dataset.splits:
        problems.add(f"--split {split}: {dataset_name} has {', '.join(dataset.splits)}")
    selector, protocol = said("protocol", run.protocol, headline.protocol), None
    with problems.catching():
        protocol, protocol_spec = resolve_protocol(selector, run.teacher)
    if protocol is None:
        with problems.catching():
            if run.student is not None:
                network_names.find(run.student)
        raise Problems(problems.found)
    usual = headline.student if headline.student in protocol.students else protocol.default_student
    student = said("student", run.student, usual)
    resolution = run.resolution or prior_image_size or dataset.resolution
    if resolution != (run.resolution or dataset.resolution):
        assumed.append(f"resolution {resolution} (the prior's)")
    if dataset.resolutions is not None and resolution not in dataset.resolutions:
        allowed = " or ".join(map(str, dataset.resolutions))
        problems.add(f"--resolution {resolution}: {dataset_name} can be opened at {allowed} px")
    with problems.catching():
        protocol.check_student(student, resolution)
    ipc = tuple(run.ipc) if run.ipc else headline.ipc
    if not run.ipc:
        assumed.append(f"IPC {', '.join(map(str, headline.ipc))}")
    with problems.catching():
        for one in ipc:
            protocol.rate_of(dataset_name, student, one)

    split_hash = cache(lambda: dataset().split_hash(split, run.data))

    @cache
    def teacher_sha256(ipc: int | None) -> str | None:
        return _teacher_sha256(protocol, dataset, split, resolution, ipc, split_hash)

    if not problems.found:
        for one in ipc:
            with problems.catching():
                teacher_sha256(one)
    seeds = tuple(run.seeds) if run.seeds else tuple(range(said("distilled sets", None, headline.sets)))
    repeats = run.repeats
    if repeats is None and protocol.id == resolve_protocol(headline.protocol)[0].id:
        repeats = said("students per set", None, headline.students)
    elif repeats is None:
        repeats = protocol.students_per_set
        assumed.append(f"students per set {repeats} ({protocol.name}'s)")
    if run.shards > len(dataset.class_ids):
        problems.add(f"--shards {run.shards}: {dataset_name} has {len(dataset.class_ids)} classes to share out")
    if repeats > STUDENTS_PER_SET:
        problems.add(f"--repeats {repeats}: expected at most {STUDENTS_PER_SET}")
    where = DatasetSpec(name=dataset_name, split=split, resolution=resolution)
    test_on: tuple[ShiftedSpec, ...] = ()
    test_data: dict[str, Path] = {}
    if not problems.found:
        with problems.catching():
            test_on, test_data = shifted_sets.resolve(run, dataset, where)
    problems.raise_any()
    return Setting(
        dataset=dataset,
        spec=where,
        protocol=protocol,
        protocol_spec=protocol_spec,
        student=student,
        teacher_sha256=teacher_sha256,
        ipc=ipc,
        set_seeds=seeds,
        repeats=repeats,
        assumed=tuple(assumed),
        test_on=test_on,
        test_data=test_data,
    )


def resolve_protocol(selector: str, teacher: str | None = None) -> tuple[Protocol, ProtocolSpec]:
    """`quick`, `quick@1`, `hard-minimax-sgd[epochs=60]`; with both, the version stands behind either.

    Args:
        teacher: network of the teacher in place of the protocol's own: the override of that name.

    Raises:
        UsageError: unknown protocol, another version than asked for, unknown or out-of-range override, two teachers.
    """
    plain, at, behind = selector.partition("@")
    version, bracket, overrides = behind.partition("[")  # tables show the version last, and people write it first too
    name, swept = parse_selector(plain + bracket + overrides)
    several = [key for key, values in swept.items() if len(values) > 1]
    if several:
        raise UsageError(f"--protocol {selector}: one value for {', '.join(several)}, please; start one run for each")
    if teacher is not None and swept.get("teacher", [teacher]) != [teacher]:
        raise UsageError(f"--protocol {selector} and --teacher {teacher} name two teachers; leave one out")
    if teacher is not None:
        swept = {**swept, "teacher": [teacher]}
    protocol: Protocol = PROTOCOLS.load(name)
    if teacher is not None and protocol.teacher is None:
        raise UsageError(
            f"--teacher {teacher}: protocol {protocol.id} trains with {protocol.labels} and has no teacher; name one "
            "with a teacher's labels, such as --protocol soft-rded-half (`bench list protocols`)"
        )
    if at and version != str(protocol.version):
        raise UsageError(f"--protocol {selector}: this version of ddbench has {protocol.name}@{protocol.version}")
    if swept:
        protocol = protocol.with_overrides({key: values[0] for key, values in swept.items()})
    spec = ProtocolSpec(
        name=protocol.name, version=protocol.version, overrides=dict(protocol.overrides), hash=protocol.hash
    )
    return protocol, spec


def device_of(run: RunSpec) -> str:
    """`--device` where the run's cells are made: on this machine, or on those of its engine.

    Raises:
        UsageError: no such engine; machines that cannot be reached or have no such device.
    """
    engine = ENGINES.load(run.engine)()
    engine.join(run.address)
    asked: str | None = engine.device(run.device)
    return asked or resolve_device(run.device)


def resolve_device(device: str) -> str:
    """`auto` is the first GPU that NVML and torch both see, else the CPU. torch is asked only if NVML sees one."""
    if device != "auto":
        return device
    from ddbench.benchmark.core.environment import gpus

    if not gpus():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _teacher_sha256(
    protocol: Protocol,
    dataset: type[Dataset],
    split: str,
    resolution: int,
    ipc: int | None,
    split_hash: Callable[[], str],
) -> str | None:
    from ddbench.benchmark.planning import teacher_files

    found = teacher_files.find_all(protocol, dataset, split, resolution, ipc)
    if found is None:
        return None
    for teacher in found.members:
        teacher_files.check_split(teacher, split_hash(), dataset.name)
    return found.record.sha256

"""Cells of one contestant, or of images made elsewhere: the distilled sets, and the students on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ddbench.benchmark.core.reading import Reading
from ddbench.benchmark.core.registry import ENGINES
from ddbench.benchmark.core.result import SetSource, SoftLabelsRecord
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.benchmark.core.spec import (
    DeviceType,
    DistilledBy,
    DistillSpec,
    EvaluateSpec,
    ForeignImages,
    cell_id,
)
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.core.subsets import SubsetOf
from ddbench.benchmark.planning.contestants import Contestant
from ddbench.benchmark.planning.plan import Plan, PlannedSet
from ddbench.benchmark.planning.prior_names import NamedPrior
from ddbench.benchmark.planning.run_spec import RunSpec, available_cores, exported_threads
from ddbench.benchmark.planning.setting import Setting, device_of, resolve_setting

MOST_THREADS = 64
"""Of a cell on another machine, whose cores then bound it."""


class Planned(NamedTuple):
    """The answer to a request."""

    plan: Plan
    settings: list[Setting]
    """The setting on each dataset that has a part in the plan."""
    notes: list[str]
    """What was left out, and why."""


def planned_sets(
    contestant: Contestant, setting: Setting, run: RunSpec, prior: NamedPrior | None, device: str, *, students: bool
) -> list[PlannedSet]:
    """Every set that a contestant distills in a setting, with its students (`students=False`: without).

    Args:
        prior: None for a method that needs none.
        device: `cpu`, `cuda` or `cuda:0`.
    """
    method = contestant.method
    launch = Launch(
        label=contestant.label,
        prior=None if prior is None else prior.name,
        **_launch_options(run, device, setting),
    )
    planned = []
    for ipc in (None,) if method.whole_set else setting.ipc:
        # A set that no seed changes is made once and gets as many students as the other methods' sets together.
        groups = [(seed, [seed]) for seed in setting.set_seeds] if method.uses_seed else [(0, list(setting.set_seeds))]
        for seed, student_groups in groups:
            spec = DistillSpec(
                method=contestant.spec,
                dataset=setting.spec,
                prior_sha256=None if prior is None else prior.sha256,
                ipc=ipc,
                seed=seed,
                precision=run.precision if method.needs_prior else "fp32",
                device_type=_device_type(device),
            )
            specs = _students(setting, DistilledBy(cell=cell_id(spec)), ipc, student_groups, device)
            planned.append(
                PlannedSet(
                    label=contestant.label,
                    spec=spec,
                    shards=run.shards,
                    launch=launch,
                    students=specs if students else (),
                    protocol_label=setting.protocol_spec.label if students else None,
                )
            )
    return planned


def foreign_setting(run: RunSpec) -> Setting:
    """The setting of students of a set made elsewhere, whose IPC `plan_foreign` says.

    Raises:
        Problems: as `resolve_setting`.
    """
    return resolve_setting(run.model_copy(update={"seeds": [0]}), run.datasets[0])


def plan_foreign(
    run: RunSpec,
    setting: Setting,
    images: Path,
    sha256: str,
    ipc: int,
    label: str,
    *,
    subset: SubsetOf | None = None,
    reading: Reading | None = None,
    source: SetSource | None = None,
    soft_labels: SoftLabelsRecord | None = None,
    with_test_images: bool = False,
    test_images: int | None = None,
    same_method_as: str | None = None,
    group: int = 0,
) -> Planned:
    """Plan students for a distilled set made elsewhere, or for a subset of it.

    Args:
        setting: `foreign_setting` of the run.
        sha256: of the images (`image_sets.describe_set`).
        ipc: images per class that the set counts as.
        reading: how the folder is read; None: as it stands.
        source: where the set came from, if not from a folder on this machine.
        soft_labels: soft labels that came with it, used or not.
        with_test_images: whether it is taken although test images may be among its own, and never ranked.
        test_images: how many were found.
        same_method_as: image hash of the first set of the same method.
        group: of the students' seeds: sets of one method have students of their own, as sets of several seeds do.
    """
    label += "" if subset is None or same_method_as is not None else subset.label
    setting = replace(setting, ipc=(ipc,), assumed=tuple(one for one in setting.assumed if not one.startswith("IPC ")))
    launch = Launch(
        label=label,
        images=str(images.resolve()),
        subset=subset,
        reading=reading,
        source=source,
        soft_labels=soft_labels,
        test_images=test_images,
        **_launch_options(run, device_of(run), setting),
    )
    foreign = ForeignImages(
        image_set_sha256=sha256,
        soft_labels_sha256=None if soft_labels is None else soft_labels.sha256,
        with_test_images=with_test_images,
        same_method_as=same_method_as,
    )
    planned = PlannedSet(
        label=label,
        spec=None,
        launch=launch,
        students=_students(setting, foreign, ipc, (group,), launch.device),
        protocol_label=setting.protocol_spec.label,
    )
    return Planned(Plan(sets=(planned,)), [setting], [])


def _students(
    setting: Setting, images: DistilledBy | ForeignImages, ipc: int | None, groups: Sequence[int], device: str
) -> tuple[EvaluateSpec, ...]:
    """As many students as the setting repeats, for each group of student seeds (a group's number is a set's seed)."""
    return tuple(
        EvaluateSpec(
            images=images,
            dataset=setting.spec,
            ipc=ipc,
            protocol=setting.protocol_spec,
            student=setting.student,
            teacher_sha256=setting.teacher_sha256(ipc),
            seed=group * STUDENTS_PER_SET + repeat,
            device_type=_device_type(device),
            test_on=setting.test_on,
        )
        for group in groups
        for repeat in range(setting.repeats)
    )


def _device_type(device: str) -> DeviceType:
    return "cuda" if device.startswith("cuda") else "cpu"


def _launch_options(run: RunSpec, device: str, setting: Setting) -> dict[str, Any]:
    # Cells that fill the cores take as many threads as one alone; other machines' cores are counted there.
    share = max(1, available_cores() // (run.jobs or 1)) if ENGINES.load(run.engine).here else MOST_THREADS
    bounds = (share, setting.dataset.useful_threads, exported_threads())
    return {
        "data_dir": None if run.data is None else run.data.resolve(),
        "test_data": dict(setting.test_data),
        "device": device,
        "threads": min(bound for bound in bounds if bound is not None),
        "compile": run.compile,
        "batch_size": run.batch_size,
        "plugins": tuple(str(plugin.resolve()) for plugin in run.plugins),
    }

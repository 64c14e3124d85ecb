"""From what a user asks for to the cells that answer it. Reads declarations only: no torch, no images.

Every problem is found before anything runs, and all are reported at once.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS, Entry
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.benchmark.core.spec import (
    DatasetSpec,
    DeviceType,
    DistilledBy,
    DistillSpec,
    EvaluateSpec,
    ForeignImages,
    MethodSpec,
    ProtocolSpec,
    Scalar,
    brackets,
    cell_id,
)
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.core.subsets import SubsetOf
from ddbench.benchmark.planning.plan import Plan, PlannedSet
from ddbench.benchmark.planning.run_spec import RunSpec, available_cores, describe, parse_selector
from ddbench.benchmark.protocols import network_names
from ddbench.datasets.base import Dataset, Resize
from ddbench.methods.base import Method

if TYPE_CHECKING:
    from ddbench.benchmark.planning.prior_names import NamedPrior
    from ddbench.benchmark.protocols.base import Protocol
    from ddbench.methods.diffusion.priors.files import PriorFiles

PRIOR_VARIABLE = "DDBENCH_PRIOR"


@dataclass(frozen=True)
class Contestant:
    """A method with resolved parameters on one dataset."""

    label: str
    method: type[Method]
    spec: MethodSpec
    prior_tuned_by: str | None = None
    """What tunes the run's prior first (`registry.Entry`)."""


@dataclass(frozen=True)
class Setting:
    """What a run uses on one dataset, after the headline has filled in what was not said."""

    dataset: type[Dataset]
    spec: DatasetSpec
    protocol: Protocol
    protocol_spec: ProtocolSpec
    student: str
    teacher_sha256: str | None
    """None under a protocol with hard labels."""
    ipc: tuple[int, ...]
    set_seeds: tuple[int, ...]
    repeats: int
    assumed: tuple[str, ...]
    """What came from the headline, for people to read."""
    images_at: tuple[tuple[int, Resize], ...] = ()
    """Further sides at which methods will read training images (`Method.images_at`)."""
    prior_image_size: int | None = None
    """Of the images that methods with a prior make; None: no method needs one."""


def plan_run(
    run: RunSpec,
    *,
    students: bool = True,
    unavailable: dict[str, list[str]] | None = None,
    typed: Collection[str] = (),
) -> tuple[Plan, list[Setting], list[str]]:
    """Plan a run (with `students=False`: its first stage).

    Args:
        unavailable: of a study that comes with the benchmark. What cannot run here, for want of a method, a prior, a
            teacher or images, is added to it (reason -> what), and the rest is planned. None: that is a problem.
        typed: options that the user gave by hand over such a study; what is wrong with them is a problem all the same.

    Returns:
        the plan, the setting on each dataset that has a part in it, and notes on what was left out and why.

    Raises:
        Problems: everything that is wrong with the request.
    """
    problems: list[str] = []
    notes: list[str] = []
    settings: list[Setting] = []
    sets: dict[str | None, PlannedSet] = {}
    used_keys: set[str] = set()
    device = resolve_device(run.device)
    selectors = expand_selectors(run.methods)

    def tell(what: str, reason: str, *options: str) -> None:
        if unavailable is None or any(option in typed for option in options):
            problems.append(reason)
        else:
            unavailable.setdefault(reason, []).append(what)

    def tried(what: str, attempt: Any, otherwise: Any, *options: str) -> Any:
        found: list[str] = []
        value = _collect(found, attempt, otherwise)
        for reason in found:
            tell(what, reason, *options)
        return value

    for name in run.datasets:
        dataset: type[Dataset] | None = tried(name, partial(DATASETS.load, name), None, "datasets")
        if dataset is None:
            continue
        prior_name, why_prior = _prior_name(run, dataset)
        image_size = _pixel_prior_size(run, dataset, prior_name, selectors)
        setting: Setting | None = tried(
            f"{run.protocol or 'all'} on {name}",
            partial(resolve_setting, run, name, image_size),
            None,
            *("protocol", "student", "split", "resolution"),
        )
        prior = None if setting is None else _Prior(prior_name, setting, run, used_keys)
        # A run of what the user asked for stops at missing images when it opens them; a study goes on without.
        absent: list[str] = []
        if setting is not None and unavailable is not None:
            _collect(absent, partial(setting.dataset().train_counts, setting.spec.split, run.data), None)
        images_at: dict[tuple[int, Resize], None] = {}
        for selector, explicit in selectors:
            if tried(selector, lambda s=selector: METHODS.load(parse_selector(s)[0]), None, "methods") is None:
                continue
            here = tried(selector, partial(contestants, selector, dataset, run.set, used_keys), [], "methods", "set")
            for contestant in here:
                if setting is None or prior is None:
                    continue
                found, why_not = _contestant_problems(contestant, setting, run, prior)
                if why_not is not None:
                    reason = f"{contestant.label} does not run on {name}: {why_not}"
                    tell(contestant.label, reason, "methods") if explicit else notes.append(reason)
                elif found or absent:
                    for reason, option in {**found, **dict.fromkeys(absent, "images")}.items():
                        tell(f"{contestant.label} on {name}", reason, option)
                else:
                    asked = tried(contestant.label, partial(_images_at, contestant, setting, prior), [])
                    images_at |= dict.fromkeys(asked)
                    for planned in _sets(contestant, setting, run, prior, device, students=students):
                        sets.setdefault(planned.id, planned)
        idle = unavailable is not None and not any(p.spec and p.spec.dataset.name == name for p in sets.values())
        if setting is not None and prior is not None and not idle:
            assumed = (*setting.assumed, why_prior) if why_prior and prior.image_size else setting.assumed
            settings.append(
                replace(setting, assumed=assumed, images_at=tuple(images_at), prior_image_size=prior.image_size)
            )
    problems += _unused_parameters(run, [s for s, _ in selectors], used_keys)
    if problems:
        raise Problems(list(dict.fromkeys(problems)))
    return Plan(sets=tuple(sets.values())), settings, notes


def plan_foreign(
    run: RunSpec, images: Path, sha256: str, ipc: int, label: str, subset: SubsetOf | None = None
) -> tuple[Plan, Setting]:
    """Plan students for a distilled set made elsewhere, or for a subset of it."""
    label += "" if subset is None else subset.label
    setting = resolve_setting(run.model_copy(update={"ipc": [ipc], "seeds": [0]}), run.datasets[0])
    launch = Launch(
        label=label,
        images=str(images.resolve()),
        subset=subset,
        **_launch_options(run, resolve_device(run.device), setting.dataset),
    )
    specs = tuple(
        _student(setting, ForeignImages(image_set_sha256=sha256), ipc, seed * STUDENTS_PER_SET + repeat, launch.device)
        for seed in setting.set_seeds
        for repeat in range(setting.repeats)
    )
    planned = PlannedSet(
        label=label, spec=None, launch=launch, students=specs, protocol_label=setting.protocol_spec.label
    )
    return Plan(sets=(planned,)), setting


def expand_selectors(selectors: Sequence[str]) -> list[tuple[str, bool]]:
    """Replace `all` (main contestants and references) and `all+ablations` (every method) by names.

    Returns (selector, whether the user named it) pairs.
    """
    expanded: dict[str, bool] = {}
    for selector in selectors:
        if selector in ("all", "all+ablations"):
            for entry in METHODS:
                if selector == "all+ablations" or not {"main", "reference"}.isdisjoint(entry.tags):
                    expanded.setdefault(entry.name, False)
        else:
            expanded[selector] = True
    return list(expanded.items())


def contestants(
    selector: str, dataset: type[Dataset], user: Mapping[str, Scalar], used_keys: set[str]
) -> list[Contestant]:
    """The methods that a selector stands for on a dataset: one, or one for each value of a sweep.

    Parameters are resolved in the order method < dataset < variant < user (`--set`, then the selector's own).

    Raises:
        Problems: unknown method, unknown or out-of-range parameters.
    """
    name, swept = parse_selector(selector)
    entry = METHODS.entry(name)
    method: type[Method] = METHODS.load(name)
    known = method.Params.model_fields
    shared = {key: value for key, value in user.items() if key in known}
    used_keys.update(shared)
    found, problems = [], []
    for values in itertools.product(*swept.values()):
        own = shared | dict(zip(swept, values, strict=True))
        base = _given(entry, method, dataset)
        try:
            params = method.Params.model_validate(base | own).model_dump(mode="json")
        except ValidationError as error:
            problems += describe(error, prefix=f"{name}: parameter ")
            problems += [_near(key, known, name) for key in own if key not in known]
            continue
        except Exception as error:  # a plugin's own validators may raise anything
            problems.append(f"{name}: checking its parameters failed: {type(error).__name__}: {error}")
            continue
        spec = MethodSpec(name=method.name, version=method.version, params=params, source_sha256=_plugin_source(method))
        label = _label(name, own, params, method, dataset)
        found.append(Contestant(label, method, spec, entry.prior_tuned_by))
    if problems:
        raise Problems(problems)
    return found


def _given(entry: Entry, method: type[Method], dataset: type[Dataset]) -> dict[str, Scalar]:
    defaults = {key: default.value for key, default in dataset.method_defaults.get(method.name, {}).items()}
    return defaults | dict(entry.overrides)


def _label(
    name: str, own: Mapping[str, Scalar], params: Mapping[str, Scalar], method: type[Method], dataset: type[Dataset]
) -> str:
    """The registered name with exactly these parameters, else `name[what the user changed]`."""

    def resolved(entry: Entry) -> dict[str, Any]:
        return method.Params.model_validate(_given(entry, method, dataset)).model_dump(mode="json")

    here = METHODS.entry(name)
    family = [here, *(e for e in METHODS if method.name in (e.name, e.variant_of) and e is not here)]
    for entry in family:
        if entry.prior_tuned_by == here.prior_tuned_by and resolved(entry) == params:
            return entry.name
    base = resolved(here)
    return name + brackets({key: params[key] for key in own if params[key] != base[key]})


def _plugin_source(method: type[Method]) -> str | None:
    import sys

    module = sys.modules[method.__module__]
    if not method.__module__.startswith("ddbench_plugin_") or module.__file__ is None:
        return None
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


def resolve_setting(run: RunSpec, dataset_name: str, prior_image_size: int | None = None) -> Setting:
    """Fill in from the dataset's headline what the run does not say.

    Args:
        prior_image_size: of the pixel prior that the run needs, whose resolution it takes where it names none.

    Raises:
        Problems: unknown dataset, split, protocol or student, or a protocol override that does not exist.
    """
    dataset: type[Dataset] = DATASETS.load(dataset_name)
    headline, problems, assumed = dataset.headline, [], []

    def said(name: str, given: Any, declared: Any) -> Any:
        if given is None:
            assumed.append(f"{name} {declared}")
            return declared
        return given

    split = said("split", run.split, dataset.splits[0])
    if split not in dataset.splits:
        problems.append(f"--split {split}: {dataset_name} has {', '.join(dataset.splits)}")
    selector = said("protocol", run.protocol, headline.protocol)
    resolved = _collect(problems, lambda: resolve_protocol(selector), None)
    if resolved is None:
        if run.student is not None:
            _collect(problems, lambda: network_names.find(run.student), None)
        raise Problems(problems)
    protocol, protocol_spec = resolved
    usual = headline.student if headline.student in protocol.students else protocol.default_student
    student = said("student", run.student, usual)
    resolution = run.resolution or prior_image_size or dataset.resolution
    if resolution != (run.resolution or dataset.resolution):
        assumed.append(f"resolution {resolution} (the prior's)")
    if dataset.resolutions is not None and resolution not in dataset.resolutions:
        allowed = " or ".join(map(str, dataset.resolutions))
        problems.append(f"--resolution {resolution}: {dataset_name} can be opened at {allowed} px")
    _collect(problems, lambda: protocol.check_student(student, resolution), None)
    teacher_sha256: str | None = None
    if not problems:
        teacher_sha256 = _collect(problems, lambda: _teacher_sha256(run, protocol, dataset, split, resolution), None)
    ipc = tuple(run.ipc) if run.ipc else headline.ipc
    if not run.ipc:
        assumed.append(f"IPC {', '.join(map(str, headline.ipc))}")
    seeds = tuple(run.seeds) if run.seeds else tuple(range(said("distilled sets", None, headline.sets)))
    repeats = run.repeats
    if repeats is None and protocol.id == resolve_protocol(headline.protocol)[0].id:
        repeats = said("students per set", None, headline.students)
    elif repeats is None:
        repeats = protocol.students_per_set
        assumed.append(f"students per set {repeats} ({protocol.name}'s)")
    if run.shards > len(dataset.class_ids):
        problems.append(f"--shards {run.shards}: {dataset_name} has {len(dataset.class_ids)} classes to share out")
    if repeats > STUDENTS_PER_SET:
        problems.append(f"--repeats {repeats}: expected at most {STUDENTS_PER_SET}")
    if problems:
        raise Problems(problems)
    return Setting(
        dataset=dataset,
        spec=DatasetSpec(name=dataset_name, split=split, resolution=resolution),
        protocol=protocol,
        protocol_spec=protocol_spec,
        student=student,
        teacher_sha256=teacher_sha256,
        ipc=ipc,
        set_seeds=seeds,
        repeats=repeats,
        assumed=tuple(assumed),
    )


def _teacher_sha256(
    run: RunSpec, protocol: Protocol, dataset: type[Dataset], split: str, resolution: int
) -> str | None:
    from ddbench.benchmark.planning import teacher_files

    found = teacher_files.find(protocol, dataset, split, resolution)
    if found is None:
        return None
    teacher_files.check_split(found, dataset().split_hash(split, run.data), dataset.name)
    return found.record.sha256


def resolve_protocol(selector: str) -> tuple[Protocol, ProtocolSpec]:
    """`quick`, `quick@1` or `hard-minimax-sgd[epochs=60]`.

    Raises:
        UsageError: unknown protocol, another version than asked for, unknown or out-of-range override.
    """
    plain, at, version = selector.partition("@")
    name, swept = parse_selector(plain)
    several = [key for key, values in swept.items() if len(values) > 1]
    if several:
        raise UsageError(f"--protocol {selector}: one value for {', '.join(several)}, please; start one run for each")
    protocol: Protocol = PROTOCOLS.load(name)
    if at and version != str(protocol.version):
        raise UsageError(f"--protocol {selector}: this version of ddbench has {protocol.name}@{protocol.version}")
    if swept:
        protocol = protocol.with_overrides({key: values[0] for key, values in swept.items()})
    spec = ProtocolSpec(
        name=protocol.name, version=protocol.version, overrides=dict(protocol.overrides), hash=protocol.hash
    )
    return protocol, spec


def resolve_device(device: str) -> str:
    """`auto` is the first GPU that NVML and torch both see, else the CPU. torch is asked only if NVML sees one."""
    if device != "auto":
        return device
    from ddbench.benchmark.core.environment import gpus

    if not gpus():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _prior_name(run: RunSpec, dataset: type[Dataset]) -> tuple[str | None, str | None]:
    """The prior that a run uses on a dataset, and what people are to be told of it.

    `--prior`, else `$DDBENCH_PRIOR`, else the dataset's own. A dataset whose own prior is bundled keeps it, as it keeps
    its own images under `$DDBENCH_DATA`.
    """
    from ddbench.methods.diffusion.priors.files import bundled_priors

    default = os.environ.get(PRIOR_VARIABLE)
    if run.prior is not None:
        return run.prior, None
    if default and dataset.prior not in bundled_priors():
        return default, f"prior {default} (${PRIOR_VARIABLE})"
    return dataset.prior, None


def _pixel_prior_size(
    run: RunSpec, dataset: type[Dataset], prior_name: str | None, selectors: Sequence[tuple[str, bool]]
) -> int | None:
    """The side of the pixel prior that a chosen method needs, in a run that names no resolution."""
    from ddbench.benchmark.planning.prior_names import name_prior

    methods = [_collect([], lambda s=s: METHODS.load(parse_selector(s)[0]), None) for s, _ in selectors]
    needed = any(method is not None and method.needs_prior for method in methods)
    if run.resolution is not None or prior_name is None or not needed:
        return None
    prior: NamedPrior | None = _collect([], lambda: name_prior(prior_name, dataset), None)  # `_Prior` tells why not
    return prior.files.metadata.resolution if prior is not None and prior.files.metadata.of_pixels else None


def _images_at(contestant: Contestant, setting: Setting, prior: _Prior) -> list[tuple[int, Resize]]:
    """Raises UsageError if the method's own code raises anything."""
    method = contestant.method(contestant.method.Params.model_validate(contestant.spec.params))
    named = prior.of(contestant) if method.needs_prior else None
    try:
        asked = list(method.images_at(setting.spec.resolution, None if named is None else named.files.metadata))
    except Exception as error:  # a plugin's own code may raise anything
        raise UsageError(
            f"{contestant.label}: asking the method which images it needs failed: {type(error).__name__}: {error}"
        ) from error
    return [*asked, *(named.files.metadata.real_images if named is not None and named.tunings else ())]


class _Prior:
    """The prior of a run on one dataset, found when a contestant first needs it; its problem is told once."""

    def __init__(self, name: str | None, setting: Setting, run: RunSpec, used_keys: set[str]) -> None:
        self.name, self.setting, self.run, self.used_keys = name, setting, run, used_keys
        self._found: NamedPrior | None = None
        self._problem: str | None = None

    @property
    def image_size(self) -> int | None:
        """Of its images; None where no contestant has needed it."""
        return None if self._found is None else self._found.files.metadata.resolution

    def of(self, contestant: Contestant) -> NamedPrior:
        """The prior that a contestant gets: the run's, tuned where its entry says so.

        Raises:
            UsageError: none named, not found, damaged, or not fit for this dataset.
        """
        tuner = contestant.prior_tuned_by
        if tuner is None:
            return self._named()
        tuned = self._named().tuned_by(tuner, self.setting.dataset, self.run.set)
        self.used_keys.update(self.run.set.keys() & tuned.tunings[-1].params.keys())
        return tuned

    def _named(self) -> NamedPrior:
        from ddbench.benchmark.planning.prior_names import name_prior

        dataset = self.setting.dataset
        if self.name is None:
            raise UsageError(
                f"{dataset.name} has no prior of its own; name one with --prior NAME|FOLDER or ${PRIOR_VARIABLE}"
            )
        if self._problem is not None:
            raise UsageError(self._problem)
        if self._found is None:
            try:
                found = name_prior(self.name, dataset)
                check_prior(found.files, dataset(), self.setting.spec, self.run.data)
            except UsageError as error:
                self._problem = str(error)
                raise
            self._found = found
        return self._found


def check_prior(prior: PriorFiles, dataset: Dataset, spec: DatasetSpec, data: Path | None) -> None:
    """Check that a prior fits a dataset's classes and size, and never saw its test images.

    Raises:
        Problems: all that does not fit.
    """
    metadata, problems = prior.metadata, []
    unknown = [class_id for class_id in dataset.class_ids if class_id not in metadata.class_ids]
    if unknown:
        problems.append(
            f"prior {prior.name} does not know {len(unknown)} of {dataset.name}'s {len(dataset.class_ids)} classes "
            f"(the first is {unknown[0]}); choose one trained on them"
        )
    if metadata.of_pixels and metadata.resolution != spec.resolution:
        problems.append(
            f"prior {prior.name} makes images of {metadata.resolution} px, the run asks for {spec.resolution} px; "
            f"choose another prior or --resolution {metadata.resolution}"
        )
    if metadata.saw_test_images(dataset.split_hash(spec.split, data)):
        problems.append(
            f"prior {prior.name} was trained on test images of {dataset.name}, split {spec.split}: its results would "
            "mean nothing; choose a prior that saw the training part only"
        )
    if problems:
        raise Problems(problems)


def _contestant_problems(
    contestant: Contestant, setting: Setting, run: RunSpec, prior: _Prior
) -> tuple[dict[str, str], str | None]:
    """(what is wrong with the request -> the option that it lies in, why the method does not run there at all)."""
    problems: dict[str, str] = {}
    where = f"{contestant.label} on {setting.spec.name}"
    try:
        method = contestant.method(contestant.method.Params.model_validate(contestant.spec.params))
        for ipc in (None,) if method.whole_set else setting.ipc:
            reason = method.supports(setting.dataset, ipc)
            if reason is not None:
                return {}, reason
    except Exception as error:  # a plugin's own code may raise anything
        failed = f"{where}: asking the method whether it runs there failed: {type(error).__name__}: {error}"
        return {failed: "methods"}, None
    if method.selects and not method.whole_set:
        try:
            counts = setting.dataset().train_counts(setting.spec.split, run.data)
        except UsageError as error:
            return {str(error): "images"}, None
        smallest = min(counts, key=lambda class_id: counts[class_id])
        for ipc in setting.ipc:
            if ipc > counts[smallest]:
                few = f"{where}: IPC {ipc} is more than the {counts[smallest]} training images of class {smallest!r}"
                problems[few] = "ipc"
    if method.needs_prior:
        try:
            prior.of(contestant)
        except UsageError as error:
            problems[str(error)] = "prior"
    return problems, None


def _sets(
    contestant: Contestant, setting: Setting, run: RunSpec, prior: _Prior, device: str, *, students: bool
) -> list[PlannedSet]:
    method = contestant.method
    named = prior.of(contestant) if method.needs_prior else None
    launch = Launch(
        label=contestant.label,
        prior=None if named is None else named.name,
        **_launch_options(run, device, setting.dataset),
    )
    planned = []
    for ipc in (None,) if method.whole_set else setting.ipc:
        # A set that no seed changes is made once and gets as many students as the other methods' sets together.
        groups = [(seed, [seed]) for seed in setting.set_seeds] if method.uses_seed else [(0, list(setting.set_seeds))]
        for seed, student_groups in groups:
            spec = DistillSpec(
                method=contestant.spec,
                dataset=setting.spec,
                prior_sha256=None if named is None else named.sha256,
                ipc=ipc,
                seed=seed,
                precision=run.precision if method.needs_prior else "fp32",
                device_type=_device_type(device),
            )
            images = DistilledBy(cell=cell_id(spec))
            specs = tuple(
                _student(setting, images, ipc, group * STUDENTS_PER_SET + repeat, device)
                for group in student_groups
                for repeat in range(setting.repeats)
            )
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


def _student(
    setting: Setting, images: DistilledBy | ForeignImages, ipc: int | None, seed: int, device: str
) -> EvaluateSpec:
    return EvaluateSpec(
        images=images,
        dataset=setting.spec,
        ipc=ipc,
        protocol=setting.protocol_spec,
        student=setting.student,
        teacher_sha256=setting.teacher_sha256,
        seed=seed,
        device_type=_device_type(device),
    )


def _device_type(device: str) -> DeviceType:
    return "cuda" if device.startswith("cuda") else "cpu"


def _launch_options(run: RunSpec, device: str, dataset: type[Dataset]) -> dict[str, Any]:
    share = max(1, available_cores() // run.jobs)
    return {
        "data_dir": None if run.data is None else str(run.data.resolve()),
        "device": device,
        "threads": share if dataset.useful_threads is None else min(share, dataset.useful_threads),
        "batch_size": run.batch_size,
        "plugins": tuple(str(plugin.resolve()) for plugin in run.plugins),
    }


def _unused_parameters(run: RunSpec, selectors: Sequence[str], used_keys: set[str]) -> list[str]:
    known: set[str] = set()
    for selector in selectors:
        method: type[Method] | None = _collect([], lambda s=selector: METHODS.load(parse_selector(s)[0]), None)
        known |= set() if method is None else set(method.Params.model_fields)
    problems = []
    for key in run.set.keys() - used_keys:
        near = difflib.get_close_matches(key, known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"they have: {', '.join(sorted(known)) or 'none'}"
        problems.append(f"--set {key}: none of the chosen methods has this parameter; {hint}")
    return problems


def _near(key: str, known: Mapping[str, Any], name: str) -> str:
    near = difflib.get_close_matches(key, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known) or 'none'}"
    return f"{name}: {key}: {hint}"


def _collect(problems: list[str], attempt: Any, otherwise: Any) -> Any:
    """The attempt's value; or its problems added to the list, and `otherwise`."""
    try:
        return attempt()
    except Problems as error:
        problems += error.problems
    except UsageError as error:
        problems.append(str(error))
    return otherwise

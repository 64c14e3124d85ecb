"""From what a user asks for to the cells that answer it. Reads declarations only: no torch, no images.

Every problem is found before anything runs, and all are reported at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.errors import Collector, UsageError
from ddbench.benchmark.core.near_names import did_you_mean
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.planning.contestants import Contestant, contestants, expand_selectors, load_method
from ddbench.benchmark.planning.plan import Plan, PlannedSet
from ddbench.benchmark.planning.planned_sets import Planned, planned_sets
from ddbench.benchmark.planning.prior_names import NamedPrior
from ddbench.benchmark.planning.run_prior import RunPrior, pixel_prior_size, prior_name
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.setting import Setting, device_of, resolve_setting
from ddbench.benchmark.planning.study import find_study, read_study, run_specs
from ddbench.datasets.base import Dataset, Resize
from ddbench.datasets.validation import is_tuning


def plan_request(
    given: Mapping[str, Any], *, study: str | None = None, config: Path | None = None, students: bool = True
) -> tuple[RunSpec, Planned]:
    """Load the plugins that are named, and plan.

    Args:
        given: options that the user gave, under the names of `RunSpec`; they win over a study's.
        study: name of a study that comes with the benchmark; what cannot run here is left out of it, with a note.
        config: a study file of the user's own.
        students: False for the first stage alone.

    Returns:
        what says where and how the cells run, with the datasets that have a part in the plan; the plan.

    Raises:
        Problems: everything that is wrong with the request.
    """
    if config is not None and study is not None:
        raise UsageError("--config and --study: one of them, please")
    asked = read_study(config) if config is not None else find_study(study) if study is not None else None
    specs = run_specs(asked, given)
    for file in specs[0].plugins:
        load_plugin(file)
    tuning = [name for spec in specs for name in spec.datasets if is_tuning(name)]
    if tuning:
        raise UsageError(f"{tuning[0]} is for choosing parameters, by `bench tune`; no leaderboard takes its results")
    unavailable: dict[str, list[str]] | None = {} if asked is not None and asked.bundled else None
    planned = [plan_run(spec, students=students, unavailable=unavailable, typed=given) for spec in specs]
    settings = [setting for one in planned for setting in one.settings]
    notes = [note for one in planned for note in one.notes]
    for reason, what in (unavailable or {}).items():
        notes.append(f"unavailable: {', '.join(dict.fromkeys(what))}\n  " + reason.replace("\n", "\n  "))
    if asked is not None and asked.title:
        notes.insert(0, f"{asked.name}: {asked.title}" + (f" ({asked.source})" if asked.source else ""))
    datasets = list(dict.fromkeys(setting.spec.name for setting in settings))
    return (
        specs[0].model_copy(update={"datasets": datasets}),
        Planned(Plan.joined([one.plan for one in planned]), settings, list(dict.fromkeys(notes))),
    )


def plan_run(
    run: RunSpec,
    *,
    students: bool = True,
    unavailable: dict[str, list[str]] | None = None,
    typed: Collection[str] = (),
) -> Planned:
    """Plan a run (with `students=False`: its first stage).

    Args:
        unavailable: of a study that comes with the benchmark. What cannot run here, for want of a method, a prior, a
            teacher or images, is added to it (reason -> what), and the rest is planned. None: that is a problem.
        typed: options that the user gave by hand over such a study; what is wrong with them is a problem all the same.

    Raises:
        Problems: everything that is wrong with the request.
    """
    problems = _Hindrances(unavailable, typed)
    notes: list[str] = []
    settings: list[Setting] = []
    sets: dict[str | None, PlannedSet] = {}
    used_keys: set[str] = set()
    device = device_of(run)
    selectors = expand_selectors(run.methods)
    for name in run.datasets:
        dataset: type[Dataset] | None = None
        with problems.hindering(name, "datasets"):
            dataset = DATASETS.load(name)
        if dataset is None:
            continue
        prior_is, why_prior = prior_name(run, dataset)
        setting: Setting | None = None
        with problems.hindering(f"{run.protocol or 'all'} on {name}", "protocol", "student", "split", "resolution"):
            found = resolve_setting(run, name, pixel_prior_size(run, dataset, prior_is, selectors))
            if found.protocol.stored is not None and students:
                raise UsageError(
                    f"protocol {found.protocol.label} trains with soft labels that come with a set (`bench eval "
                    "--images`); sets that are distilled here have hard labels"
                )
            setting = found
        entered: list[tuple[Contestant, bool]] = []
        for selector, explicit in selectors:
            with problems.hindering(selector, "methods"):
                load_method(selector)
                with problems.hindering(selector, "methods", "set"):
                    entered += [(one, explicit) for one in contestants(selector, dataset, run.set, used_keys)]
        if setting is None:
            continue
        # A run of what the user asked for stops at missing images when it opens them; a study goes on without.
        absent = Collector()
        if unavailable is not None:
            with absent.catching():
                setting.dataset().train_counts(setting.spec.split, run.data)
        prior = RunPrior(prior_is, setting, run, used_keys)
        images_at: dict[tuple[int, Resize], None] = {}
        for contestant, explicit in entered:
            where, told = f"{contestant.label} on {name}", problems.told
            why_not, named = None, None
            with problems.hindering(where, "methods"):
                why_not = _why_not(contestant, setting)
            if why_not is not None:
                reason = f"{contestant.label} does not run on {name}: {why_not}"
                problems.tell(contestant.label, reason, "methods") if explicit else notes.append(reason)
                continue
            if problems.told > told:
                continue
            for reason in absent.found:
                problems.tell(where, reason, "images")
            with problems.hindering(where, "images"):
                for reason in _too_few_images(contestant, setting, run):
                    problems.tell(where, reason, "ipc")
            with problems.hindering(where, "prior"):
                named = prior.of(contestant)
            if problems.told > told:
                continue
            with problems.hindering(contestant.label):
                images_at |= dict.fromkeys(_images_at(contestant, setting, named))
            for planned in planned_sets(contestant, setting, run, named, device, students=students):
                sets.setdefault(planned.id, planned)
        notes += [] if prior.note is None else [prior.note]
        if unavailable is None or any(p.spec and p.spec.dataset.name == name for p in sets.values()):
            assumed = (*setting.assumed, why_prior) if why_prior and prior.image_size else setting.assumed
            settings.append(
                replace(setting, assumed=assumed, images_at=tuple(images_at), prior_image_size=prior.image_size)
            )
    problems.add(*_unused_parameters(run, [selector for selector, _ in selectors], used_keys))
    problems.raise_any()
    return Planned(Plan(sets=tuple(sets.values())), settings, notes)


class _Hindrances(Collector):
    """What is wrong with a request; of a study that comes with the benchmark, also what it has to go without here."""

    def __init__(self, unavailable: dict[str, list[str]] | None, typed: Collection[str]) -> None:
        super().__init__()
        self.unavailable, self.typed = unavailable, typed
        self.told = 0

    def tell(self, what: str, reason: str, *options: str) -> None:
        """Something cannot run for a reason that lies in one of these options."""
        self.told += 1
        if self.unavailable is None or any(option in self.typed for option in options):
            self.add(reason)
        else:
            self.unavailable.setdefault(reason, []).append(what)

    @contextlib.contextmanager
    def hindering(self, what: str, *options: str) -> Iterator[None]:
        """Tell the usage errors that a block raises, and go on behind it."""
        caught = Collector()
        with caught.catching():
            yield
        for reason in caught.found:
            self.tell(what, reason, *options)


def _why_not(contestant: Contestant, setting: Setting) -> str | None:
    """Why a method does not run in a setting at all; None: it does.

    Raises:
        UsageError: the method's own code raised anything.
    """
    try:
        method = contestant.instance()
        reasons = (method.supports(setting.dataset, ipc) for ipc in ((None,) if method.whole_set else setting.ipc))
        return next((reason for reason in reasons if reason is not None), None)
    except Exception as error:  # a plugin's own code may raise anything
        raise UsageError(
            f"{contestant.label} on {setting.spec.name}: asking the method whether it runs there failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _too_few_images(contestant: Contestant, setting: Setting, run: RunSpec) -> Iterator[str]:
    """For each IPC of which a method that selects images would need more than the smallest class has: a sentence.

    Raises:
        UsageError: the images are not there.
    """
    if not contestant.method.selects or contestant.method.whole_set:
        return
    counts = setting.dataset().train_counts(setting.spec.split, run.data)
    smallest = min(counts, key=lambda class_id: counts[class_id])
    for ipc in setting.ipc:
        if ipc > counts[smallest]:
            where = f"{contestant.label} on {setting.spec.name}"
            yield f"{where}: IPC {ipc} is more than the {counts[smallest]} training images of class {smallest!r}"


def _images_at(contestant: Contestant, setting: Setting, named: NamedPrior | None) -> list[tuple[int, Resize]]:
    """Raises UsageError if the method's own code raises anything."""
    metadata = None if named is None else named.files.metadata
    try:
        asked = list(contestant.instance().images_at(setting.spec.resolution, metadata))
    except Exception as error:  # a plugin's own code may raise anything
        raise UsageError(
            f"{contestant.label}: asking the method which images it needs failed: {type(error).__name__}: {error}"
        ) from error
    return [*asked, *(named.files.metadata.real_images if named is not None and named.tunings else ())]


def _unused_parameters(run: RunSpec, selectors: Sequence[str], used_keys: set[str]) -> Iterator[str]:
    """A sentence for each `--set` that no chosen method has taken."""
    known: set[str] = set()
    for selector in selectors:
        with contextlib.suppress(UsageError):  # told where it was planned
            known |= set(load_method(selector).Params.model_fields)
    otherwise = f"they have: {', '.join(sorted(known)) or 'none'}"
    for key in run.set.keys() - used_keys:
        yield f"--set {key}: none of the chosen methods has this parameter; {did_you_mean(key, known, otherwise)}"

"""From a request to queued pilots: as many as are missing, no more than there is work for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddbench.benchmark.cluster import slurm
from ddbench.benchmark.cluster.jobs import JOBS, Array, Request, Submission, of_key, submissions
from ddbench.benchmark.cluster.script import script
from ddbench.benchmark.cluster.site import STAGES, Site, Stage
from ddbench.benchmark.core.errors import Problems, RunError, UsageError
from ddbench.benchmark.core.registry import ENGINES
from ddbench.benchmark.core.result import utc_now
from ddbench.benchmark.core.sharing.locks import lock
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.engines.base import Engine
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.planner import plan_request
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.study import find_study, read_study
from ddbench.benchmark.running.prepare import present_contents
from ddbench.benchmark.running.runner import Fate, Item, Runner

UNFINISHED = (Fate.WAITING, Fate.RUNNING, Fate.ELSEWHERE)


@dataclass
class Wanted:
    """What a request comes to on a cluster."""

    site: Site
    spec: RunSpec
    planned: Planned
    request: Request
    items: dict[Stage, list[Item]]
    """Stage -> its cells that are still to be made."""
    limits: slurm.Limits
    active: dict[Stage, int] = field(default_factory=dict)
    """Pilots of this request that are queued, held or running already."""
    held: dict[str, Submission] = field(default_factory=dict)
    """Its tasks that the scheduler holds -> their submission."""
    known: frozenset[str] = frozenset()
    """The arrays of which it has told that."""

    @property
    def title(self) -> str:
        what = self.request.study or (Path(self.request.config).stem if self.request.config else None)
        return what or f"{','.join(self.spec.methods)} on {','.join(self.spec.datasets)}"

    def pilots(self, stage: Stage) -> int:
        """All that the stage is to have."""
        resources, cells = self.site.of(stage), len(self.items[stage])
        at_once = (self.spec.jobs or max(1, resources.gpus)) * (self.spec.per_gpu if stage == "evaluate" else 1)
        return min(resources.pilots, -(-cells // at_once))

    def missing(self, stage: Stage) -> int:
        """Those to be queued now."""
        return max(0, self.pilots(stage) - self.active.get(stage, 0))

    def split(self, stage: Stage) -> list[int]:
        """Sizes of the arrays for them: one, unless the scheduler's arrays are too small."""
        count, most = self.missing(stage), self.limits.array_size or self.missing(stage)
        return [min(most, count - begun) for begun in range(0, count, most)] if count else []

    @property
    def students_wait(self) -> bool:
        """Whether pilots of students would find nothing to do at first: all of them need sets that are not made yet."""
        return all(any(source.fate in UNFINISHED for source in item.sources) for item in self.items["evaluate"])

    def text(self, stage: Stage, job: Path) -> str:
        """The batch script."""
        return script(self.site, stage, job, Path.cwd(), max(1, self.missing(stage)), self.title)


def said(name: str, given: Mapping[str, Any], config: Path | None, study: str | None, default: Any) -> Any:
    """An option that says where and how cells run: as it was given, else as the study has it.

    Raises:
        UsageError: there is no such study, or it cannot be read.
    """
    if name in given:
        return given[name]
    asked = read_study(config) if config is not None else find_study(study) if study is not None else None
    return next((run[name] for run in (asked.runs if asked is not None else ()) if name in run), default)


def resolve(
    given: Mapping[str, Any], *, config: Path | None, study: str | None, site: Site, pilots: int | None
) -> Wanted:
    """Plan a request for the nodes of a cluster, whatever this machine is.

    Args:
        pilots: of each stage, in place of what the site says.

    Raises:
        UsageError: what cannot be run so, or is wrong with the request.
    """
    if pilots is not None:
        stages = {str(stage): site.of(stage).model_copy(update={"pilots": pilots}) for stage in STAGES}
        site = site.model_copy(update={"stages": site.stages.model_copy(update=stages)})
    given = {**given, "device": device_of(str(said("device", given, config, study, "auto")), site)}
    spec, planned = plan_request(given, config=config, study=study)
    if spec.engine != "local":
        raise UsageError(f"--engine {spec.engine}: pilots run cells on their own node; leave it out")
    if spec.reuse != "missing":
        raise UsageError(
            f"--reuse {spec.reuse}: pilots share what is missing; `bench run --reuse {spec.reuse}` goes alone"
        )
    if not planned.plan.sets:
        raise RunError("\n".join(["nothing to run: all that was asked for is unavailable here", *planned.notes]))
    gpus = [site.of(stage).gpus for stage in STAGES]
    if spec.device == "cuda" and spec.jobs is not None and spec.jobs > min(gpus):
        raise UsageError(f"--jobs {spec.jobs}: a pilot has {min(gpus)} GPUs, and a cell needs one; leave --jobs out")
    store = Store(spec.out)
    store.require_schema()
    engine: Engine = ENGINES.load(spec.engine)()
    runner = Runner(store, planned.plan, engine, reuse=spec.reuse, retry_failed=spec.retry_failed)
    seen = {item.spec.dataset for item in runner.items if item.cell.content_hash()}
    runner.contents = present_contents([one for one in planned.settings if one.spec in seen], spec.data)
    runner.settle()
    waiting = [item for item in runner.items if item.fate in UNFINISHED]
    wanted = Wanted(
        site=site, spec=spec, planned=planned,
        request=_request(given, spec, config, study, site),
        items={stage: [item for item in waiting if item.spec.kind == stage] for stage in STAGES},
        limits=slurm.limits(),
    )  # fmt: skip
    _adopt(wanted)
    return wanted


def device_of(asked: str, site: Site) -> str:
    """The device that pilots have, whatever this machine has: it is part of what a cell is.

    Raises:
        Problems: the stages differ in it, or it is another one than was asked for.
    """
    problems = []
    have = {stage: "cuda" if site.of(stage).gpus else "cpu" for stage in STAGES}
    if asked.startswith("cuda:"):
        problems.append(f"--device {asked}: each pilot has GPUs of its own; say --device cuda")
    elif asked != "auto":
        problems += [
            f"--device {asked}, but stages.{stage}.gpus of the site's settings is {site.of(stage).gpus}"
            for stage in STAGES
            if have[stage] != asked
        ]
    elif len(set(have.values())) > 1:
        problems.append(
            f"stages.distill.gpus is {site.of('distill').gpus} and stages.evaluate.gpus is {site.of('evaluate').gpus}: "
            "sets and students of one run are made on one kind of device"
        )
    if problems:
        raise Problems(problems)
    return have["distill"]


def _request(given: Mapping[str, Any], spec: RunSpec, config: Path | None, study: str | None, site: Site) -> Request:
    # Pilots start in this folder, but a name that they can take from anywhere cannot be misread.
    paths: dict[str, str | list[str]] = {"out": str(spec.out.resolve())}
    if "data" in given and spec.data is not None:
        paths["data"] = str(spec.data.resolve())
    for name in ("plugins", "test_data"):
        if name in given:
            paths[name] = [str(path.resolve()) for path in getattr(spec, name)]
    plain = json.loads(json.dumps({**given, **paths}, default=str))
    text = None if config is None else config.read_text()
    return Request(
        key=digest({"given": plain, "config": text, "study": study})[:16],
        given=plain, config=None if config is None else str(config), study=study,
        gpus={stage: site.of(stage).gpus for stage in STAGES}, idle_seconds=60 * site.idle_minutes,
    )  # fmt: skip


def _adopt(wanted: Wanted) -> None:
    """See what an earlier command has queued for the same request.

    Raises:
        CallFailed: the scheduler does not tell; nothing may be submitted then.
    """
    earlier = of_key(wanted.spec.out, wanted.request.key)
    stage_of = {array.array: (array.stage, one) for one in earlier for array in one.arrays()}
    if stage_of.keys() == wanted.known:  # of which the scheduler need not be asked again
        return
    wanted.active, wanted.held, wanted.known = {}, {}, frozenset(stage_of)
    for found in slurm.queue([*stage_of]):
        stage, submission = stage_of[found.array]
        known: Stage = "distill" if stage == "distill" else "evaluate"
        wanted.active[known] = wanted.active.get(known, 0) + max(1, len(found.indices))
        if found.state == slurm.HELD:
            wanted.held |= {f"{found.array}_{index}": submission for index in found.indices}


def submit(wanted: Wanted) -> list[Array]:
    """Queue the pilots that are missing, and release held ones that are needed; returns the new arrays.

    Raises:
        CallFailed: the scheduler refused; what it had taken by then stays queued, and is told.
    """
    store, done = Store(wanted.spec.out), list[Array]()
    store.create()
    wanted.planned.plan.save(store)  # so that `bench status` knows what was asked for before any pilot starts
    (wanted.spec.out / JOBS).mkdir(exist_ok=True)
    with lock(wanted.spec.out / JOBS / "submit.lease"):
        _adopt(wanted)  # the same command may have queued them since this one looked
        _release(wanted)
        if any(wanted.missing(stage) for stage in STAGES):
            _queue(wanted, done)
    return done


def _queue(wanted: Wanted, done: list[Array]) -> None:
    """Queue the missing pilots; `done` gets each array that the scheduler has taken."""
    submission = _new(wanted)
    try:
        for stage in STAGES:
            resources = wanted.site.of(stage)
            path = submission.folder / f"{stage}.sbatch"
            if wanted.missing(stage):
                path.write_text(wanted.text(stage, submission.folder))
            held = stage == "evaluate" and wanted.students_wait
            for count in wanted.split(stage):
                number = slurm.submit(path, count, held=held)
                if held:
                    for index in range(count):
                        submission.hold(f"{number}_{index}")
                array = Array(
                    array=number, stage=stage, tasks=count, gpus=resources.gpus, seconds=resources.seconds, at=utc_now()
                )
                submission.add(array)
                done.append(array)
    except RunError as error:
        taken = ", ".join(f"{array.array} ({array.tasks} of {array.stage})" for array in done)
        said = f"queued before that, and kept: {taken}; " if taken else ""
        raise slurm.CallFailed(f"{error}\n{said}the same command submits what is missing") from None


def _new(wanted: Wanted) -> Submission:
    out = wanted.spec.out.resolve()
    number = max((int(one.folder.name) for one in submissions(out)), default=0) + 1
    submission, request = Submission(out / JOBS / str(number)), wanted.request
    if request.config is not None:  # as it is now: pilots of one request run one plan
        own = submission.folder / Path(request.config).name
        submission.create(request.model_copy(update={"config": str(own)}))
        shutil.copyfile(request.config, own)
    else:
        submission.create(request)
    return submission


def _release(wanted: Wanted) -> None:
    """Of the held pilots as many as there are students that need no further set: whoever was to release them may have
    been lost."""
    students = wanted.items["evaluate"]
    ready = sum(not any(source.fate in UNFINISHED for source in item.sources) for item in students)
    woken = [*wanted.held][: ready or (0 if wanted.items["distill"] else len(wanted.held))]
    for task in woken:
        wanted.held[task].claim(task)
    if woken:
        slurm.release(woken)

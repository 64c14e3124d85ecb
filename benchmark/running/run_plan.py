"""A planned run from its first word to its outcome: what the command line and Python do alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import remove_strays
from ddbench.benchmark.core.registry import ENGINES
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.engines.base import Engine, Needs
from ddbench.benchmark.planning.own_code import changed_since, reused_with_other_code
from ddbench.benchmark.planning.planned_sets import Planned
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.setting import Setting
from ddbench.benchmark.running import live
from ddbench.benchmark.running.at_once import AtOnce, cells_at_once
from ddbench.benchmark.running.estimate import estimate
from ddbench.benchmark.running.prepare import before_looks, before_run, check_room, present_contents
from ddbench.benchmark.running.reporter import Reporter
from ddbench.benchmark.running.runner import Fate, Item, Observer, Part, Runner
from ddbench.benchmark.running.tracking import installed, tracked


@dataclass(frozen=True, repr=False)
class RunOutcome:
    """What came of a run: how each cell fared, and where its files lie."""

    out: Path
    """The results folder."""
    cells: tuple[Item, ...]
    """Every planned cell in the order of the plan: `title`, `fate`, `reason`, `seconds`, `result`, and `cell.path`, its
    folder."""
    notes: tuple[str, ...]
    """What the run said: the setting on each dataset, what was left out and why, an estimate of its time."""
    interrupted: bool = False
    """Ctrl-C or SIGTERM ended it; the same run goes on where it stopped."""
    idle: bool = False
    """A part of a run (`Part`) ended for want of work, while others had still to make what is missing."""
    left: int = 0
    """Cells that go on without this run, which was asked to leave them to their engine."""

    @property
    def fates(self) -> dict[str, int]:
        """How many cells were done, reused, failed, …"""
        return {str(fate): count for fate, count in Counter(item.fate for item in self.cells).items()}

    @property
    def failed(self) -> tuple[Item, ...]:
        """The cells that failed, and those that could not be run because another one did."""
        return tuple(item for item in self.cells if item.fate in (Fate.FAILED, Fate.BLOCKED))

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was interrupted."""
        return not self.interrupted and not any(
            item.fate in (Fate.FAILED, Fate.BLOCKED, Fate.INTERRUPTED) for item in self.cells
        )

    @property
    def sets(self) -> dict[str, Path]:
        """Distill cell -> the image folder of its distilled set, of every set that is there."""
        store = Store(self.out)
        return {
            item.cell.id: store.set_dir(item.result.image_set_sha256)
            for item in self.cells
            if isinstance(item.spec, DistillSpec) and item.spec.shard is None
            if item.result is not None and item.result.image_set_sha256 is not None
        }

    def __repr__(self) -> str:
        return f"<RunOutcome in {self.out}: {live.summary(list(self.cells)) if self.cells else 'no cells'}>"


class CellsFailed(RunError):
    """Cells of a run failed; the others' results are kept, and the same run goes on with what is missing."""

    def __init__(self, outcome: RunOutcome) -> None:
        self.outcome = outcome
        super().__init__("\n".join(f"{item.fate} {item.complaint}" for item in outcome.failed))


def run_plan(
    spec: RunSpec, planned: Planned, reporter: Reporter, *, dry_run: bool = False, part: Part | None = None
) -> RunOutcome:
    """Run what is not there yet of a plan, or with `dry_run` only see what that is.

    Cells that fail are data: they are in the outcome, and raise nothing.

    Args:
        part: of the plan that this run takes on, where other runs see to the rest; None: all of it.

    Raises:
        UsageError: an engine that does not exist or cannot do what is asked, missing or incomplete images, or a results
            folder of another version.
        RunError: a results folder that cannot be written, that another run is at work in where all is to be made again,
            or that is moved away meanwhile; no room for the sets, or nothing to run at all.
    """
    return _Run(spec, planned, reporter, part).go(dry_run=dry_run)


class _Run:
    def __init__(self, spec: RunSpec, planned: Planned, reporter: Reporter, part: Part | None) -> None:
        self.spec, self.planned, self.reporter = spec, planned, reporter
        self.notes: list[str] = []
        self.store = Store(spec.out)
        self.store.require_schema()
        if spec.track is not None:
            installed(spec.track)
        self.engine: Engine = ENGINES.load(spec.engine)()
        self.engine.join(spec.address)
        self.runner = Runner(
            self.store,
            planned.plan,
            self.engine,
            reuse=spec.reuse,
            retry_failed=spec.retry_failed,
            timeout_seconds=spec.timeout,
            part=part,
        )

    def go(self, *, dry_run: bool) -> RunOutcome:
        for setting in self.planned.settings:
            self._say(live.describe_setting(setting, students=self.planned.plan.has_students))
        for note in self.planned.notes:
            self._say(note)
        runner, settings = self.runner, self.planned.settings
        # `only-cache` asks what is there, not what is there of the images that the dataset has now.
        fresh = self.spec.reuse != "only-cache"
        seen = {item.spec.dataset for item in runner.items if fresh and item.cell.content_hash()}
        begun = [setting for setting in settings if setting.spec in seen]
        if dry_run:
            runner.contents = present_contents(begun, self.spec.data)
            runner.settle()
            self._tell_of_other_code()
            if runner.items:
                self.reporter.planned(runner.items)
                self._say(live.summary(runner.items))
                self._foretell()
            return self._outcome()
        if not self.planned.plan.sets:
            raise RunError("nothing to run: everything that was asked for is unavailable here, for the reasons above")
        self.store.create()
        self._run(begun, [setting for setting in settings if setting not in begun])
        self._say(live.summary(runner.items))
        outcome = self._outcome()
        for item in outcome.failed:
            self.reporter.failed(item)
        return outcome

    def _run(self, begun: Sequence[Setting], others: Sequence[Setting]) -> None:
        """Decide what is to be made, and make it; other runs of the same cells may be at work beside this one.

        Args:
            begun: settings of datasets on which cells have run; their images may have changed since.
        """
        spec, runner = self.spec, self.runner
        before_run(begun, spec.data, self.reporter)
        runner.contents = present_contents(begun, spec.data)
        with ExitStack() as stack:
            self._decide(stack)
            self._make(others)

    def _decide(self, stack: ExitStack) -> None:
        """What of the plan is there already; and be at work from then on."""
        run, runner = uuid4().hex[:12], self.runner
        with self.store.planning(self._waiting) as lease:
            others = self.store.runs_at_work(sweep=True)
            if others and self.spec.reuse == "never":
                raise RunError(
                    f"another run ({others[0].holder.name}) is at work in {self.store.out}, and --reuse never would "
                    "delete what it makes: wait for it, stop it, or use another --out. If it is gone with its machine, "
                    f"remove {others[0].folder}."
                )
            stack.enter_context(self.store.at_work(run))
            if others:
                runner.shuffle(run)
                names = ", ".join(other.holder.name for other in others)
                self._say(f"sharing the cells with who else is at work in {self.store.out}: {names}")
            lease.require()  # another may have begun to run what is about to be put aside or cleared
            if any(stale := runner.put_aside_stale()):
                self._say(
                    f"the images of a dataset have changed: {stale[0]} cells that were run on others are put aside in "
                    f"{self.store.superseded}, and {stale[1]} of its present images are back"
                )
            lease.require()
            runner.settle()
            self._tell_of_other_code()
            if failed := sum(item.fate is Fate.FAILED for item in runner.items):
                cells = "1 cell that" if failed == 1 else f"{failed} cells that"
                self._say(f"not run again without --retry-failed: {cells} failed in an earlier run")
            lease.require()
            if not others:
                self._tidy()

    def _tell_of_other_code(self) -> None:
        reused = (item.result for item in self.runner.items if item.fate is Fate.REUSED and item.result is not None)
        if changed := changed_since(reused):
            self._say(reused_with_other_code(changed))

    def _tidy(self) -> None:
        """Remove what killed runs and cells have left, while nobody else is at work here."""
        remove_strays(self.store.plans)
        for item in self.runner.items:
            if item.fate in (Fate.WAITING, Fate.REUSED):
                self.runner.tidy_after_kill(item, done=item.fate is Fate.REUSED, alone=True)

    def _waiting(self) -> AbstractContextManager[object]:
        self._say(f"waiting for another run that is planning in {self.store.out}")
        return nullcontext()

    def _make(self, others: Sequence[Setting]) -> None:
        spec, runner, engine = self.spec, self.runner, self.engine
        if not runner.waiting():
            self.planned.plan.save(self.store)
            with self._tracked(Observer()):
                return
        before_run(others, spec.data, self.reporter)
        if any(isinstance(item.spec, EvaluateSpec) for item in runner.waiting()):
            before_looks(self.planned.settings, spec.data, self.reporter)
        check_room(self.store, runner.items, self.planned.settings, spec.data)
        at_once = self._foretell()
        threads = max(item.planned.launch.threads for item in runner.items)
        needs = Needs(self.store.out, threads)
        slots = engine.open(jobs=at_once.jobs, device=self.planned.plan.sets[0].launch.device, needs=needs)
        for note in engine.notes:
            self._say(note)
        runner.per_gpu, runner.tell = at_once.per_gpu, self._say
        try:
            # What was refused before leaves no plan behind. This run is at work, so nobody takes the plan for a stray.
            self.planned.plan.save(self.store)
            with self.reporter.view(runner.items) as view, self._tracked(view) as observer:
                runner.run(slots, observer)
        finally:
            engine.close()

    def _tracked(self, shown: Observer) -> AbstractContextManager[Observer]:
        return tracked(self.spec.track, self.store.out, shown, self.runner.items, self.reporter.warn)

    def _foretell(self) -> AtOnce:
        """Say how long it will take, as far as anything measured tells; returns how many cells run at once."""
        at_once = cells_at_once(self.spec, self.runner.waiting(), self.store)
        if at_once.note is not None:
            self._say(at_once.note)
        if self.runner.part is not None or not self.engine.here:
            return at_once  # of one run among many nobody would read it, and other machines' rates are not known here
        expected = estimate(self.runner.items, self.store, probe=True)
        for line in expected.lines(at_once.jobs):
            self._say(line)
        if warning := expected.warning(at_once.jobs):
            self.reporter.warn(warning)
        return at_once

    def _say(self, text: str) -> None:
        self.notes.append(text)
        self.reporter.say(text)

    def _outcome(self) -> RunOutcome:
        runner = self.runner
        return RunOutcome(
            self.store.out, tuple(runner.items), tuple(self.notes), runner.interrupted, runner.idle, runner.left
        )

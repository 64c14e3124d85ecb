"""Runs a plan: starts what is ready in free slots, watches, ends what must end, and says how each cell fared."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType
from typing import Literal

from ddbench.benchmark.cells.cell import EXIT_CHANGED, EXIT_ELSEWHERE, EXIT_TERMINATED
from ddbench.benchmark.cells.failures import write_failure, write_failure_held
from ddbench.benchmark.cells.tidy import tidy_after_kill
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.result import DistillResult, EvaluateResult
from ddbench.benchmark.core.sharing.attempts import MOST_ATTEMPTS, Cause
from ddbench.benchmark.core.sharing.locks import Busy
from ddbench.benchmark.core.spec import DatasetSpec, DistilledBy, DistillSpec, EvaluateSpec, cell_id
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Slot
from ddbench.benchmark.planning.plan import Plan, PlannedSet
from ddbench.benchmark.planning.run_spec import Reuse
from ddbench.benchmark.running.memory_kills import memory_kills

POLL_SECONDS = 0.1
FULL_BYTES = 64 * 1024
"""Free bytes below which a disk counts as full: a cell's smallest files need more."""
ELSEWHERE_SECONDS = 0.5
"""Seconds between two looks at the cells that other processes are at, at least."""
LOOKING_SHARE = 0.05
"""Share of the time that such looks may take, where there are many of them or the file system is slow."""
LEAVE_SECONDS = 5.0
"""Seconds to ask for a stop by a second Ctrl-C, where the first leaves cells to their engine."""
GRACE_SECONDS = 10.0
"""Seconds between asking a cell to stop and ending it."""


class Fate(StrEnum):
    """Where a planned cell stands in this run."""

    WAITING = "waiting"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    """A process of another run is at it, on this machine or another; this run waits for it."""
    DONE = "done"
    REUSED = "reused"
    FAILED = "failed"
    BLOCKED = "blocked"
    """Its distilled set could not be made."""
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """Its process was killed; it starts again at once."""
    MISSING = "missing"
    """Absent, and `--reuse only-cache` runs nothing."""


MADE = (Fate.DONE, Fate.REUSED)
"""Fates of a cell whose set is there."""


@dataclass(frozen=True)
class Part:
    """The part of a plan that a run takes on, where other runs see to the rest."""

    stage: Literal["distill", "evaluate"]
    """`evaluate`: sets come from other runs, and their students are waited for."""
    idle_seconds: float
    """It ends once it has found nothing to do for so long."""


@dataclass(eq=False)
class Item:
    """A planned cell and its fate."""

    planned: PlannedSet
    """The set that it makes, or trains a student on."""
    spec: DistillSpec | EvaluateSpec
    cell: CellDir
    """Its folder."""
    fate: Fate = Fate.WAITING
    reason: str | None = None
    """Why it failed or was blocked."""
    began: float | None = None
    """When this run started it, on the monotonic clock, seconds."""
    seconds: float | None = None
    """Wall-clock time from start to end in this run; None where this run did not run it."""
    result: DistillResult | EvaluateResult | None = None
    earlier: str | None = None
    """Hash of the result that it had when this run first looked."""
    sources: list[Item] = field(default_factory=list, repr=False)
    """What must be made before: the distill cell that makes a student's images, the shards of a set."""
    followers: list[Item] = field(default_factory=list, repr=False)
    """The cells of which this one is a source."""

    @property
    def merges(self) -> bool:
        """Whether the cell merges the shards of its set."""
        return isinstance(self.spec, DistillSpec) and self.spec.shard is None and self.planned.shards > 1

    @property
    def stage(self) -> str:
        """What kind of work it is, for people."""
        if isinstance(self.spec, DistillSpec):
            return "shards" if self.spec.shard is not None else "distilled sets"
        return "students"

    @property
    def title(self) -> str:
        """One line that names the cell for people."""
        ipc = "all images" if self.spec.ipc is None else f"IPC {self.spec.ipc}"
        where = f"{self.planned.label} · {self.spec.dataset.name} · {ipc}"
        if isinstance(self.spec, DistillSpec):
            part = f" · {self.spec.shard}" if self.spec.shard is not None else ""
            merged = f" · merge of {self.planned.shards} shards" if self.merges else ""
            return f"distill {where} · set {self.spec.seed}{part}{merged}"
        set_seed = f" · set {self.planned.spec.seed}" if self.planned.spec is not None else ""
        return f"train {where}{set_seed} · {self.spec.student} seed {self.spec.seed}"

    @property
    def complaint(self) -> str:
        """Which cell failed and why."""
        return f"{self.title} ({self.cell.id}): {self.reason}"


class Observer:
    """Whoever shows a run to people; this one shows nothing."""

    def changed(self, item: Item) -> None:
        """A cell's fate has changed."""

    def tick(self) -> None:
        """Called several times a second while cells run."""


@dataclass
class _Running:
    item: Item
    handle: Handle
    slot: Slot
    replaces: str | None = None
    """Hash of the result that it was started in spite of."""
    stop_asked: float | None = None
    timed_out: bool = False
    memory_kills: int | None = field(default_factory=lambda: memory_kills())
    """Those of before it started."""

    def memory_ran_out(self) -> str:
        """What is known of why the system killed a process, as the end of a sentence."""
        now = memory_kills()
        known = now is not None and self.memory_kills is not None and now > self.memory_kills
        return ", and the system ended processes here because memory ran out" if known else ""


@dataclass
class Runner:
    """Runs the cells of a plan on an engine."""

    store: Store
    plan: Plan
    engine: Engine
    reuse: Reuse = "missing"
    retry_failed: bool = False
    timeout_seconds: float | None = None
    per_gpu: int = 1
    """Students at once in a slot on a GPU."""
    contents: Mapping[DatasetSpec, str] = field(default_factory=dict)
    """`SplitData.content_hash` of datasets as they are now; a cell that was run on other images is run again. Of a
    dataset that is not named here, every cell counts as current."""
    part: Part | None = None
    """None: the whole plan."""
    items: list[Item] = field(init=False)
    idle: bool = field(default=False, init=False)
    """It ended because it found nothing to do for too long, while others had still to make what is missing."""
    observer: Observer | None = field(default=None, init=False)
    interrupted: bool = field(default=False, init=False)
    left: int = field(default=0, init=False)
    """Cells that go on without this run."""
    tell: Callable[[str], None] = field(default=lambda text: None, init=False)
    """Whom to tell what becomes of the run."""
    _leave_at: float | None = field(default=None, init=False)
    _told_of_leave: bool = field(default=False, init=False)
    _told_of_stop: bool = field(default=False, init=False)
    _kill_now: bool = field(default=False, init=False)
    _place: dict[Item, int] = field(init=False)
    """Places in the order in which ready cells start."""
    _ready: dict[bool, list[tuple[int, Item]]] = field(init=False)
    """Heaps of the cells that may start, by place: students apart, for they may share a slot and others may not."""
    _elsewhere: list[Item] = field(default_factory=list, init=False)
    _look_elsewhere_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.items = [Item(p, spec, self.store.cell(cell_id(spec))) for p, spec in self.plan.cells()]
        by_id = {item.cell.id: item for item in self.items}
        self._place = {item: place for place, item in enumerate(self.items)}
        self._ready = {False: [], True: []}
        for item in self.items:
            item.sources = [by_id[cell] for cell in _source_ids(item)]
            for source in item.sources:
                source.followers.append(item)

    def shuffle(self, run: str) -> None:
        """Start ready cells in an order of this run's own: runs that work side by side would else meet at each."""
        order = sorted(self.items, key=lambda item: hashlib.sha256(f"{run} {item.cell.id}".encode()).digest())
        self._place = {item: place for place, item in enumerate(order)}

    def settle(self) -> None:
        """Decide for every cell, without running any, whether its result is reused, missing or still to be made."""
        for item in self.items:
            item.earlier = item.cell.result_sha256()
            item.fate = self._earlier_fate(item) or (Fate.MISSING if self.reuse == "only-cache" else Fate.WAITING)
        # A set that is there needs no shards, whether they once made it or not.
        there = {item.planned.id for item in self.items if item.fate is Fate.REUSED and item.stage == "distilled sets"}
        self.items = [item for item in self.items if not (item.stage == "shards" and item.planned.id in there)]
        for item in self.items:
            self._block_followers(item)
        self._leave_to_others()

    def _leave_to_others(self) -> None:
        """What of the plan is not this run's part: students are none of its cells, sets come from elsewhere."""
        if self.part is None:
            return
        if self.part.stage == "distill":
            self.items = [item for item in self.items if isinstance(item.spec, DistillSpec)]
            for item in self.items:
                item.followers = [one for one in item.followers if isinstance(one.spec, DistillSpec)]
            return
        for item in self.items:
            if isinstance(item.spec, DistillSpec) and item.fate is Fate.WAITING:
                item.fate = Fate.ELSEWHERE
                self._elsewhere.append(item)

    def _is_own(self, item: Item) -> bool:
        return self.part is None or item.spec.kind == self.part.stage

    def put_aside_stale(self) -> tuple[int, int]:
        """Put aside the cells that were run on other images than their dataset has now, and bring back those that
        were run on its present images. Returns how many of each."""
        aside = back = 0
        for item in self.items:
            if not self._stale(item):
                continue
            had = item.cell.content_hash()
            assert had is not None
            try:
                self.store.put_aside(item.cell, had)
            except Busy:
                continue
            aside += 1
            kept = self.store.set_aside(item.cell.id, self.contents[item.spec.dataset])
            if kept.path.exists() and self.reuse != "never":
                kept.path.rename(item.cell.path)
                back += 1
        return aside, back

    def _stale(self, item: Item) -> bool:
        had, now = item.cell.content_hash(), self.contents.get(item.spec.dataset)
        return had is not None and now is not None and had != now

    def _earlier_fate(self, item: Item) -> Fate | None:
        """Take the result that an earlier run left, if it answers the plan: the fate that it gives the cell."""
        result = item.cell.result()
        if self.reuse == "never" or result is None:
            return None
        if not item.cell.finished(retry_failed=self.retry_failed) or not self._current(item):
            return None
        item.result, item.reason = result, result.reason
        return Fate.REUSED if result.status == "ok" else Fate.FAILED

    def _current(self, item: Item) -> bool:
        """Whether a finished cell still answers the plan: it saw the dataset's present images, its set lies there, and
        is the one its student saw."""
        result = item.cell.result()
        if self._stale(item):
            return False
        if result is None or result.status != "ok":
            return result is not None
        assert result.image_set_sha256 is not None
        if isinstance(item.spec, DistillSpec):
            if item.spec.shard is not None:
                return (item.cell.path / "rounds").is_dir()
            return (self.store.set_dir(result.image_set_sha256) / "manifest.json").exists()
        if isinstance(item.spec.images, DistilledBy):
            source = self.store.cell(item.spec.images.cell).result()
            return source is not None and source.image_set_sha256 == result.image_set_sha256
        return True

    def run(self, slots: list[Slot], observer: Observer) -> None:
        """Run every waiting cell. Ctrl-C and SIGTERM end running cells resumably; a second one kills them."""
        self.observer = observer
        if self.reuse == "never":
            self._clear()
        for item in self.items:
            self._put_if_ready(item)
        running: list[_Running] = []
        busy = time.monotonic()
        with _signals(self._interrupt), _ended_with(running):
            while True:
                slots = self._slots_now(slots)
                if self._leaves(running):
                    return
                if not self.interrupted and self._leave_at is None:
                    self._look_elsewhere()
                    self._start_ready(slots, running)
                if not running and (self.interrupted or not (self._elsewhere or any(self._ready.values()))):
                    break
                if running or any(self._ready.values()):
                    busy = time.monotonic()
                elif self.part is not None and time.monotonic() - busy > self.part.idle_seconds:
                    self.idle = True
                    break
                time.sleep(POLL_SECONDS)
                running[:] = [live for live in running if not self._ended(live)]
                observer.tick()
        for item in self.items:
            if item.fate in (Fate.WAITING, Fate.ELSEWHERE):
                item.fate = Fate.INTERRUPTED

    def _slots_now(self, slots: list[Slot]) -> list[Slot]:
        now = self.engine.slots(slots)
        if slots and not now:
            self.tell("no machine is there at present that can run cells; this run waits for one")
        return now

    def _interrupt(self) -> None:
        if self.engine.detaches and self._leave_at is None:
            self._leave_at = time.monotonic() + LEAVE_SECONDS
            return
        self._kill_now = self.interrupted
        self.interrupted = True

    def _leaves(self, running: Sequence[_Running]) -> bool:
        """Whether this run ends now and leaves its cells to their engine."""
        if self._leave_at is None:
            return False
        if self.interrupted:
            if not self._told_of_stop:
                self.engine.stop_left()
                self._told_of_stop = True
            return False
        if not self._told_of_leave:
            self._told_of_leave = True
            self.tell(f"{len(running)} cells go on without this run; Ctrl-C once more, now, stops them")
        if time.monotonic() < self._leave_at:
            return False
        self.engine.detach()
        self.left = len(running)
        for item in self.items:
            if item.fate in (Fate.WAITING, Fate.ELSEWHERE, Fate.RUNNING):
                item.fate = Fate.ELSEWHERE if item.fate is Fate.RUNNING else Fate.INTERRUPTED
        return True

    def waiting(self) -> list[Item]:
        """The cells that this run has still to run."""
        return [item for item in self.items if item.fate in (Fate.WAITING, Fate.ELSEWHERE) and self._is_own(item)]

    def _put_if_ready(self, item: Item) -> None:
        """Let a cell start that waits for nothing more than a slot."""
        if item.fate is Fate.WAITING and all(source.fate in MADE for source in item.sources):
            self._put(item)

    def _put(self, item: Item) -> None:
        heapq.heappush(self._ready[isinstance(item.spec, EvaluateSpec)], (self._place[item], item))

    def _look_elsewhere(self) -> None:
        """See what has become of the cells that other processes were at."""
        if not self._elsewhere or time.monotonic() < self._look_elsewhere_at:
            return
        began = time.monotonic()
        there, self._elsewhere = self._elsewhere, []
        for item in there:
            if item.cell.running():
                self._elsewhere.append(item)
            elif self._made_meanwhile(item, item.cell.result_sha256()):
                self._finish(item, Fate.REUSED)
            elif self._is_own(item):
                self._put(item)
            else:
                self._elsewhere.append(item)
        now = time.monotonic()
        self._look_elsewhere_at = now + max(ELSEWHERE_SECONDS, (now - began) / LOOKING_SHARE)

    def _start_ready(self, slots: list[Slot], running: list[_Running]) -> None:
        while (found := self._next(slots, running)) is not None:
            item, slot = found
            if item.cell.running():
                self._leave_elsewhere(item)
                continue
            if fate := self._earlier_fate(item):  # its set had to be made again, and is the one it was trained on
                self._change(item, fate)
                continue
            seen = item.cell.result_sha256()
            if self._made_meanwhile(item, seen):
                self._finish(item, Fate.REUSED)
                continue
            self.store.require_there()
            launch = self._launch(item, slot, slots, seen)
            self.store.add(item.spec, launch)
            item.began = time.monotonic()
            try:
                handle = self.engine.start(item.cell.path, launch, slot)
            except RunError:
                if not self.interrupted:
                    raise
                return  # the process that starts cells was told to stop, too: timeout and schedulers tell all at once
            running.append(_Running(item, handle, slot, replaces=launch.replaces))
            self._change(item, Fate.RUNNING)

    def _made_meanwhile(self, item: Item, seen: str | None) -> bool:
        """Whether another run has given it a result since this one looked. Whatever that is, it counts: what a run does
        about results that are to be tried again, all runs at once need not do."""
        return seen not in (None, item.earlier) and self._current(item)

    def _launch(self, item: Item, slot: Slot, slots: Sequence[Slot], replaces: str | None) -> Launch:
        beside = sum(other.node == slot.node for other in slots)
        return item.planned.launch.model_copy(
            update={
                "device": slot.device,
                "shards": tuple(shard.cell.id for shard in item.sources) if item.merges else (),
                "cells_at_once": beside if slot.device == "cpu" else self._most_in(slot, item),
                "threads": min(slot.cores or item.planned.launch.threads, item.planned.launch.threads),
                "timeout_seconds": self.timeout_seconds,
                "replaces": replaces,
                "stood_still": item.cell.stood_still(),
            }
        )

    def _next(self, slots: list[Slot], running: list[_Running]) -> tuple[Item, Slot] | None:
        """Take the first cell that is ready and has a slot."""
        heaps = [(heap, self._slot_for(heap[0][1], slots, running)) for heap in self._ready.values() if heap]
        fitting = [(heap, slot) for heap, slot in heaps if slot is not None]
        if not fitting:
            return None
        heap, slot = min(fitting, key=lambda one: one[0][0][0])
        return heapq.heappop(heap)[1], slot

    def _slot_for(self, item: Item, slots: list[Slot], running: list[_Running]) -> Slot | None:
        """The emptiest slot that may take it: with nothing in it, or with students only where it is one too."""
        there = {slot: [live.item for live in running if live.slot == slot] for slot in slots}
        takes = [s for s in slots if len(there[s]) < min(self._most_in(s, other) for other in (item, *there[s]))]
        return min(takes, key=lambda slot: len(there[slot]), default=None)

    def _most_in(self, slot: Slot, item: Item) -> int:
        """The most cells in a slot where this one is."""
        return self.per_gpu if isinstance(item.spec, EvaluateSpec) and slot.device != "cpu" else 1

    def _clear(self) -> None:
        """Forget every cell, but leave alone what another process is at, and what then cannot be made again now."""
        for item in self.items:
            if item.fate is Fate.WAITING:
                try:
                    item.cell.clear()
                except RunError as error:
                    item.reason = str(error)
                    self._change(item, Fate.FAILED)

    def _block_followers(self, item: Item) -> None:
        """Give up the cells that need a set which will not be made."""
        if item.fate not in (Fate.FAILED, Fate.INTERRUPTED, Fate.BLOCKED):
            return
        shard = item.spec.shard if isinstance(item.spec, DistillSpec) else None
        what = f"its {shard}" if shard is not None else "its distilled set"
        for follower in item.followers:
            if follower.fate is Fate.WAITING:
                follower.reason = f"{what} ({item.cell.id}) {item.fate}"
                self._change(follower, Fate.BLOCKED)

    def _ended(self, live: _Running) -> bool:
        """Look after one running cell; True once its process has ended and its fate is known."""
        item, now = live.item, time.monotonic()
        status = live.handle.exit_status()
        if status is None:
            assert item.began is not None
            # The cell counts its own time; this is for one that does not listen any more.
            if self.timeout_seconds is not None and now - item.began > self.timeout_seconds + GRACE_SECONDS:
                live.timed_out = True
            if (self.interrupted or live.timed_out) and live.stop_asked is None:
                live.stop_asked = now
                live.handle.terminate()
            elif live.stop_asked is not None and (self._kill_now or now - live.stop_asked > GRACE_SECONDS):
                live.handle.kill()
            return False
        if status:
            self.store.require_there()
        if status == EXIT_ELSEWHERE:
            self._leave_elsewhere(item)
        elif status == EXIT_CHANGED:
            self._again(item)  # which looks first
        elif item.cell.result_seen() is None or item.cell.result_sha256() == live.replaces:
            self._ended_without_result(live, status)
        else:
            if status:  # killed between its result and its end
                self.tidy_after_kill(item, done=True, alone=False)
            self._finish(item)
        return True

    def tidy_after_kill(self, item: Item, *, done: bool, alone: bool) -> None:
        """As `tidy.tidy_after_kill`."""
        shards = [source.cell for source in item.sources] if item.merges else []
        tidy_after_kill(item.cell, item.spec, shards, done=done, alone=alone)

    def _leave_elsewhere(self, item: Item) -> None:
        self._elsewhere.append(item)
        self._change(item, Fate.ELSEWHERE)

    def _ended_without_result(self, live: _Running, status: int) -> None:
        item = live.item
        if status < 0:  # else it gave its lease back itself, and that may be another run's by now
            self._believe_ended(live)
        if live.timed_out:
            write_failure(item.cell, "timeout", f"took longer than the --timeout of {self.timeout_seconds:g} s")
        elif self.interrupted or status == EXIT_TERMINATED:
            self._change(item, Fate.INTERRUPTED)
            return
        elif status < 0:
            by = f"its process was ended by {signal.Signals(-status).name}{live.memory_ran_out()}"
            if not self._given_up(live, live.handle.lost or by):
                return
        self._finish(item)

    def _believe_ended(self, live: _Running) -> None:
        """Of a process that was seen to end on another machine, nobody need wait until its lease stood still."""
        if live.slot.node is not None and live.handle.lost is None:
            live.item.cell.believe_ended(live.slot.node)

    def _given_up(self, live: _Running, why: str) -> bool:
        """Note that a cell's process was killed. Unless that happened too often, it may start again, here or elsewhere:
        what it had committed is kept."""
        item = live.item
        try:
            with item.cell.lock():
                item.cell.attempts.end(Cause.LOST)
                lost = item.cell.attempts.lost()
                if lost >= MOST_ATTEMPTS:
                    write_failure_held(item.cell, "killed", f"{why}, the last of {lost} attempts that ended so")
                    return True
        except Busy:
            self._leave_elsewhere(item)
            return False
        except OSError:  # a full disk: its last words say so
            return True
        item.reason = f"{why}; attempt {lost + 1} of {MOST_ATTEMPTS} follows"
        self._change(item, Fate.LOST)
        self._again(item)
        return False

    def _again(self, item: Item) -> None:
        item.reason = None
        self._change(item, Fate.WAITING)
        self._put(item)

    def _finish(self, item: Item, well: Fate = Fate.DONE) -> None:
        item.result = item.cell.result()
        if item.began is not None:
            item.seconds = time.monotonic() - item.began
        if item.result is not None and item.result.status == "ok":
            self._change(item, well)
        else:
            item.reason = item.result.reason if item.result is not None else last_words(item.cell)
            self._change(item, Fate.FAILED)

    def _change(self, item: Item, fate: Fate) -> None:
        if item.fate is not fate:
            item.fate = fate
            if self.observer is not None:
                self.observer.changed(item)
            if fate in MADE:
                for follower in item.followers:
                    self._put_if_ready(follower)
            elif not self.interrupted:  # a run that is stopped leaves what it did not come to
                self._block_followers(item)


def _source_ids(item: Item) -> list[str]:
    if isinstance(item.spec, EvaluateSpec):
        return [item.spec.images.cell] if isinstance(item.spec.images, DistilledBy) else []
    return [cell_id(shard) for shard in item.spec.shards(item.planned.shards)] if item.merges else []


def last_words(cell: CellDir) -> str:
    """The last line of a cell's log, for a cell that could not even write why it failed."""
    try:
        lines = (cell.path / "log.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    full = ""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(cell.path).free < FULL_BYTES:
            full = "; its disk is full: make room, and the same command goes on"
    said = f"; its log ends with: {lines[-1]}" if lines else " or a log"
    return f"ended without a result{said}{full}"


@contextlib.contextmanager
def _ended_with(running: list[_Running]) -> Iterator[None]:
    """Where the block cannot go on, ask the cells to stop that run then."""
    try:
        yield
    except BaseException:
        for live in running:
            live.handle.terminate()
        raise


@contextlib.contextmanager
def _signals(call: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM call a function instead of ending the process. Only the main thread may
    set signal handlers: in another one they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        call()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The runner's decisions, on an engine that runs nothing: order, slots, blocking, reuse, time limits, interruption."""

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fake_results
import pytest

from ddbench.benchmark.cells.failures import write_failure
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.store import CellDir, Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import runner as runner_module
from ddbench.benchmark.running.runner import Fate, Item, Runner, _Running


class FakeCell(Handle):
    """Ends after some polls; what it leaves behind is up to `finish`."""

    def __init__(self, cell: CellDir, polls: int, status: int, finish: Callable[[CellDir], None]) -> None:
        self.cell, self.polls, self.status, self.finish = cell, polls, status, finish
        self.told: list[str] = []

    def exit_status(self) -> int | None:
        self.polls -= 1
        if self.polls > 0:
            return None
        self.finish(self.cell)
        return self.status

    def terminate(self) -> None:
        self.told.append("terminate")
        self.polls, self.status, self.finish = 0, 143, lambda cell: None

    def kill(self) -> None:
        self.told.append("kill")


class FakeEngine(Engine):
    """Finishes every cell, except those that a test gives another end."""

    def __init__(self, ends: dict[str, tuple[int, int, Callable[[CellDir], None]]] | None = None) -> None:
        self.ends = ends or {}
        self.started: list[str] = []
        self.most_at_once = 0
        self.living: list[FakeCell] = []

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(i, "cpu") for i in range(jobs)]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        directory = CellDir(cell)
        polls, status, finish = self.ends.get(directory.spec().kind, (2, 0, finish_well))
        handle = FakeCell(directory, polls, status, finish)
        self.started.append(directory.id)
        self.living = [h for h in self.living if h.polls > 0] + [handle]
        self.most_at_once = max(self.most_at_once, len(self.living))
        return handle

    def close(self) -> None:
        pass


class Silent:
    def __init__(self) -> None:
        self.fates: list[tuple[str, Fate]] = []

    def changed(self, item: Item) -> None:
        self.fates.append((item.cell.id, item.fate))

    def tick(self) -> None:
        pass


def finish_well(cell: CellDir) -> None:
    write_json(cell.path / "result.json", fake_results.of(cell).model_dump(mode="json"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.001)
    made = Store(tmp_path / "runs")
    made.create()
    return made


@pytest.fixture
def plan() -> Plan:
    given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0-1", "repeats": 2, "device": "cpu"}
    return plan_run(run_spec({}, given))[0]


def run(store: Store, plan: Plan, engine: FakeEngine, jobs: int = 1, **options: object) -> Runner:
    runner = Runner(store, plan, engine, **options)  # type: ignore[arg-type]
    runner.settle()
    runner.run(engine.open(jobs=jobs, device="cpu"), Silent())
    return runner


def fates(runner: Runner) -> list[str]:
    return [f"{item.spec.kind} {item.fate}" for item in runner.items]


def test_sets_come_before_their_students_and_everything_is_done(store: Store, plan: Plan) -> None:
    engine = FakeEngine()
    runner = run(store, plan, engine)
    assert {item.fate for item in runner.items} == {Fate.DONE}
    assert engine.started == [item.cell.id for item in runner.items]
    assert engine.most_at_once == 1


def test_jobs_run_side_by_side(store: Store, plan: Plan) -> None:
    engine = FakeEngine()
    run(store, plan, engine, jobs=3)
    assert engine.most_at_once == 3
    assert len(engine.started) == len(set(engine.started)) == 6


class GpuEngine(FakeEngine):
    """Two GPUs; keeps what ran together on each."""

    def __init__(self) -> None:
        super().__init__({"distill": (3, 0, finish_well), "evaluate": (5, 0, finish_well)})
        self.together: list[list[str]] = []
        self.there: dict[int, list[FakeCell]] = {0: [], 1: []}
        self.told: list[tuple[str, str, int]] = []

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(i, f"cuda:{i}") for i in range(jobs)]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        handle = super().start(cell, launch, slot)
        assert isinstance(handle, FakeCell)
        self.there[slot.index] = [*(h for h in self.there[slot.index] if h.polls > 0), handle]
        self.together.append([h.cell.spec().kind for h in self.there[slot.index]])
        self.told.append((CellDir(cell).spec().kind, launch.device, launch.cells_at_once))
        return handle


def test_students_share_a_gpu_and_a_distill_cell_has_one_to_itself(store: Store) -> None:
    given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0-4", "repeats": 4, "device": "cpu"}
    engine = GpuEngine()
    runner = run(store, plan_run(run_spec({}, given))[0], engine, jobs=2, per_gpu=3)
    assert {item.fate for item in runner.items} == {Fate.DONE}
    assert all(there in (["distill"], ["evaluate"] * len(there)) for there in engine.together)
    assert max(map(len, engine.together)) == 3
    assert {device for _, device, _ in engine.told} == {"cuda:0", "cuda:1"}
    # What a cell records does not depend on who was there when it began.
    assert {(kind, most) for kind, _, most in engine.told} == {("distill", 1), ("evaluate", 3)}


def test_no_student_joins_a_distill_cell_and_the_emptiest_gpu_is_taken(store: Store, plan: Plan) -> None:
    runner = Runner(store, plan, FakeEngine(), per_gpu=3)
    slots = [Slot(0, "cuda:0"), Slot(1, "cuda:1")]
    distill, student = (next(i for i in runner.items if i.spec.kind == kind) for kind in ("distill", "evaluate"))

    def slot_for(item: Item, *there: tuple[Item, int]) -> int | None:
        running = [_Running(at_work, FakeCell(at_work.cell, 9, 0, finish_well), slots[at]) for at_work, at in there]
        found = runner._slot_for(item, slots, running)
        return None if found is None else found.index

    assert slot_for(student, (distill, 0)) == 1
    assert slot_for(student, (distill, 0), (student, 1), (student, 1)) == 1
    assert slot_for(student, (distill, 0), (distill, 1)) is None
    assert slot_for(student, (student, 0), (student, 0), (student, 1)) == 1
    assert slot_for(student, *[(student, at) for at in (0, 1)] * 3) is None
    assert slot_for(distill, (student, 0)) == 1
    assert slot_for(distill, (student, 0), (student, 1)) is None


def test_a_second_run_starts_nothing(store: Store, plan: Plan) -> None:
    run(store, plan, FakeEngine())
    engine = FakeEngine()
    runner = run(store, plan, engine)
    assert engine.started == []
    assert {item.fate for item in runner.items} == {Fate.REUSED}


def test_reuse_never_runs_all_again(store: Store, plan: Plan) -> None:
    run(store, plan, FakeEngine())
    engine = FakeEngine()
    run(store, plan, engine, reuse="never")
    assert len(engine.started) == 6


def fates_looked_at(monkeypatch: pytest.MonkeyPatch, folder: Path, sets: int) -> tuple[int, int]:
    """(looks at a cell's fate while a plan of some sets runs, looks in its quietest tick)."""
    given = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": f"0-{sets - 1}", "repeats": 1,
             "device": "cpu"}  # fmt: skip
    store = Store(folder)
    store.create()
    engine = FakeEngine({"distill": (3, 0, finish_well), "evaluate": (3, 0, finish_well)})
    runner = Runner(store, plan_run(run_spec({}, given))[0], engine)
    looks, ticks = [0], [0]

    def look(item: Item) -> Fate:
        looks[0] += 1
        return item.__dict__["fate"]

    class Counting(Silent):
        def tick(self) -> None:
            ticks.append(looks[0])

    with monkeypatch.context() as patched:
        patched.setattr(Item, "fate", property(look, lambda item, fate: item.__dict__.update(fate=fate)))
        runner.run(engine.open(jobs=1, device="cpu"), Counting())
    assert {item.fate for item in runner.items} == {Fate.DONE}
    return looks[0], min(after - before for before, after in itertools.pairwise(ticks))


def test_a_tick_looks_at_what_changed_and_not_at_every_cell(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, quiet = fates_looked_at(monkeypatch, tmp_path / "few", 5)
    many, still = fates_looked_at(monkeypatch, tmp_path / "many", 40)
    assert quiet == still == 0
    assert many <= 8 * few


AT_WORK = """
import sys
from pathlib import Path
from ddbench.benchmark.core.store import CellDir

cell = CellDir(Path(sys.argv[1]))
with cell.lock():
    (cell.path / "rounds").mkdir()
    print("held", flush=True)
    for number, line in enumerate(sys.stdin):
        (cell.path / "rounds" / f"{number}.txt").write_text(line)
        print(number, flush=True)
"""


def test_reuse_never_leaves_alone_what_another_process_is_at(store: Store, plan: Plan) -> None:
    items = run(store, plan, FakeEngine()).items
    busy, students = items[0], items[1:3]
    before = [item.cell.path.joinpath("result.json").stat() for item in students]
    command = [sys.executable, "-P", "-c", AT_WORK, busy.cell.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        engine = FakeEngine()
        runner = run(store, plan, engine, reuse="never")
        other.stdin.write("still here\n")
        other.stdin.close()
        assert other.stdout.readline() == "0\n"
    assert other.returncode == 0
    assert (busy.cell.path / "rounds" / "0.txt").read_text() == "still here\n"
    again = ["distill done", "evaluate done", "evaluate done"]
    assert fates(runner) == ["distill failed", "evaluate blocked", "evaluate blocked", *again]
    assert runner.items[0].reason == (
        f"cell {busy.cell.id} is running (process {other.pid}); wait for it or stop it, then the same command goes on"
    )
    assert engine.started == [item.cell.id for item in items[3:]]
    assert [item.cell.path.joinpath("result.json").stat() for item in students] == before
    assert {item.fate for item in run(store, plan, FakeEngine(), reuse="never").items} == {Fate.DONE}
    assert not (busy.cell.path / "rounds").exists()


def test_only_cache_runs_nothing(store: Store, plan: Plan) -> None:
    engine = FakeEngine()
    assert {item.fate for item in run(store, plan, engine, reuse="only-cache").items} == {Fate.MISSING}
    assert engine.started == []


def test_a_failed_set_blocks_its_students_and_stays_failed(store: Store, plan: Plan) -> None:
    def fail(cell: CellDir) -> None:
        write_failure(cell, "failed", "no luck")

    ends = {"distill": (2, 1, fail)}
    expected = ["distill failed", "evaluate blocked", "evaluate blocked"] * 2
    assert fates(run(store, plan, FakeEngine(ends))) == expected
    engine = FakeEngine()
    assert fates(run(store, plan, engine)) == expected
    assert engine.started == [], "a deterministic failure is not tried again"
    assert {item.fate for item in run(store, plan, FakeEngine(), retry_failed=True).items} == {Fate.DONE}


def test_a_killed_cell_is_told_and_run_again(store: Store, plan: Plan) -> None:
    engine, watch = FakeEngine({"evaluate": (2, -signal.SIGKILL, lambda cell: None)}), Silent()
    runner = Runner(store, plan, engine)
    runner.settle()
    runner.run(engine.open(jobs=1, device="cpu"), watch)
    students = [item for item in runner.items if item.spec.kind == "evaluate"]
    assert {item.fate for item in students} == {Fate.FAILED}
    assert students[0].reason == "its process was ended by SIGKILL, the last of 3 attempts that ended so"
    assert students[0].cell.state() == "killed"
    seen = [fate for cell, fate in watch.fates if cell == students[0].cell.id]
    lost = [Fate.RUNNING, Fate.LOST, Fate.WAITING]
    assert seen == [*lost, *lost, Fate.RUNNING, Fate.FAILED]
    assert engine.started.count(students[0].cell.id) == 3
    engine = FakeEngine()
    assert {item.fate for item in run(store, plan, engine).items} == {Fate.DONE, Fate.REUSED}
    assert len(engine.started) == 4


@pytest.mark.parametrize(("known", "said"), [(True, ", and the system ended processes here because"), (False, None)])
def test_memory_is_named_only_where_the_kernel_says_so(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch, known: bool, said: str | None
) -> None:
    counts = iter(range(10**6))
    monkeypatch.setattr(runner_module, "memory_kills", lambda: next(counts) if known else 5)
    runner = run(store, plan, FakeEngine({"distill": (2, -signal.SIGKILL, lambda cell: None)}))
    assert ("memory" in (runner.items[0].reason or "")) is known
    assert said is None or said in (runner.items[0].reason or "")


def test_a_cell_that_does_not_listen_is_ended_after_its_time(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "GRACE_SECONDS", 0.01)
    ends = {"evaluate": (10**9, 0, finish_well)}
    runner = run(store, plan, FakeEngine(ends), timeout_seconds=0.02)
    student = next(item for item in runner.items if item.spec.kind == "evaluate")
    assert student.fate is Fate.FAILED
    assert student.reason == "took longer than the --timeout of 0.02 s"
    assert student.cell.state() == "timeout"


def test_a_cell_without_result_or_signal_tells_its_last_words(store: Store, plan: Plan) -> None:
    def mutter(cell: CellDir) -> None:
        (cell.path / "log.txt").write_text("something\nOSError: [Errno 28] No space left on device\n")

    runner = run(store, plan, FakeEngine({"distill": (2, 1, mutter)}))
    assert "No space left on device" in (runner.items[0].reason or "")


def test_a_results_folder_that_is_moved_away_ends_the_run_in_one_message(store: Store, plan: Plan) -> None:
    def move(cell: CellDir) -> None:
        store.out.rename(store.out.with_name("moved"))

    engine = FakeEngine({"distill": (2, 1, move)})
    with pytest.raises(RunError, match="runs was moved or deleted while cells ran. Put it back, or name its new place"):
        run(store, plan, engine, jobs=2)
    assert not store.out.exists(), "nothing is made in its stead"
    assert engine.living[-1].told == ["terminate"]


def test_a_result_that_another_run_has_just_made_is_taken_whatever_it_is(store: Store, plan: Plan) -> None:
    """Between this run's first look and the cell's turn; a failure of that kind is tried again by the next command."""
    runner = Runner(store, plan, FakeEngine())
    runner.settle()
    student = next(item for item in runner.items if item.spec.kind == "evaluate")
    for item in (student.sources[0], student):
        store.add(item.spec, item.planned.launch)
    write_failure(student.cell, "killed", "three times")
    engine = runner.engine
    assert isinstance(engine, FakeEngine)
    runner.run(engine.open(jobs=1, device="cpu"), Silent())
    assert (student.fate, student.reason) == (Fate.FAILED, "three times")
    assert student.cell.id not in engine.started
    engine = FakeEngine()
    run(store, plan, engine)
    assert engine.started == [student.cell.id]


def test_a_set_that_changed_makes_its_students_stale(store: Store, plan: Plan) -> None:
    run(store, plan, FakeEngine())
    distill = next(item for item in Runner(store, plan, FakeEngine()).items if item.spec.kind == "distill")
    result = distill.cell.result()
    assert result is not None
    other = "ff" * 32
    store.set_dir(other).mkdir()
    (store.set_dir(other) / "manifest.json").write_text("{}")
    changed = result.model_copy(update={"image_set_sha256": other})
    write_json(distill.cell.path / "result.json", changed.model_dump(mode="json"))
    engine = FakeEngine()
    run(store, plan, engine)
    students = [s.images.cell for s in (store.cell(c).spec() for c in engine.started) if hasattr(s, "images")]
    assert students == [distill.cell.id] * 2


def test_ctrl_c_ends_running_cells_and_starts_no_more(store: Store, plan: Plan) -> None:
    def press_ctrl_c(cell: CellDir) -> None:
        finish_well(cell)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    engine = FakeEngine({"distill": (2, 0, press_ctrl_c)})
    runner = run(store, plan, engine)
    assert runner.interrupted
    assert fates(runner)[0] == "distill done"
    assert set(fates(runner)[1:]) == {"evaluate interrupted", "distill interrupted"}
    assert len(engine.started) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_that_reaches_who_starts_cells_first_is_a_stop(store: Store, plan: Plan) -> None:
    """`timeout` and schedulers tell every process at once; the run said that memory had run out, and failed."""

    class Told(FakeEngine):
        def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
            if self.started:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RunError("the process that cells are forked from ended")
            return super().start(cell, launch, slot)

    runner = run(store, plan, Told())
    assert runner.interrupted
    assert Counter(fates(runner))["distill done"] == 1
    assert set(fates(runner)) == {"distill done", "evaluate interrupted", "distill interrupted"}


def test_an_engine_that_cannot_start_a_cell_ends_the_run(store: Store, plan: Plan) -> None:
    class Broken(FakeEngine):
        def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
            raise RunError("no room")

    with pytest.raises(RunError, match="no room"):
        run(store, plan, Broken())


def test_a_cell_that_still_runs_elsewhere_is_waited_for(store: Store, plan: Plan) -> None:
    """An orphan of a killed run holds the cell's lock; its result is used when it is done."""
    first = Runner(store, plan, FakeEngine()).items[0]
    cell = store.add(first.spec, first.planned.launch)
    lock = cell.lock()
    lock.__enter__()
    engine = FakeEngine()
    runner = Runner(store, plan, engine)
    runner.settle()

    class Release(Silent):
        ticks = 0

        def tick(self) -> None:
            self.ticks += 1
            if self.ticks == 3:
                finish_well(cell)
                lock.__exit__(None, None, None)

    watch = Release()
    runner.run(engine.open(jobs=2, device="cpu"), watch)
    assert (cell.id, Fate.ELSEWHERE) in watch.fates
    assert cell.id not in engine.started
    assert {item.fate for item in runner.items} == {Fate.DONE, Fate.REUSED}
    assert runner.items[0].fate is Fate.REUSED

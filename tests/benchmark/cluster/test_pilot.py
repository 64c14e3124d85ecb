"""When a pilot goes back to the queue, and when it stops: without a scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddbench.benchmark.cluster.jobs import Array, Request, Start, Submission, tasks
from ddbench.benchmark.cluster.pilot import MOST_RESTARTS, Pilot
from ddbench.benchmark.cluster.script import AGAIN
from ddbench.benchmark.cluster.slurm import indices_of
from ddbench.benchmark.core.result import utc_now

REQUEST = Request(key="k", given={}, config=None, study=None, gpus={"distill": 2, "evaluate": 1}, idle_seconds=5)


@pytest.fixture
def submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submission:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    made = Submission(tmp_path / "runs" / "jobs" / "1")
    made.folder.parent.mkdir(parents=True)
    made.create(REQUEST)
    return made


def start(restart: int, ended: str | None, *, moved: bool = False, task: str = "7_0", seconds: float = 0.0) -> Start:
    return Start(
        task=task, restart=restart, stage="distill", host="n1", began=utc_now(), gpus=2, ended=ended, moved=moved,
        seconds=seconds, busy_seconds=seconds / 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("earlier", "moved", "again"),
    [
        ([], False, True),
        ([start(0, "time"), start(1, "time")], False, False),
        ([start(0, "time"), start(1, "time")], True, True),
        ([start(0, "time"), start(1, "time", moved=True)], False, True),
        ([start(0, "time", moved=True), start(1, "time"), start(2, "time")], False, False),
        ([start(0, None), start(1, None)], False, False),  # lost with their nodes, each time
        ([start(0, "time"), start(1, "time", task="7_1")], False, True),
    ],
)
def test_a_chain_ends_after_three_starts_in_a_row_that_got_nothing_further(
    submission: Submission, monkeypatch: pytest.MonkeyPatch, earlier: list[Start], moved: bool, again: bool
) -> None:
    for one in earlier:
        submission.note(one)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(len(earlier)))
    pilot = Pilot(submission, "distill")
    pilot.warned, pilot.start.moved = True, moved
    assert pilot._stopped() == (("time", AGAIN) if again else ("still", 130))


def test_a_chain_ends_after_so_many_restarts(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(MOST_RESTARTS))
    pilot = Pilot(submission, "distill")
    pilot.warned = pilot.start.moved = True
    assert pilot._stopped() == ("still", 130)


def test_who_is_stopped_by_people_stays_stopped(submission: Submission) -> None:
    assert Pilot(submission, "distill")._stopped() == ("interrupted", 130)


def test_hours_asked_for_had_used_and_idle(submission: Submission) -> None:
    submission.add(Array(array="7", stage="distill", tasks=3, gpus=2, seconds=7200, at=utc_now()))
    submission.note(start(0, "time", seconds=1800))
    submission.note(start(1, "done", seconds=900))
    submission.hold("7_2")
    found = {task.task: task for task in tasks(submission.folder.parents[1])}
    assert {name: task.state for name, task in found.items()} == {"7_0": "ended", "7_1": "queued", "7_2": "held"}
    assert (found["7_0"].asked_hours, found["7_0"].held_hours, found["7_0"].used_hours) == (4.0, 1.5, 0.75)
    assert found["7_0"].starts == 2


def test_a_pilot_that_ended_without_a_word_is_told_as_lost(submission: Submission) -> None:
    submission.add(Array(array="7", stage="distill", tasks=1, gpus=2, seconds=7200, at=utc_now()))
    submission.note(start(0, None))
    assert [task.state for task in tasks(submission.folder.parents[1])] == ["lost"]


def test_held_pilots_that_nobody_needs_are_cancelled_and_told_so(submission: Submission) -> None:
    submission.add(Array(array="8", stage="evaluate", tasks=2, gpus=1, seconds=7200, at=utc_now()))
    submission.hold("8_0")
    submission.hold("8_1")
    Pilot(submission, "evaluate")._cancel_held(submission.folder.parents[1])
    assert (submission.folder / "orders" / "7_0").read_text() == "cancel 8_0,8_1\n"
    assert {(task.state, task.ended) for task in tasks(submission.folder.parents[1])} == {("ended", "cancelled")}


def test_a_pilot_that_could_not_begin_is_not_told_as_queued(submission: Submission) -> None:
    submission.add(Array(array="7", stage="distill", tasks=2, gpus=2, seconds=7200, at=utc_now()))
    (submission.folder / "ended" / "7_1").write_text("127\n")
    first, second = tasks(submission.folder.parents[1])
    assert (first.state, second.state, second.ended) == ("queued", "ended", "exit 127")
    assert second.log == "jobs/1/logs/7_1.log"


def test_damaged_files_of_jobs_are_passed_over(submission: Submission) -> None:
    submission.add(Array(array="7", stage="distill", tasks=1, gpus=2, seconds=7200, at="yesterday"))
    (submission.folder / "starts" / "7_0.0.json").write_bytes(b"\xff{")
    (submission.folder / "arrays" / "8.json").write_text("[]")
    (submission.folder / "held" / "7_0").write_bytes(b"\xff")
    assert [(task.task, task.state) for task in tasks(submission.folder.parents[1])] == [("7_0", "held")]


def test_arrays_come_in_the_order_of_their_numbers(submission: Submission) -> None:
    for number in ("9", "10", "100"):
        submission.add(Array(array=number, stage="distill", tasks=1, gpus=1, seconds=1, at=utc_now()))
    assert [array.array for array in submission.arrays()] == ["9", "10", "100"]


def test_one_of_two_claims_a_held_task(submission: Submission) -> None:
    submission.hold("7_1")
    assert [submission.claim("7_1"), submission.claim("7_1")] == [True, False]


def test_orders_wait_for_the_shell(submission: Submission) -> None:
    submission.order("7_0", "release", ["8_0", "8_1"])
    submission.order("7_0", "cancel", ["8_2"])
    submission.order("7_0", "cancel", [])
    assert (submission.folder / "orders" / "7_0").read_text() == "release 8_0,8_1\ncancel 8_2\n"


@pytest.mark.parametrize(
    ("text", "indices"), [("[0-2,5%4]", (0, 1, 2, 5)), ("3", (3,)), ("[0-8:4]", (0, 4, 8)), ("", ())]
)
def test_indices_as_squeue_writes_them(text: str, indices: tuple[int, ...]) -> None:
    assert indices_of(text) == indices

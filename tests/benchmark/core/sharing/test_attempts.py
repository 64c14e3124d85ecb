"""What is counted as a lost attempt, from files that killed processes wrote."""

from pathlib import Path

import pytest

from ddbench.benchmark.core.sharing.attempts import ATTEMPTS, Attempts, Cause
from ddbench.benchmark.core.sharing.holder import job_id, this_process

B, LOST, DONE, STOPPED = "begin", Cause.LOST, Cause.DONE, Cause.INTERRUPTED


@pytest.mark.parametrize(
    ("events", "starts", "lost"),
    [
        ([], 0, 0),
        ([B], 1, 1),
        ([B, LOST], 1, 1),
        ([B, B, LOST, B], 3, 3),
        ([B, DONE], 1, 0),
        ([B, LOST, B, STOPPED, B], 3, 2),
        ([B, LOST, DONE], 1, 0),
        ([LOST, LOST, LOST], 3, 3),  # none came as far as to say that it began
        ([B, LOST, LOST], 2, 2),
        ([B, LOST, B, LOST, DONE, B], 3, 1),
    ],
)
def test_lost_attempts_since_the_last_result(tmp_path: Path, events: list[str], starts: int, lost: int) -> None:
    attempts = Attempts(tmp_path)
    for event in events:
        if event == B:
            attempts.begin(this_process())
        else:
            attempts.end(Cause(event))
    assert len(attempts.all()) == starts
    assert attempts.lost() == lost


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_line_that_was_cut_off_takes_only_itself_away(tmp_path: Path, cut: int) -> None:
    attempts, file = Attempts(tmp_path), tmp_path / ATTEMPTS
    attempts.begin(this_process())
    whole = file.stat().st_size
    attempts.begin(this_process())
    with file.open("r+b") as opened:
        opened.truncate(whole + cut)
    attempts.begin(this_process())
    attempts.end(Cause.DONE)
    assert [attempt.cause for attempt in attempts.all()] == [None, Cause.DONE]
    file.write_bytes(b'\xff\xfe\n[1]\n{"event": "ended", "cause": 3}\n' + file.read_bytes())
    assert len(attempts.all()) == 2


def test_the_scheduler_names_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "PBS_JOBID", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    assert job_id() is None
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert job_id() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert job_id() == "10_3", "the last task's own number is the array's"

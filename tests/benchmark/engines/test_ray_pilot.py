"""What runs on a Ray node, without Ray: `make test-ray` has the rest (tests/engines/test_ray.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import ENGINES
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.engines import on_ray, ray_pilot
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.engines.ray_pilot import Pilot, versions


class Sleeper(Handle):
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def exit_status(self) -> int | None:
        return self.process.poll()

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()


class Sleeps(Engine):
    """Cells whose folder's name says how long they last; the processes that it started, in `started`."""

    started: ClassVar[list[tuple[float, Launch]]] = []

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(0, f"{device}:0" if device == "cuda" else device)]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        self.started.append((float(cell.name), launch))
        return Sleeper(subprocess.Popen(["sleep", cell.name]))

    def close(self) -> None: ...


LAUNCH = Launch(label="x").model_dump_json()


@pytest.fixture
def gone() -> threading.Event:
    return threading.Event()


@pytest.fixture
def pilot(gone: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Pilot:
    monkeypatch.setattr(Sleeps, "started", [])
    monkeypatch.setitem(sys.modules, "of_a_test", SimpleNamespace(Sleeps=Sleeps))
    monkeypatch.setenv("DDBENCH_OF_A_TEST", "")  # so that it is undone
    monkeypatch.setattr(ray_pilot, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(ray_pilot, "LOST_SECONDS", 0.3)
    monkeypatch.setattr(ray_pilot, "GRACE_SECONDS", 0.3)
    return Pilot("first", "of_a_test:Sleeps", "cuda", 4, {"DDBENCH_OF_A_TEST": "x"}, go=gone.set)


def test_a_cell_that_is_asked_for_twice_is_started_once_on_the_slot_s_device(pilot: Pilot) -> None:
    answers: list[int] = []
    asking = [threading.Thread(target=lambda: answers.append(pilot.run("1", "0.5", LAUNCH))) for _ in range(3)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert answers == [0, 0, 0]
    assert pilot.run("1", "0.5", LAUNCH) == 0, "also after its end"
    assert [(seconds, launch.device) for seconds, launch in Sleeps.started] == [(0.5, "cuda:0")]
    assert os.environ["DDBENCH_OF_A_TEST"] == "x"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_cell_is_ended_by_its_number(pilot: Pilot, how: signal.Signals) -> None:
    threading.Timer(0.3, pilot.end, ("1", int(how))).start()
    began = time.monotonic()
    assert pilot.run("1", "30", LAUNCH) == -how
    assert time.monotonic() - began < 10
    pilot.end("1", int(how))  # which has ended
    pilot.end("2", int(how))  # which never was


def test_another_run_may_have_a_pilot_once_its_own_is_silent(pilot: Pilot) -> None:
    assert pilot.hear("first") == 0
    assert pilot.hear("second") is None
    working = threading.Thread(target=pilot.run, args=("1", "3", LAUNCH))
    working.start()
    time.sleep(0.6)
    assert pilot.hear("second") == 1, "with the cell that runs"
    assert pilot.hear("first") is None
    working.join()
    assert pilot.hear("second") == 0


def test_a_pilot_of_nobody_goes_once_its_cells_have_ended(pilot: Pilot, gone: threading.Event) -> None:
    assert pilot.run("1", "2.5", LAUNCH) == 0
    assert not gone.is_set()
    assert gone.wait(10)


def test_a_pilot_that_is_told_to_stops_its_cells_and_goes(pilot: Pilot, gone: threading.Event) -> None:
    ends: list[int] = []
    working = threading.Thread(target=lambda: ends.append(pilot.run("1", "30", LAUNCH)))
    working.start()
    time.sleep(0.3)
    pilot.leave(stop=True)
    working.join(10)
    assert ends == [-signal.SIGTERM]
    assert gone.wait(10)


def test_a_node_says_what_it_sees_and_has(pilot: Pilot, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    assert not pilot.look(str(probe), "token").sees
    probe.write_text("other")
    assert not pilot.look(str(probe), "token").sees
    probe.write_text("token")
    seen = pilot.look(str(probe), "token")
    assert (seen.sees, seen.cores, seen.node) == (True, 4, os.uname().nodename)
    assert seen.versions == versions()
    assert seen.versions["Python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_extra_is_named_where_it_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')\n")
    words = ["run", "-m", "random", "-d", "digits", "--ipc", "1", "--engine", "ray", "--out", str(tmp_path / "runs")]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ddbench", *words], env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --engine ray needs Ray: pip install 'ddbench[ray]', here and on every node"


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    for where, why in (("127.0.0.1:1", "refused"), ("nonsense", "no Ray cluster"), ("ray://h:1", "on a node of the")):
        with pytest.raises(UsageError, match=why):
            on_ray._answers(where)
    on_ray._answers("auto")


def test_an_address_is_for_clusters() -> None:
    with pytest.raises(UsageError, match="--engine ray, or leave it out"):
        ENGINES.load("local")().join("127.0.0.1:6379")

"""Leases: one holder at a time, on file systems that lie and among machines that vanish."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nodes
import pytest

from ddbench.benchmark.core.sharing import lease as module
from ddbench.benchmark.core.sharing.lease import Lease, LeaseLost, holder_of, require_mine

QUICK = {"DDBENCH_LEASE_SECONDS": "1"}
HOLD = """
import sys; from pathlib import Path
from ddbench.benchmark.core.sharing.lease import Lease
lease = Lease(Path(sys.argv[1]), on_lost=lambda: print("lost", flush=True))
print(lease.take(), flush=True)
for line in sys.stdin: print(lease.mine(), flush=True)
lease.release()
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEAD_SECONDS", 1.0)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_numbers_grow_and_one_file_stays(tmp_path: Path) -> None:
    for number in range(1, 4):
        lease = Lease(tmp_path / "lease")
        assert lease.take()
        assert not Lease(tmp_path / "lease").take()
        assert lease.mine()
        assert names(tmp_path / "lease") == [f"{number:06d}"]
        lease.release()
        assert not lease.mine()
        assert names(tmp_path / "lease") == [f"{number:06d}.free"]


def test_a_process_number_that_was_given_again_holds_nothing(tmp_path: Path) -> None:
    """The holder's file is that of this living process, but for the time when it started."""
    lease = Lease(tmp_path / "lease")
    assert lease.take()
    assert lease.holder is not None
    earlier = lease.holder.model_copy(update={"started": 1})
    assert not lease.holder.is_gone
    assert earlier.is_gone
    lease.release()


def test_another_machine_is_taken_for_dead_when_its_count_stands_still(tmp_path: Path, quick: None) -> None:
    folder = tmp_path / "lease"
    with nodes.python("n1", HOLD, folder, environment=QUICK) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        holder = holder_of(folder)
        assert holder is not None
        assert holder.name == f"process {holder.pid} on n1"
        assert holder.pid < 10, "in its own namespace"
        begun = time.monotonic()
        while time.monotonic() - begun < 2:  # twice as long as a dead one's count may stand still
            assert holder_of(folder) is not None
            assert not Lease(folder).take()
            time.sleep(0.1)
        other.kill()
        begun = time.monotonic()
        while not (mine := Lease(folder)).take():
            assert time.monotonic() - begun < 20
            time.sleep(0.05)
        assert time.monotonic() - begun > 0.8
        assert mine.mine()
        mine.release()


def test_who_was_taken_for_dead_learns_of_it_and_must_not_commit(tmp_path: Path, quick: None) -> None:
    folder, lost = tmp_path / "lease", threading.Event()
    lease = Lease(folder, on_lost=lost.set)
    assert lease.take()
    require_mine(folder)
    (folder / "000002").write_bytes((folder / "000001").read_bytes())  # another one's
    assert not lease.mine()
    with pytest.raises(LeaseLost, match="another one goes on with its work"):
        require_mine(folder)
    assert lost.wait(20)
    lease.release()
    assert "000002" in names(folder), "what is another's is not given back"


def test_a_muted_machine_that_wakes_up_finds_that_it_is_not_the_holder(tmp_path: Path, quick: None) -> None:
    folder = tmp_path / "lease"
    with nodes.python("n1", HOLD, folder, environment=QUICK) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        (inner,) = children(other.pid)
        os.kill(inner, 19)  # SIGSTOP: as a machine that the network has cut off
        while not (mine := Lease(folder)).take():
            time.sleep(0.05)
        os.kill(inner, 18)
        assert other.stdout.readline() == "lost\n"
        other.stdin.write("still mine?\n")
        other.stdin.close()
        assert other.stdout.readline() == "False\n"
        assert mine.mine()
        mine.release()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


RACE = """
import sys, time; from pathlib import Path
from ddbench.benchmark.core.sharing.locks import lock
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True); sys.stdin.readline()
for _ in range(15):
    with lock(folder):
        before = len(log.read_bytes()) if log.exists() else 0
        time.sleep(0.002)
        log.write_bytes(b"x" * (before + 1))
"""


def test_machines_with_equal_process_numbers_exclude_one_another(tmp_path: Path) -> None:
    log = tmp_path / "log"
    machines = [nodes.python(f"n{number}", RACE, tmp_path / "lease", log) for number in range(3)]
    for machine in machines:
        assert machine.stdout is not None
        machine.stdout.readline()
    for machine in machines:
        machine.communicate("go\n", timeout=60)
    assert [machine.returncode for machine in machines] == [0, 0, 0]
    assert log.stat().st_size == 45


def test_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", refuse)
    one, other = Lease(tmp_path / "lease"), Lease(tmp_path / "lease")
    assert one.take()
    assert not other.take()
    one.release()
    assert other.take()
    other.release()


def test_a_lost_answer_of_a_file_server_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(module.os, "link", twice)
    lease = Lease(tmp_path / "lease")
    assert lease.take()
    assert lease.mine()
    lease.release()


def test_an_old_list_of_names_gives_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has not yet heard of number 7 takes number 6, which has been removed by then."""
    folder, newest = tmp_path / "lease", module._newest
    folder.mkdir()
    (folder / "000007.free").touch()
    seen = iter([(5, True)])
    monkeypatch.setattr(module, "_newest", lambda path: next(seen, None) or newest(path))
    assert not Lease(folder).take()
    assert names(folder) == ["000007.free"]


@pytest.mark.parametrize("text", [b"", b"{", b'{"token": 1}\n000000000000\n', b"\xff\xfe"])
def test_a_holder_that_cannot_be_read_is_dead_when_it_stands_still(tmp_path: Path, quick: None, text: bytes) -> None:
    (tmp_path / "000003").write_bytes(text)
    assert not Lease(tmp_path).take()
    time.sleep(1.1)
    lease = Lease(tmp_path)
    assert lease.take()
    assert names(tmp_path) == ["000004"]
    lease.release()


def test_the_folder_is_gone(tmp_path: Path, quick: None) -> None:
    folder, lost = tmp_path / "cell" / "lease", threading.Event()
    folder.parent.mkdir()
    lease = Lease(folder, on_lost=lost.set)
    assert lease.take()
    folder.parent.rename(tmp_path / "elsewhere")
    assert lost.wait(20)
    assert not lease.mine()
    lease.release()
    with pytest.raises(FileNotFoundError):
        Lease(folder).take()
    assert not folder.parent.exists(), "nothing is made in its stead"


FLOCK_SHIM = """
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int operation) {
    errno = atoi(getenv("FLOCK_ERRNO"));
    return errno ? -1 : 0;
}
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, 0], ids=["missing", "failing", "no-op"])
def test_file_locks_that_are_missing_failing_or_without_effect(tmp_path: Path, number: int) -> None:
    """A preloaded `flock`: what leases stand on is something else."""
    (tmp_path / "shim.c").write_text(FLOCK_SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    shim = {"LD_PRELOAD": str(tmp_path / "shim.so"), "FLOCK_ERRNO": str(number)}
    check = (
        "import fcntl, sys\ntry: fcntl.flock(0, fcntl.LOCK_EX); print('no error')\nexcept OSError as e: print(e.errno)"
    )
    told = subprocess.run([sys.executable, "-c", check], env=os.environ | shim, capture_output=True, text=True)
    assert told.stdout.strip() == (str(number) if number else "no error"), "the shim is there"
    log = tmp_path / "log"
    command = [sys.executable, "-P", "-c", RACE, tmp_path / "lease", log]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen(command, env=os.environ | shim, text=True, **pipes) for _ in range(2)]
    for racer in racers:
        _, said = racer.communicate("go\n", timeout=60)
        assert (racer.returncode, said) == (0, "")
    assert log.stat().st_size == 30


def test_a_taker_whose_file_the_winner_sweeps_has_lost_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between writing its file and linking it, another one takes the lease and sweeps."""
    folder, winner, link, won = tmp_path / "lease", Lease(tmp_path / "lease"), os.link, list[bool]()

    def late(source: Path, target: Path) -> None:
        if not won:
            won.append(True)
            won.append(winner.take())
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert not Lease(folder).take()
    assert won == [True, True]
    assert winner.mine()
    winner.release()
    assert Lease(folder).take()


def test_who_judged_it_free_before_another_took_it_has_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look and the next, another process may do anything: its number is not to be counted on from."""
    folder, newest = tmp_path / "lease", module._newest
    slow, quick = Lease(folder), Lease(folder)
    won: list[bool] = []

    def look(path: Path) -> tuple[int, bool]:
        seen = newest(path)
        if not won:
            won.append(False)  # the other one's own looks
            won[0] = quick.take()
        return seen

    monkeypatch.setattr(module, "_newest", look)
    assert not slow.take()
    assert won == [True]
    assert quick.mine()
    quick.release()

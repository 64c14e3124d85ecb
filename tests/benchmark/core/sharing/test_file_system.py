"""What a file system is told to be unfit for: each trial on one that lies in that one way."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.sharing import file_system, lease
from ddbench.benchmark.core.sharing.file_system import Finding, Verdict, mounted_as, require_fit, try_out
from ddbench.benchmark.core.store import Store

BENCH = Path(sys.executable).with_name("bench")


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def unfit(findings: list[Finding]) -> dict[str, Verdict]:
    return {finding.what: finding.verdict for finding in findings if finding.verdict is not Verdict.GOOD}


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def roomy(monkeypatch: pytest.MonkeyPatch, **changed: int) -> None:
    """However full the disk of the test's machine is."""
    given = {"f_bavail": 2**30, "f_frsize": 4096, "f_files": 10**7, "f_favail": 10**6} | changed
    monkeypatch.setattr(file_system.os, "statvfs", lambda _: SimpleNamespace(**given))


def test_a_local_disk_is_fit_and_nothing_is_left_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roomy(monkeypatch)
    assert unfit(try_out(tmp_path)) == {}
    require_fit(tmp_path)
    assert list(tmp_path.iterdir()) == []


def over_anything(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def copied(self: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(self, target)


@pytest.mark.parametrize(
    ("where", "name", "lie", "what", "verdict"),
    [
        (lease.os, "link", over_anything, "one of two creates a file", Verdict.BAD),
        (Path, "replace", lambda *_: None, "a file is replaced whole", Verdict.BAD),
        (Path, "rename", copied, "a folder is not replaced", Verdict.BAD),
        (Path, "rename", refuse, "a folder is not replaced", Verdict.NOTE),
        (os, "link", refuse, "hard links", Verdict.NOTE),
        (Path, "symlink_to", refuse, "symbolic links", Verdict.NOTE),
    ],
)
def test_a_file_system_that_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    where: object, name: str, lie: Callable[..., None], what: str, verdict: Verdict,
) -> None:  # fmt: skip
    roomy(monkeypatch)
    monkeypatch.setattr(where, name, lie)
    found = by_name(try_out(tmp_path))[what]
    assert (found.verdict, found.meaning != "") == (verdict, True)


def test_a_link_that_takes_the_place_of_a_file_loses_a_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = "int link(const char *from, const char *to) { return 0; }\n"
    (tmp_path / "shim.c").write_text(shim)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "shim.so"))
    found = by_name(try_out(tmp_path))["of two that race, one wins"]
    assert found.verdict is Verdict.BAD
    assert found.found.startswith("400 winners in 200 races")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"f_favail": 19_999}, {"files": Verdict.NOTE}),
        ({"f_favail": 999}, {"files": Verdict.BAD}),
        ({"f_files": 0, "f_favail": 0}, {}),
        ({"f_bavail": 1023 * 256}, {"room": Verdict.NOTE}),
        ({"f_bavail": 63 * 256}, {"room": Verdict.BAD}),
    ],
)
def test_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, int], expected: dict[str, Verdict]
) -> None:
    roomy(monkeypatch, **changed)
    assert unfit(try_out(tmp_path)) == expected


def test_a_run_begins_nothing_where_results_could_be_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.os, "link", over_anything)
    said = r"runs: a file was created that was there already: two machines could make one cell at once.*another folder"
    with pytest.raises(RunError, match=said):
        Store(tmp_path / "runs").create()


def test_the_type_of_a_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "shared disk" / "runs"
    place.mkdir(parents=True)
    mount = str(place.parent).replace(" ", r"\040")
    table = (
        "22 1 0:20 / / rw shared:1 - ext4 /dev/sda rw\n"
        f"30 22 0:41 / {mount} rw,relatime shared:2 master:1 - nfs4 server:/x rw\n"
    )
    read = Path.read_text
    mounts = Path("/proc/self/mountinfo")
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: table if self == mounts else read(self, *a, **k))
    assert mounted_as(place) == "nfs4"
    assert mounted_as(tmp_path) == "ext4"


def test_the_command(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    environment = {**os.environ, "DDBENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "120"}
    told = subprocess.run([BENCH, "doctor", "--runs", store.out], env=environment, capture_output=True, text=True)
    assert told.returncode in (0, 1), "bad only where this machine's disk is nearly full"
    assert "200 times out of 200" in told.stdout
    assert not store.out.exists()
    assert "at work" not in told.stdout
    store.create()
    with store.at_work("one"):
        told = subprocess.run([BENCH, "doctor", "--runs", store.out], env=environment, capture_output=True, text=True)
    assert f"process {os.getpid()}, since 20" in told.stdout
    (tmp_path / "file").write_text("")
    told = subprocess.run([BENCH, "doctor", "--runs", "/proc/x"], env=environment, capture_output=True, text=True)
    assert told.returncode == 1
    assert "nothing can be kept there" in " ".join(told.stdout.split())
    assert told.stderr == ""

"""`external`: a foreign program in another virtual environment, harvested by class id, timed, and ended with its
children."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.runs import CLASSES, SmallRuns
from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.methods.external.method import EXAMPLE, External
from ddbench.methods.external.params import source_sha256
from ddbench.methods.external.program import Program

FOREIGN = '''
"""Writes grey images of one value per class, as PNG by hand: this environment has no imaging library."""
import os, struct, sys, zlib
out, ipc, names, marker = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4]
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
for value, name in enumerate(names):
    os.makedirs(f"{out}/{name}")
    for i in range(ipc):
        rows = b"".join(b"\\0" + bytes([10 * value + 8 * i + row] * 8) for row in range(8))
        head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
        with open(f"{out}/{name}/{i}.png", "wb") as file:
            file.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head))
            file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
try:
    import numpy
    foreign = False
except ImportError:
    foreign = True
with open(marker, "w") as file:
    file.write(f"{sys.prefix}|{foreign}|{os.environ.get('STYLE')}|{os.getcwd()}")
'''


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another virtual environment's interpreter; there is nothing in it but Python."""
    folder = tmp_path_factory.mktemp("author") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def runs(planted: Planted, root: Path, **params: Any) -> SmallRuns:
    return SmallRuns(External, External.Params(**params), planted, root)


def recorded(root: Path) -> Mapping[str, Any]:
    (scratch,) = root.glob("shared/cells/*/scratch")
    return json.loads((scratch / "finished.json").read_text())


def test_a_program_in_another_environment(planted: Planted, foreign_python: Path, tmp_path: Path) -> None:
    program, marker, work = tmp_path / "program.py", tmp_path / "where", tmp_path / "work dir"
    program.write_text(FOREIGN)
    work.mkdir()
    made = runs(
        planted, tmp_path / "runs",
        command=f"{foreign_python} {program} {{out}}/set {{ipc}} {{classes}} {marker}",
        env="STYLE='two words'", working_directory=str(work), images="{out}/set", program=str(program),
    ).run()  # fmt: skip
    assert sorted(made) == [(c, i) for c in CLASSES for i in range(2)]
    for position, c in enumerate(CLASSES):
        for i in range(2):
            assert made[c, i].pixels[:, 0, 0].tolist() == [10 * position + 8 * i + row for row in range(8)]
    prefix, without_numpy, style, folder = marker.read_text().split("|")
    assert Path(prefix) == foreign_python.parents[1]
    assert Path(prefix) != Path(sys.prefix)
    assert (without_numpy, style, folder) == ("True", "two words", str(work))
    facts = recorded(tmp_path / "runs")
    assert facts["exit_status"] == 0
    assert facts["seconds"] > 0
    assert facts["program_sha256"] == source_sha256(program)


def test_a_finished_program_is_not_run_again_and_a_killed_one_starts_anew(planted: Planted, tmp_path: Path) -> None:
    log = tmp_path / "starts"
    command = f"/bin/sh -c 'echo x >> {log}; \"$@\"' sh {External.check_params['command']}"
    small = runs(planted, tmp_path / "runs", command=command)
    whole = small.run(batch_size=2, cell="whole")
    small.run(batch_size=2, cell="killed", stop_after=1)
    assert len(small.run(batch_size=2, cell="killed")) == len(whole)
    assert log.read_text() == "x\n" * 2, "one run for each cell"
    small.run(batch_size=2, cell="torn", stop_after=1)
    scratch = tmp_path / "runs" / "shared" / "cells" / "torn" / "scratch"
    (scratch / "finished.json").unlink()  # as if the cell had been killed while the program ran
    (scratch / "out" / "0" / "junk.png").write_text("half an image")
    torn = small.run(batch_size=2, cell="torn")
    assert {key: image.pixels.tobytes() for key, image in torn.items()} == {
        key: image.pixels.tobytes() for key, image in whole.items()
    }
    assert log.read_text() == "x\n" * 4


@pytest.mark.parametrize(
    ("order", "folders"),
    [
        ("7\n0\n3\n", {"00000": "7", "00001": "0", "00002": "3"}),
        ("seven 7\nzero 0\nthree 3\n", {"seven": "7", "zero": "0", "three": "3"}),
    ],
)
def test_labels_go_by_the_programs_own_class_list(
    order: str, folders: dict[str, str], planted: Planted, tmp_path: Path
) -> None:
    (tmp_path / "order").write_text(order)
    renames = "; ".join(f'mv "$0/{class_id}" "$0/{folder}"' for folder, class_id in folders.items())
    command = f"/bin/sh -c '\"$@\"; {renames}' {{out}} {External.check_params['command']}"
    made = runs(planted, tmp_path / "runs", command=command, class_order=str(tmp_path / "order")).run()
    train = planted.split.train
    for (c, _), image in made.items():
        assert image.pixels.tobytes() in {pixels.tobytes() for pixels in train.read(train.of_class(c))}
    (tmp_path / "order").write_text("7\n0 zero\n")
    with pytest.raises(RunError, match="expected a class id, or `folder class-id`"):
        runs(planted, tmp_path / "again", command=command, class_order=str(tmp_path / "order")).run()


COPY = External.check_params["command"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"command": "/bin/sh -c 'echo goodbye; exit 3'"}, r"the program failed: exit status 3(.|\n)*goodbye"),
        ({"command": "/bin/sh -c 'kill -9 $$'"}, "it was ended by SIGKILL"),
        ({"command": "/no/such/program {out}"}, "cannot start /no/such/program: No such file"),
        ({"command": "/bin/true"}, r"class 0: 0 images in .*expected 2; .* holds nothing"),
        ({"command": COPY.replace("{ipc}", "3")}, r"class 0: 3 images in .*surplus=first keeps the first"),
        ({"command": COPY, "images": "{out}/set"}, "the program left no folder"),
        ({"command": COPY, "working_directory": "/no/such"}, "working_directory /no/such: there is no such folder"),
        ({"command": "/bin/sleep 60", "timeout_seconds": 0.3}, "the program took longer than timeout_seconds=0.3"),
    ],
)
def test_what_goes_wrong_is_told(params: dict[str, Any], message: str, planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message):
        runs(planted, tmp_path / "runs", **params).run()


def test_black_pictures_are_refused(planted: Planted, tmp_path: Path) -> None:
    """Floats in 0…1 that the program cast to 8 bits: students of such a set are at chance, and no word said why."""
    program = tmp_path / "cast.py"
    program.write_text(FOREIGN.replace("10 * value + 8 * i + row", "(value + row) % 2"))
    command = f"{sys.executable} {program} {{out}} {{ipc}} {{classes}} {tmp_path / 'where'}"
    with pytest.raises(RunError, match="no pixel of its images is above 1, which is black of 0…255"):
        runs(planted, tmp_path / "runs", command=command).run()


def test_surplus_images_are_cut_as_asked(planted: Planted, tmp_path: Path) -> None:
    exact = runs(planted, tmp_path / "exact", command=COPY.replace("{ipc}", "12")).run(ipc=12)
    cut = runs(planted, tmp_path / "cut", command=COPY.replace("{ipc}", "12"), surplus="first").run(ipc=2)
    assert all(cut[key].pixels.tobytes() == exact[key].pixels.tobytes() for key in cut)
    assert len(cut) == 6


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_its_children_end_with_it(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One child does as asked, one ignores SIGTERM; both belong to a program that runs out of time."""
    monkeypatch.setattr("ddbench.methods.external.program.GRACE_SECONDS", 0.3)
    pids = tmp_path / "pids"
    stubborn = "trap : TERM; while :; do sleep 0.1; done"
    command = f"/bin/sh -c 'sleep 60 & echo $! >> {pids}; ({stubborn}) & echo $! >> {pids}; wait'"
    with pytest.raises(RunError, match="took longer"):
        runs(planted, tmp_path / "runs", command=command, timeout_seconds=1).run()
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2
    assert not any(map(alive, children))


def test_a_terminated_cell_ends_the_program(tmp_path: Path) -> None:
    """SIGTERM, as the engine sends it, while the program runs: the cell ends resumably and leaves no process."""
    code = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
from pathlib import Path
from ddbench.methods.external.program import Program
Program(["/bin/sh", "-c", "sleep 60 & echo $! > pid; wait"], {"PATH": "/bin:/usr/bin"}, Path("."), 60.0).run()
"""
    cell = subprocess.Popen([sys.executable, "-P", "-c", code], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int((tmp_path / "pid").read_text())
    assert alive(child)
    cell.terminate()
    assert cell.wait(timeout=60) == 143
    assert not alive(child)


def test_a_signal_while_it_starts_is_not_lost(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Program, "_read", lambda *_: None)
    start = Program._start
    processes = []

    def interrupted(self: Program) -> subprocess.Popen[str]:
        processes.append(start(self))
        signal.raise_signal(signal.SIGTERM)
        assert not seen, "not while the program starts"
        return processes[-1]

    monkeypatch.setattr(Program, "_start", interrupted)

    def handler(number: int, _frame: object) -> None:
        seen.append(number)
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit):
            Program(["/bin/sleep", "60"], {}, Path("/"), 60.0).run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert processes[0].poll() is not None


def test_memory_is_that_of_the_program_and_its_children(planted: Planted, tmp_path: Path) -> None:
    """Parent and child hold 48 MiB each; this process, far larger, does not count."""
    hold = "import time; held = bytearray(b'x') * (48 << 20); time.sleep(1.2)"
    start = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-S', '-c', {hold!r}])"
    both = f"{start}; {hold}; child.wait()"
    (tmp_path / "hold.py").write_text(both)
    command = f"/bin/sh -c '{sys.executable} -S {tmp_path / 'hold.py'}; \"$@\"' sh {COPY}"
    runs(planted, tmp_path / "runs", command=command).run()
    assert 96 <= recorded(tmp_path / "runs")["peak_mib"] < 140


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"command": "program {outt}"}, r"unknown placeholder \{outt\}; known: \{out\}"),
        ({"command": "program 'unclosed"}, "cannot be split into words"),
        ({"command": "program", "env": "no-pair"}, "expected NAME=value pairs, got 'no-pair'"),
        ({"command": "program", "program": "/no/such"}, "there is no such file, nor a folder with source files"),
        ({"command": "program", "timeout_seconds": 0}, "greater than 0"),
    ],
)
def test_bad_parameters_are_refused_while_planning(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        External.Params(**params)


def test_an_edited_program_is_another_method(planted: Planted, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "main.py").write_text(EXAMPLE.read_text())
    (folder / "weights.pt").write_bytes(b"large")
    command = COPY.replace(str(EXAMPLE), str(folder / "main.py"))
    before = External.Params(command=command, program=str(folder))
    (folder / "weights.pt").write_bytes(b"other")
    assert External.Params(command=command, program=str(folder)) == before, "weights are not read"
    (folder / "main.py").write_text(EXAMPLE.read_text() + "# edited\n")
    assert External.Params(command=command, program=str(folder)).program_sha256 != before.program_sha256
    with pytest.raises(RunError, match="has changed since this run was planned"):
        SmallRuns(External, before, planted, tmp_path / "runs").run()


def test_without_a_command_it_says_so() -> None:
    assert "it has no command; give one with --set command=" in (External().supports(Digits, 1) or "")


def test_no_shell_reads_the_command(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        runs(planted, tmp_path / "runs", command=f"/bin/echo {{out}} ; /bin/touch {tmp_path / 'pwned'} $(id)").run()
    assert not (tmp_path / "pwned").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_its_result_says_what_it_cost(tmp_path: Path) -> None:
    program = tmp_path / "slow.py"  # memory is looked at now and then: a program that is gone at once shows none
    program.write_text(
        EXAMPLE.read_text() + "    import time\n\n    held = bytes(range(256)) * 100_000\n    time.sleep(1)\n"
    )
    command = COPY.replace(str(EXAMPLE), str(program))
    options = {
        "methods": ["external"],
        "datasets": ["digits"],
        "ipc": "1",
        "seeds": "0",
        "device": "cpu",
        "out": tmp_path / "runs",
    }
    plan, _, _ = plan_run(run_spec({}, {**options, "set": {"command": command}}), students=False)
    ((planned, spec),) = plan.cells()
    store = Store(tmp_path / "runs")
    store.create()
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    try:
        assert run_cell(store.add(spec, planned.launch).path) == EXIT_OK
    finally:
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)
    (cell,) = store.cell_dirs()
    result = cell.result()
    assert isinstance(result, DistillResult)
    assert result.cost is not None
    assert {"export training images", "external program"} <= {phase.name for phase in result.cost.phases}
    assert result.recorded["exit_status"] == 0
    assert result.recorded["peak_mib"] > 24
    assert result.recorded["image_sizes"] == ["8x8"]
    assert str(program) in result.recorded["command"]
    assert result.cost_class == "external"

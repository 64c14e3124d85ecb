"""`import ddbench`: the command line's options, outcomes and messages, wherever Python runs."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd
import pytest

import ddbench
from ddbench import lists, runs
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.planning.listing import KINDS
from ddbench.benchmark.planning.run_spec import RunSpec

ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
BENCH = Path(sys.executable).with_name("bench")
SHORT: dict[str, Any] = {
    "methods": "random", "datasets": "digits", "ipc": 1, "seeds": range(2), "repeats": 1,
    "protocol": "quick[epochs=1]", "device": "cpu",
}  # fmt: skip
CALL = f"ddbench.run(**{SHORT!r}, out='runs')"
FAILING = '''
from ddbench.methods.base import CostClass, Method

class Failing(Method):
    """Fails."""
    name = "failing"
    version = 1
    cost_class = CostClass.SELECTION
    def distill(self, task):
        raise RuntimeError("not my day")
        yield
'''


def python(*arguments: str | Path, cwd: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments], cwd=cwd, env=ENVIRONMENT, text=True, capture_output=True, input=stdin
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that a script without `if __name__ == "__main__"` has made."""
    folder = tmp_path_factory.mktemp("script")
    script = folder / "script.py"
    script.write_text(f"import ddbench\nprint('begins')\noutcome = {CALL}\nprint(outcome.fates, outcome)\n")
    done = python(script, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("begins\n{'done': 4} <RunOutcome in runs: 2 distilled sets and 2 students: 4 done>\n"), (
        "no cell has run the script again, and nothing else is said"
    )
    assert done.stderr == ""
    return folder / "runs"


def test_importing_it_imports_nothing(tmp_path: Path) -> None:
    program = """
import sys
before = set(sys.modules)
import ddbench
heavy = {"torch", "pandas", "numpy", "pydantic", "rich", "ddbench.benchmark"} & (set(sys.modules) - before)
assert not heavy, heavy
ddbench.run, ddbench.results
assert not {"torch", "pandas"} & set(sys.modules)
assert set(ddbench.__all__) <= set(dir(ddbench))
try:
    ddbench.nonsense
except AttributeError as error:
    assert str(error) == "module 'ddbench' has no attribute 'nonsense'"
"""
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ddbench.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(ddbench, name))


def test_keyword_arguments_are_the_fields_of_run_spec() -> None:
    fields = set(RunSpec.model_fields)
    assert set(get_type_hints(runs.RunOptions)) == fields
    assert set(get_type_hints(runs.DistillOptions)) == fields - {
        "repeats",
        "protocol",
        "student",
        "teacher",
        "per_gpu",
        "test_on",
        "test_data",
    }
    shown = inspect.signature(ddbench.run).parameters
    assert set(shown) == fields | {"study", "config", "dry_run", "progress", "check"}
    assert shown["precision"].default == "fp32"
    assert shown["methods"].default is inspect.Parameter.empty
    for name, field in RunSpec.model_fields.items():
        assert f"{name}: {field.description}" in str(ddbench.run.__doc__)


def test_each_kind_of_thing_has_its_list() -> None:
    for kind in set(KINDS) - {"engines"}:
        listed = getattr(lists, f"list_{kind}")()
        assert isinstance(listed, pd.DataFrame)
        assert len(listed) > 1
        assert {"name", "summary"} <= set(listed.columns)


@pytest.mark.parametrize("how", ["-c", "stdin"])
def test_it_runs_from_a_line_and_from_standard_input(how: str, tmp_path: Path) -> None:
    program = f"import ddbench; print({CALL.replace('range(0, 2)', '[0]')}.fates)"
    done = python("-c", program, cwd=tmp_path) if how == "-c" else python("-", cwd=tmp_path, stdin=program)
    assert (done.returncode, done.stdout) == (0, "{'done': 2}\n"), done.stderr


def test_it_runs_in_a_thread_and_beside_an_event_loop(tmp_path: Path) -> None:
    program = f"""
import asyncio, threading, ddbench
said = []
thread = threading.Thread(target=lambda: said.append({CALL}.fates))
thread.start()
thread.join()
async def cell():
    return {CALL}.fates
print(said, asyncio.run(cell()))
"""
    done = python("-c", program, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[{'done': 4}] {'reused': 4}\n"), done.stderr


def test_the_outcome_says_what_came_of_each_cell(finished: Path) -> None:
    outcome = ddbench.run(**SHORT, out=finished)
    assert (outcome.ok, outcome.failed, outcome.interrupted, outcome.fates) == (True, (), False, {"reused": 4})
    assert {cell.cell.path.parent for cell in outcome.cells} == {finished / "cells"}
    assert all((folder / "manifest.json").exists() for folder in outcome.sets.values())
    assert len(set(outcome.sets.values())) == 2
    assert any("split default, student convnet3" in note for note in outcome.notes)
    planned = ddbench.run(**{**SHORT, "seeds": "0-3"}, out=finished, dry_run=True)
    assert planned.fates == {"reused": 4, "waiting": 4}


def test_the_second_stage_of_a_set_made_elsewhere(finished: Path, tmp_path: Path) -> None:
    images = next(iter(ddbench.sets(finished)["set_folder"]))
    options = {key: SHORT[key] for key in ("repeats", "protocol", "device")}
    outcome = ddbench.evaluate(images, "digits", name="mine", out=tmp_path / "runs", **options)
    assert outcome.fates == {"done": 1}
    assert list(ddbench.leaderboard(tmp_path / "runs")["method"]) == ["mine"]


def test_tables_are_those_of_the_command_line(finished: Path) -> None:
    students = ddbench.results(finished, dataset="digits", ipc=1)
    results = [json.loads((Path(folder) / "result.json").read_text()) for folder in students["folder"]]
    assert list(students["acc_last"]) == [result["metrics"]["acc_last"] for result in results]
    assert list(students["distill_seed"]) == [0, 1]
    shown = subprocess.run([BENCH, "leaderboard", "--runs", finished, "--json"], env=ENVIRONMENT, capture_output=True)
    (table,) = json.loads(shown.stdout)["tables"]
    board = ddbench.leaderboard(finished)
    assert list(board["acc_last_mean"]) == [row["acc_last"]["mean"] for row in table["rows"]]
    assert board["acc_last_mean"][0] == pytest.approx(students["acc_last"].mean())
    assert len(ddbench.sets(finished, protocol="quick", student=["convnet3"])) == 2
    with pytest.raises(ddbench.UsageError, match="matches these filters"):
        ddbench.results(finished, ipc=[2, 3])
    with pytest.raises(ddbench.UsageError, match=r"ipc: expected whole numbers like 10 or \[1, 10\], got nan"):
        ddbench.results(finished, ipc=float("nan"))  # type: ignore[arg-type]  # what is refused
    for ipc in (students["ipc"].unique()[0], students["ipc"].unique(), 1.0, ["1"]):  # as data frames have them
        assert len(ddbench.results(finished, ipc=ipc, dataset=students["dataset"].unique())) == 2
    with pytest.raises(ddbench.UsageError, match="methd: expected dataset, ipc, protocol or student"):
        ddbench.results(finished, methd="random")


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["run", "-m", "dmdg", "-d", "digits"], lambda: ddbench.run(methods="dmdg", datasets="digits")),
        (
            ["run", "-m", "dmgd[ot_scael=1]", "-d", "digits", "--ipc", "0", "--jobs", "0"],
            lambda: ddbench.run(methods=["dmgd[ot_scael=1]"], datasets=["digits"], ipc=[0], jobs=0),
        ),
        (["run", "-d", "digits"], lambda: ddbench.run(datasets="digits")),
        (["distill", "--study", "dmgd-tabel1"], lambda: ddbench.distill(study="dmgd-tabel1")),
        (
            ["eval", "--images", "nowhere", "-d", "digits"],
            lambda: ddbench.evaluate("nowhere", "digits"),
        ),
        (["leaderboard", "--runs", "nowhere"], lambda: ddbench.leaderboard("nowhere")),
        (["compare", "a", "--runs", "RUNS"], lambda: ddbench.compare(os.environ["RUNS"], "a")),
    ],
)
def test_messages_are_those_of_the_command_line(
    arguments: list[str], call: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNS", str(finished))
    words = [str(finished) if word == "RUNS" else word for word in arguments]
    said = subprocess.run([BENCH, *words], env=ENVIRONMENT, text=True, capture_output=True)
    assert said.returncode == 2
    with pytest.raises(ddbench.UsageError) as raised:
        call()
    assert said.stderr.removeprefix("error: ").split() == str(raised.value).split()


def test_failed_cells_raise_with_the_outcome_or_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))  # the plugin is this test's alone
    (tmp_path / "failing.py").write_text(FAILING)
    options = {**SHORT, "methods": ["failing", "random"], "seeds": [0], "plugins": tmp_path / "failing.py"}
    with pytest.raises(ddbench.CellsFailed, match="failing · digits · IPC 1 · set 0 .*not my day") as raised:
        ddbench.run(**options, out=tmp_path / "runs")
    outcome = raised.value.outcome
    assert outcome.fates == {"failed": 1, "blocked": 1, "done": 2}
    assert not outcome.ok
    assert isinstance(raised.value, ddbench.RunError)
    assert ddbench.run(**options, out=tmp_path / "runs", check=False).fates == {"failed": 1, "blocked": 1, "reused": 2}


def test_an_interrupted_run_raises_and_goes_on(tmp_path: Path) -> None:
    call = CALL.replace("epochs=1]", "epochs=4000]").replace("range(0, 2)", "[0]")
    program = f"import ddbench\ntry:\n    {call}\nexcept KeyboardInterrupt as e:\n    print(e)\n"
    running = subprocess.Popen([sys.executable, "-P", "-c", program], cwd=tmp_path, env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE)  # fmt: skip
    until = time.monotonic() + 120
    while not list(tmp_path.glob("runs/cells/evaluate-*/progress.json")):
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert said == "Interrupted. The same call goes on where this run stopped.\n"
    assert [file.parent.name.partition("-")[0] for file in tmp_path.glob("runs/cells/*/result.json")] == ["distill"]


def test_warnings_are_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddbench.benchmark.running.estimate.Estimate.warning", lambda *_: "days on this CPU")
    with pytest.warns(UserWarning, match="days on this CPU"):
        ddbench.run(**SHORT, out=tmp_path / "runs", dry_run=True)


@pytest.mark.parametrize("kind", ["methods", "datasets", "protocols"])
def test_what_there_is_answers_by_the_short_name_too(kind: str) -> None:
    import_module("ddbench.methods.base")  # a later import must not put the plain package in its place
    found, listed = getattr(ddbench, kind)(), getattr(ddbench, f"list_{kind}")()
    assert len(found) > 3
    assert found.equals(listed)

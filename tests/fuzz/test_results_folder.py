"""Every file of a results folder with any content: each reader goes on, and says what it could not read."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fuzzing import changed_bytes, changed_value, fuzzed, held
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from shifted_looks import foggy, look

import ddbench
from ddbench.benchmark.core.store import Launch, Store
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.running.estimate import estimate
from ddbench.benchmark.running.runner import Runner
from ddbench.benchmark.transfer.bundle import write_bundle
from ddbench.benchmark.transfer.proof import prove
from ddbench.reports.output import compare_text, formats, latex, latex_wide, mean_rank_text, status
from ddbench.reports.quality import tables as quality_tables
from ddbench.reports.quality import text as quality_text
from ddbench.reports.quality.records import read_quality
from ddbench.reports.quality.sets import finished_sets
from ddbench.reports.results import rows
from ddbench.reports.robustness import table as robust_tables
from ddbench.reports.robustness import text as robust_text
from ddbench.reports.site.build import build_site
from ddbench.reports.tables import leaderboard
from ddbench.reports.tables.compare import compare_methods
from ddbench.reports.tables.mean_rank import mean_ranks


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished, failed, running and planned cells."""
    from tests.reports.conftest import Folder

    folder = Folder(tmp_path_factory.mktemp("fuzz") / "runs")
    for method, accuracy in (("dmgd", 60.0), ("random", 50.0)):
        folder.method(method, [[accuracy], [accuracy + 1]], prior="ab" * 32 if method == "dmgd" else None)
    look(folder, "random", 2, 60, foggy(60, (50, 30), (40, 20)))
    folder.pictures()
    folder.distill(folder.distill_spec("random", seed=7), status="failed", reason="why")
    begun = folder.distill_spec("random", seed=8)
    cell = folder.store.add(begun, Launch(label="begun"))
    noted = {"images_done": 3, "images_total": 10, "note": "at work", "pid": 7}
    (cell.path / "progress.json").write_text(json.dumps(noted))
    (cell.path / "spent.json").write_text(json.dumps({"attempts": 2, "seconds": {"distill": 2.5}}))
    student = folder.store.add(folder.evaluate_spec(begun), Launch(label="begun"))
    noted = {"epoch": 5, "epochs": 60, "accuracy": 81.2, "looked_at_epoch": 5}
    (student.path / "progress.json").write_text(json.dumps(noted))
    folder.plan("planned", folder.distill_spec("random", seed=9), 1)
    return Path(folder.out)


def _leaderboard(out: Path, to: Path) -> str:
    board, console = leaderboard.build(rows.read(out)), Console(file=(said := io.StringIO()), width=200)
    formats.print_terminal(board, console)
    texts = (formats.markdown(board), latex.tables(board), latex_wide.wide(board)) if board.tables else ()
    return said.getvalue() + "".join(texts)


def _status(out: Path, to: Path) -> str:
    status.print_terminal(status.build(rows.read(out)), Console(file=(said := io.StringIO()), width=200))
    return said.getvalue()


def _compare(out: Path, to: Path) -> str:
    console = Console(file=(said := io.StringIO()), width=200)
    compare_text.print_terminal(compare_methods(rows.read(out), ["dmgd", "random"], 1.0), console)
    return said.getvalue()


def _mean_rank(out: Path, to: Path) -> str:
    console = Console(file=(said := io.StringIO()), width=200)
    mean_rank_text.print_terminal(mean_ranks(leaderboard.build(rows.read(out)).tables), console)
    return said.getvalue()


def _quality(out: Path, to: Path) -> str:
    results, console = rows.read(out), Console(file=(said := io.StringIO()), width=200)
    sets, problems = finished_sets(results, [])
    report = quality_tables.build(results, sets, read_quality(results.store), problems, spaces=None, methods=[])
    quality_text.print_terminal(report, console)
    return said.getvalue() + quality_text.markdown(report)


def _robust(out: Path, to: Path) -> str:
    report, console = robust_tables.build(rows.read(out)), Console(file=(said := io.StringIO()), width=200)
    for by in (None, "corruption", "severity"):
        robust_text.print_terminal(report, console, by)
    return said.getvalue() + robust_text.markdown(report)


def _frames(out: Path, to: Path) -> str:
    for frame in (ddbench.results(out), ddbench.sets(out)):
        frame.to_parquet(to / "frame.parquet")
    return ""


def _bundle(out: Path, to: Path) -> str:
    write_bundle(Store(out), to / "bundle.tar.zst", by="x")
    return ""


def _proof(out: Path, to: Path) -> str:
    prove(Store(out))
    return ""


def _run(out: Path, to: Path) -> str:
    plan = Plan.model_validate_json(next((to / "plans").glob("*.json")).read_bytes())
    runner = Runner(Store(out), plan, None)  # type: ignore[arg-type] - it starts nothing
    runner.settle()
    estimate(runner.waiting(), Store(out), probe=False)
    return ""


def _site(out: Path, to: Path) -> str:
    build_site(out, to / "site", public=True)
    return "".join(page.read_text() for page in (to / "site").rglob("*.html"))


READERS: dict[str, Callable[[Path, Path], str]] = {
    "leaderboard": _leaderboard, "status": _status, "compare": _compare, "mean rank": _mean_rank,
    "quality": _quality, "robust": _robust, "tables for Python": _frames, "bundle": _bundle, "verify-results": _proof,
    "run": _run, "site": _site,
}  # fmt: skip
OF_TRUE_RESULTS = ("bundle", "verify-results", "run")
OFTEN = [name for name in READERS if name != "site"] * 8 + ["site"]


@pytest.fixture(scope="module")
def folders(made_up: Path, really_run: Path) -> Callable[[str], Path]:
    """The folder that a reader reads: of results that nobody ran, most would have nothing to say."""
    return lambda reader: really_run if reader in OF_TRUE_RESULTS else made_up


@pytest.fixture(scope="module")
def to(really_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where readers write; with a copy of the plans, as a run has them in memory."""
    folder = tmp_path_factory.mktemp("to")
    (folder / "plans").mkdir()
    for plan in (really_run / "plans").glob("*.json"):
        (folder / "plans" / plan.name).write_bytes(plan.read_bytes())
    return folder


@contextmanager
def changed(file: Path, put: Callable[[], Any]) -> Iterator[None]:
    before = file.read_bytes()
    file.unlink()
    try:
        put()
        yield
    finally:
        file.unlink()
        file.write_bytes(before)


def check(runs: Path, to: Path, reader: str) -> None:
    with held(f"results, {reader}"):
        said = READERS[reader](runs, to)
        assert all(character.isprintable() or character in "\n\t" for character in said)


def files(runs: Path) -> list[Path]:
    return sorted(path for path in runs.rglob("*") if path.is_file() and not path.name.endswith(".png"))


@fuzzed(60)
@given(data=st.data())
def test_any_value_in_any_place(folders: Callable[[str], Path], to: Path, data: st.DataObject) -> None:
    runs = folders(reader := data.draw(st.sampled_from(OFTEN)))
    file = data.draw(st.sampled_from([file for file in files(runs) if file.suffix == ".json"]))
    content = data.draw(changed_value(json.loads(file.read_bytes())))
    with changed(file, lambda: file.write_text(json.dumps(content))):
        check(runs, to, reader)


@fuzzed(30)
@given(data=st.data())
def test_any_bytes_in_any_file(folders: Callable[[str], Path], to: Path, data: st.DataObject) -> None:
    runs = folders(reader := data.draw(st.sampled_from(OFTEN)))
    file = data.draw(st.sampled_from([*files(runs), *sorted(runs.rglob("*.png"))[:2]]))
    content = data.draw(changed_bytes(file.read_bytes()))
    with changed(file, lambda: file.write_bytes(content)):
        check(runs, to, reader)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "site"])
def test_named_pipes_in_the_place_of_files(folders: Callable[[str], Path], to: Path, reader: str) -> None:
    """Who reads one waits for ever."""
    runs = folders(reader)
    by_name: dict[str, list[Path]] = {}
    for file in [*files(runs), next(runs.rglob("*.png"))]:
        by_name.setdefault(file.name, []).append(file)
    for some in by_name.values():
        with changed(some[0], partial(os.mkfifo, some[0])):
            check(runs, to, reader)

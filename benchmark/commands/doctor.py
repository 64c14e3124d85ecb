"""`bench doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ddbench.benchmark.core.sharing.file_system import Finding
    from ddbench.benchmark.core.store import Store

doctor_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@doctor_app.command()
def doctor(
    runs: Annotated[Path, typer.Option("--runs", help="Results folder, or where one is to be.")] = Path("runs"),
) -> None:
    """Does this machine and the file system of a results folder give what runs need? Tried out, in a second or two.

    On a cluster, run it on two nodes at once. The exit status is 1 where something is bad.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ddbench.benchmark.core.sharing.file_system import Verdict

    styles = {Verdict.GOOD: "green", Verdict.NOTE: "yellow", Verdict.BAD: "bold red"}
    bad, console = 0, Console(emoji=False)
    for title, findings in _examined(runs):
        console.print(Text(title, "bold"))
        table = Table(box=None, show_header=False)
        for one in findings:
            said = one.found + (f": {one.meaning}" if one.meaning else "")
            table.add_row(Text(one.verdict, styles[one.verdict]), one.what, Text(said))
            bad += one.verdict is Verdict.BAD
        console.print(table)
    if bad:
        raise typer.Exit(1)


def _examined(runs: Path) -> Iterator[tuple[str, list[Finding]]]:
    """(What was examined, what was found), each as soon as it is known."""
    from ddbench.benchmark.core.store import Store
    from ddbench.datasets.cache import cache_dir

    yield "this machine", _machine()
    yield f"results in {runs}", _folder(runs)
    store = Store(runs)
    if found := [*_at_work(store)]:
        yield f"at work in {runs}", found
    yield f"cache in {cache_dir()} ($DDBENCH_CACHE)", _cache(cache_dir())


def _machine() -> list[Finding]:
    from ddbench.benchmark.core.environment import cpu_model, versions
    from ddbench.benchmark.core.sharing.file_system import Finding, Verdict
    from ddbench.benchmark.core.sharing.holder import job_id, this_process

    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {versions()[name] or 'missing'}" for name in ("ddbench", "torch", "diffusers"))
    me, cores = this_process(), len(os.sched_getaffinity(0))
    found = [
        Finding("name", Verdict.GOOD, me.host + (f", job {job_id()}" if job_id() else "")),
        Finding("processor", Verdict.GOOD, f"{cpu_model()}, {cores} cores, {memory_gib:.0f} GiB"),
        Finding("packages", Verdict.GOOD, packages),
    ]
    if not me.is_here:
        said = "whether a killed process is gone cannot be told here: its cell waits five minutes before it goes on"
        found.append(Finding("processes", Verdict.NOTE, "/proc does not count them as they do", said))
    return found


def _folder(folder: Path) -> list[Finding]:
    from ddbench.benchmark.core.sharing.file_system import Finding, Verdict, try_out

    there = folder.absolute()
    while not there.is_dir():
        there = there.parent
    try:
        return try_out(there)
    except OSError as error:
        said = f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
        return [Finding("writing", Verdict.BAD, said, "nothing can be kept there; choose another folder")]


def _at_work(store: Store) -> Iterator[Finding]:
    from ddbench.benchmark.core.sharing.file_system import Finding, Verdict

    for run in store.runs_at_work():
        yield Finding("a run", Verdict.GOOD, f"{run.holder.name}, since {run.holder.since}")
    for cell in store.cell_dirs():
        if (holder := cell.holder()) is not None:
            yield Finding(cell.id, Verdict.GOOD, f"{holder.name}, since {holder.since}")


def _cache(folder: Path) -> list[Finding]:
    from ddbench.benchmark.core.sharing.file_system import SHARED, Finding, Verdict, mounted_as

    there = folder.absolute()
    while not there.is_dir():
        there = there.parent
    if mounted_as(there) in SHARED:
        said = (
            "decoded datasets are read from it in each run: a local disk is faster (export DDBENCH_CACHE=/local/disk)"
        )
        return [Finding("file system", Verdict.NOTE, f"{mounted_as(there)}, which machines share", said)]
    return [found for found in _folder(folder) if found.what in ("writing", "file system", "room", "files")]

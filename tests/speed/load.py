"""How a run's bookkeeping and the readers of its results grow with the number of cells, as the table of
docs/performance.md: `python -P tests/speed/load.py [1000 10000]`. Processor time of this process and of commands, so
that neighbours on the machine disturb it little; memory is the command's own peak, without what it starts."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from ddbench.benchmark.core.store import Launch, Store
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running.live import LiveView, PlainView
from ddbench.benchmark.running.runner import POLL_SECONDS, Fate, Item, Observer, Runner

REPORTS = Path(__file__).parent.parent / "reports"
TICKS = 40
COMMAND = """
import resource, sys
from ddbench.benchmark.commands.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"used {used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}", file=sys.stderr)
"""


class Endless(Handle):
    """A cell that runs on."""

    def exit_status(self) -> int | None:
        return None

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Nothing(Engine):
    """Starts no process."""

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        return [Slot(index, "cpu") for index in range(jobs)]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        return Endless()

    def close(self) -> None: ...


class Clock(Observer):
    """Notes the processor time of each tick, and leaves after some."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.at = runner, [time.process_time()]

    def tick(self) -> None:
        self.at.append(time.process_time())
        if len(self.at) > TICKS:
            raise KeyboardInterrupt


def items_of(cells: int, out: Path) -> Runner:
    """A runner of so many cells, half of them sets and half students."""
    asked = {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": f"0-{cells // 2 - 1}", "repeats": 1}
    store = Store(out)
    store.create()
    runner = Runner(store, plan_run(run_spec({}, {**asked, "device": "cpu"}))[0], Nothing())
    runner.settle()
    return runner


def tick_ms(runner: Runner) -> float:
    """The median tick of a run with eight cells under way."""
    clock = Clock(runner)
    with contextlib.suppress(KeyboardInterrupt):
        runner.run(runner.engine.open(jobs=8, device="cpu"), clock)
    ticks = sorted(later - earlier for earlier, later in itertools.pairwise(clock.at))
    return 1000 * ticks[len(ticks) // 2]


def line_us(items: list[Item]) -> float:
    """A line of the log, of each cell's start and end."""
    view = PlainView(Console(file=StringIO()), items)
    began = time.process_time()
    for item in items:
        for item.fate in (Fate.RUNNING, Fate.DONE):
            view.changed(item)
    return 1e6 * (time.process_time() - began) / (2 * len(items))


def drawing_ms(items: list[Item]) -> float:
    """A drawing of the live view, of which there are four a second."""
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=120, height=40), items)
    for item in items[:8]:
        item.fate = Fate.RUNNING
        view.tally.note(item)
    console = Console(file=StringIO(), force_terminal=True, width=120)
    began = time.process_time()
    for _ in range(TICKS):
        console.print(view.render())
    return 1000 * (time.process_time() - began) / TICKS


def command(*arguments: str) -> tuple[float, float]:
    """(processor seconds, peak MiB) of `bench …`."""
    ran = subprocess.run([sys.executable, "-P", "-c", COMMAND, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"bench {' '.join(arguments)} ended with {ran.returncode}:\n{ran.stderr}")
    seconds, mib = ran.stderr.splitlines()[-1].split()[1:]
    return float(seconds), float(mib)


def module(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def measured(cells: int, folder: Path) -> dict[str, float]:
    """What is measured -> its value, at so many cells."""
    runner = items_of(cells, folder / "planned")
    found = {
        f"a runner's tick of {1000 * POLL_SECONDS:g} ms, ms": tick_ms(runner),
        "a line of the log, µs": line_us(runner.items),
        "a drawing of the live view, four a second, ms": drawing_ms(runner.items),
    }
    asked = ["run", "-m", "dmgd", "-d", "digits", "--ipc", "10", "--seeds", f"0-{cells // 2 - 1}", "--repeats", "1"]
    dry = [*asked, "--device", "cpu", "--out", str(folder / "none"), "--dry-run"]
    found["`bench run --dry-run`, s"], found["… its memory, MiB"] = command(*dry)
    many: Any = module("load_many_results", REPORTS / "many_results.py")
    results: Any = module("load_results_builder", REPORTS / "conftest.py").Folder(folder / "runs")
    many.fill(results, cells)
    runs = ["--runs", str(folder / "runs")]
    for name in ("status", "leaderboard"):
        found[f"`bench {name}`, s"], found[f"… memory of {name}, MiB"] = command(name, *runs)
    site = ["--to", str(folder / "site")]
    found["`bench report`, s"], found["… memory of report, MiB"] = command("report", *runs, *site)
    return found


def table(columns: Sequence[tuple[int, dict[str, float]]]) -> str:
    """Markdown, with how each row grows from the first column to the last."""
    lines = ["| what | " + " | ".join(f"{cells:,} cells" for cells, _ in columns) + " | growth |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name in columns[0][1]:
        values = [found[name] for _, found in columns]
        lines.append(f"| {name} | " + " | ".join(map(_number, values)) + f" | {values[-1] / values[0]:.1f} × |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    columns = []
    for cells in [int(argument) for argument in sys.argv[1:]] or [1000, 10_000]:
        with tempfile.TemporaryDirectory() as folder:
            columns.append((cells, measured(cells, Path(folder))))
    print(table(columns))


if __name__ == "__main__":
    main()

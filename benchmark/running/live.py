"""What people see while a run goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ddbench.benchmark.core.result import EvaluateResult
from ddbench.benchmark.core.spec import DistillSpec
from ddbench.benchmark.planning.setting import Setting
from ddbench.benchmark.running.runner import Fate, Item, Observer
from ddbench.benchmark.running.tally import ENDED, Tally

COLOURS = {
    Fate.DONE: "green",
    Fate.REUSED: "cyan",
    Fate.FAILED: "red",
    Fate.BLOCKED: "red",
    Fate.INTERRUPTED: "yellow",
    Fate.ELSEWHERE: "yellow",
    Fate.LOST: "yellow",
}


def duration(seconds: float) -> str:
    """`7 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def outcome(item: Item) -> str:
    """What came of an ended cell, in a few words."""
    if isinstance(item.result, EvaluateResult) and item.result.metrics is not None:
        return f"accuracy {item.result.metrics.acc_last:.2f} %"
    if item.reason:
        return item.reason.splitlines()[0]
    n_images = getattr(item.result, "n_images", None)
    return f"{n_images} images" if n_images is not None else ""


class PlainView(Observer):
    """One line when a cell starts, one when it ends: for logs and pipes."""

    def __init__(self, console: Console, items: list[Item]) -> None:
        self.console, self.tally = console, Tally(items)

    def changed(self, item: Item) -> None:
        self.tally.note(item)
        if item.fate is Fate.WAITING:
            return  # it is said why it starts again
        took = "" if item.seconds is None else f" in {duration(item.seconds)}"
        words = outcome(item) if item.fate in (*ENDED, Fate.LOST) else ""
        line = f"[{self.tally.ended}/{self.tally.total}] {item.fate} {item.title}{took}{': ' if words else ''}{words}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class OwnCells(Observer):
    """One line for each cell that this run made: for one of many runs on a results folder."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def changed(self, item: Item) -> None:
        if item.began is None or item.fate not in (Fate.DONE, Fate.FAILED, Fate.LOST, Fate.INTERRUPTED):
            return
        words = outcome(item)
        line = f"{item.fate} {item.title} in {duration(time.monotonic() - item.began)}{': ' if words else ''}{words}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveView(Observer):
    """Running cells with their progress, the last ended ones, counts and the time left."""

    LAST = 6
    REFRESH_SECONDS = 0.25
    """Between two drawings: each takes some milliseconds, which the cells have to do without."""

    def __init__(self, console: Console, items: list[Item]) -> None:
        self.items, self.tally = items, Tally(items)
        self.began = time.monotonic()
        self.last: deque[Item] = deque(maxlen=self.LAST)
        """The cells that ended last."""
        self._drawn: float | None = None
        self.live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> LiveView:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.tally = Tally(self.items)  # what was left when the run was stopped has changed without a word
        self._draw()
        self.live.stop()

    def changed(self, item: Item) -> None:
        self.tally.note(item)
        if item.fate in ENDED:
            self.last.append(item)
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if self._drawn is None or now - self._drawn >= self.REFRESH_SECONDS:
            self._draw()
            self._drawn = now

    def _draw(self) -> None:
        self.live.update(self.render(), refresh=True)

    def render(self) -> RenderableType:
        table = Table(box=None, padding=(0, 1), show_header=False, expand=True)
        table.add_column(width=11, no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(width=12)
        table.add_column(ratio=1, min_width=24, no_wrap=True, overflow="ellipsis")
        for item in self.last:
            took = "" if item.seconds is None else duration(item.seconds)
            table.add_row(Text(item.fate, COLOURS.get(item.fate, "")), Text(item.title), took, Text(outcome(item)))
        for item in self.tally.at_work:
            fraction, words = progress_of(item)
            bar = ProgressBar(total=1.0, completed=fraction, width=12)
            table.add_row(Text(item.fate, "bold"), Text(item.title, "bold"), bar, Text(words))
        return Group(table, self._summary())

    def _summary(self) -> Text:
        tally, now = self.tally, time.monotonic()
        parts = [f"{tally.counts[fate]} {fate}" for fate in Fate if tally.counts[fate]]
        left = tally.seconds_left(now)
        text = f"{tally.ended}/{tally.total} cells · {', '.join(parts)} · {duration(now - self.began)}"
        return Text(
            text + (f" · about {duration(left)} left" if left is not None and tally.ended < tally.total else "")
        )


class NotebookView(LiveView):
    """The same in a notebook, as one output that is replaced while cells run."""

    REFRESH_SECONDS = 0.5

    def __enter__(self) -> NotebookView:
        from IPython.display import display

        self._handle = display(self._bundle(), raw=True, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.tally = Tally(self.items)
        self._draw()

    def _draw(self) -> None:
        self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        page = Console(emoji=False, file=io.StringIO(), record=True, width=120, force_jupyter=False)
        page.print(self.render())
        text = page.export_text(clear=False)
        return {"text/plain": text, "text/html": page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")}


def progress_of(item: Item) -> tuple[float, str]:
    """(fraction done, what it is at) of a running cell, from its progress file."""
    noted: dict[str, Any] = item.cell.progress()
    if noted.get("images_total"):
        done, total = noted.get("images_done", 0), noted["images_total"]
        note = f" · {noted['note']}" if noted.get("note") else ""
        return done / total, f"{done}/{total} images{note}"
    if noted.get("epochs"):
        accuracy = noted.get("accuracy")
        so_far = "" if accuracy is None else f" · {accuracy:.1f} %"
        return noted.get("epoch", 0) / noted["epochs"], f"epoch {noted.get('epoch', 0)}/{noted['epochs']}{so_far}"
    return 0.0, "starting"


def view(console: Console, items: list[Item]) -> AbstractContextManager[Observer]:
    if console.is_jupyter:
        return NotebookView(console, items)
    return LiveView(console, items) if console.is_terminal else nullcontext(PlainView(console, items))


def summary(items: list[Item]) -> str:
    counts = Counter(item.fate for item in items)
    stages = Counter(item.stage for item in items)
    what = " and ".join(
        f"{stages[stage]} {stage}" for stage in ("shards", "distilled sets", "students") if stages[stage]
    )
    return f"{what}: {', '.join(f'{counts[fate]} {fate}' for fate in Fate if counts[fate])}"


def describe_setting(setting: Setting, *, students: bool = True) -> str:
    """What a run uses on one dataset, with what came from the dataset's headline told apart; without students, what its
    first stage uses."""
    parts = [setting.spec.name, f"split {setting.spec.split}", f"{setting.spec.resolution} px"]
    if students:
        seen = setting.protocol.image_size_for(setting.spec.resolution)
        at = "" if seen == setting.spec.resolution else f" at {seen} px"
        parts += [f"protocol {setting.protocol_spec.label}", f"student {setting.student}{at}"]
    parts.append(f"IPC {', '.join(map(str, setting.ipc))}")
    parts.append(f"{len(setting.set_seeds)} sets" + (f" × {setting.repeats} students" if students else ""))
    lines = [" · ".join(parts)]
    assumed = [one for one in setting.assumed if students or not one.startswith(("protocol ", "student"))]
    if assumed:
        lines.append(f"not given, so taken from {setting.spec.name}'s headline: {', '.join(assumed)}")
    if students and setting.protocol.notice:
        lines.append(setting.protocol.notice)
    if students and setting.test_on:
        lines.append(f"looked at too, once trained: {', '.join(map(str, setting.test_on))}")
    return "\n".join(lines)


def dry_run_table(items: list[Item]) -> Table:
    """Every cell of a plan and whether it exists; of a long plan, how many of each kind."""
    would = {Fate.REUSED: "be reused", Fate.MISSING: "be missing", Fate.FAILED: "stay failed", Fate.WAITING: "run"}
    if len(items) > MOST_LISTED:
        return _counted(items, would)
    table = Table("cell", "what", "would")
    for item in items:
        action = would.get(item.fate, f"be {item.fate}")
        table.add_row(item.cell.id, Text(item.title), Text(action, "cyan" if item.fate is Fate.REUSED else ""))
    return table


MOST_LISTED = 40
"""Cells that a dry run lists one by one."""


def _counted(items: list[Item], would: Mapping[Fate, str]) -> Table:
    """Rows are methods on a dataset, under a protocol; columns say what their cells would do."""
    fates = [fate for fate in Fate if any(item.fate is fate for item in items)]
    table = Table("method", "dataset", "IPC", "protocol · student")
    for fate in fates:
        table.add_column(f"would {would.get(fate, f'be {fate}')}", justify="right")
    alike: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        spec = item.spec
        how = "distilled sets" if isinstance(spec, DistillSpec) else f"{spec.protocol.label} · {spec.student}"
        alike.setdefault((item.planned.label, spec.dataset.name, how), []).append(item)
    for (label, dataset, how), some in alike.items():
        ipcs = dict.fromkeys("all" if item.spec.ipc is None else str(item.spec.ipc) for item in some)
        counts = Counter(item.fate for item in some)
        table.add_row(Text(label), dataset, ", ".join(ipcs), Text(how), *(str(counts[fate] or "–") for fate in fates))
    return table

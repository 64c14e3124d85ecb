"""How far some work is, for people."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_STEPS = 10
"""Lines for one piece of work where the output is no terminal."""


class ShownProgress:
    """Called with (what is being done, how much of it is done, how much there is): a bar on a terminal, a few plain
    lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console) if console.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._step: dict[str, int] = {}

    def __enter__(self) -> ShownProgress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bars is None:
            step = PLAIN_STEPS * done // total if total else 0
            if step > self._step.get(what, -1):
                self._step[what] = step
                line = f"{what}: {done:,} of {total:,}" if total else f"{what} …"
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        if what not in self._tasks:
            self._bars.start()
            self._tasks[what] = self._bars.add_task(what, total=total or None)
        self._bars.update(self._tasks[what], completed=done)

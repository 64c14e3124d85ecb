"""How far measuring is, for people: bars on a terminal, a few plain lines elsewhere. All of it on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ddbench.benchmark.core.shown_progress import ShownProgress


class Shown:
    """Called with (what is being done, how much of it is done, how much there is); `note` takes what has no measure."""

    def __init__(self, title: str, console: Console) -> None:
        self._title, self._console = title, console
        self._lines = None if console.is_terminal else ShownProgress(console)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._noted = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._lines is not None:
            self._lines(f"{self._title}: {what}", done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self.bars.add_task(what, total=total)
        self.bars.update(self._tasks[what], completed=done, total=total)

    def note(self, text: str) -> None:
        """The bar's own text; elsewhere only what it is about, once."""
        topic = text.partition(":")[0]
        if self._lines is not None:
            if topic != self._noted:
                self._console.print(f"{self._title}: {topic} …", highlight=False, soft_wrap=True)
        else:
            if topic not in self._tasks:
                self._tasks[topic] = self.bars.add_task(topic, total=None)
            self.bars.update(self._tasks[topic], description=text)
        self._noted = topic


@contextmanager
def shown(title: str) -> Iterator[Shown]:
    found = Shown(title, Console(emoji=False, stderr=True))
    with found.bars:
        yield found

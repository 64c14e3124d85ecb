"""How many cells of a run stand where and how long the rest takes, kept by what changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ddbench.benchmark.running.runner import Fate, Item

ENDED = (Fate.DONE, Fate.REUSED, Fate.FAILED, Fate.BLOCKED, Fate.INTERRUPTED, Fate.MISSING)
Kind = tuple[str, int | None]
"""(stage, IPC): cells that take about as long as one another."""


class Tally:
    """The cells of a run, counted; whoever is told that a cell changed passes it on with `note`."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.total = len(items)
        self.counts: Counter[Fate] = Counter()
        self.at_work: dict[Item, None] = {}
        """Cells that run here or elsewhere, in the order in which they began."""
        self._fates: dict[Item, Fate] = {}
        self._seconds: dict[Kind, list[float]] = defaultdict(lambda: [0.0, 0.0])
        """Kind -> [sum of the seconds of its cells that this run has done, their number]."""
        self._waiting: Counter[Kind] = Counter()
        for item in items:
            self.note(item)

    def note(self, item: Item) -> None:
        """Count a cell where it stands now."""
        before = self._fates.get(item)
        if before is item.fate:
            return
        kind = (item.stage, item.spec.ipc)
        if before is not None:
            self.counts[before] -= 1
            self._waiting[kind] -= before is Fate.WAITING and not item.merges
        self._fates[item] = item.fate
        self.counts[item.fate] += 1
        self._waiting[kind] += item.fate is Fate.WAITING and not item.merges
        if item.fate in (Fate.RUNNING, Fate.ELSEWHERE):
            self.at_work[item] = None
        else:
            self.at_work.pop(item, None)
        if item.fate is Fate.DONE and item.seconds is not None:
            pace = self._seconds[kind]
            pace[0], pace[1] = pace[0] + item.seconds, pace[1] + 1

    @property
    def ended(self) -> int:
        """Cells of which nothing more comes in this run."""
        return sum(self.counts[fate] for fate in ENDED)

    def seconds_left(self, now: float) -> float | None:
        """Seconds left at the pace of this run's ended cells of the same stage and IPC; None until each stage has ended
        once. Merging shards takes no time to speak of.

        Cells that run side by side are taken to go on doing so.

        Args:
            now: seconds on the clock of `Item.began`.
        """
        left, running = 0.0, 0
        for kind, count in self._waiting.items():
            if count:
                if (expected := self._expected(kind)) is None:
                    return None
                left += count * expected
        for item in self.at_work:
            if item.fate is Fate.RUNNING and not item.merges:
                if (expected := self._expected((item.stage, item.spec.ipc))) is None:
                    return None
                left += max(0.0, expected - (now - (item.began or 0.0)))
                running += 1
        return left / max(1, running)

    def _expected(self, kind: Kind) -> float | None:
        """The mean of cells of a kind, else of its stage."""
        alike = [self._seconds[kind]] if kind in self._seconds else []
        alike = alike or [pace for (stage, _), pace in self._seconds.items() if stage == kind[0]]
        total, count = (sum(column) for column in zip(*alike, strict=True)) if alike else (0.0, 0.0)
        return total / count if count else None

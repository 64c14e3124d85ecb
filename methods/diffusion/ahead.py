"""Work that threads start ahead of being asked for: on one class after the other, or on whatever follows. Results are
those of a loop."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ddbench.methods.base import Made

Asked = TypeVar("Asked")
Got = TypeVar("Got")


def begun_ahead(work: Callable[[Asked], Got], of: Iterable[Asked], threads: int) -> Iterator[Got]:
    """`map(work, of)`, of which threads work out at most `2 · threads` results ahead of the one that is asked for.

    Args:
        threads: beside the calling one; 0: that one does it all, when it is asked.
    """
    if not threads:
        yield from map(work, of)
        return
    begun: deque[Future[Got]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for one in of:
                begun.append(pool.submit(work, one))
                if len(begun) > 2 * threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


class Ahead:
    """Results of `work` for each of `keys`, at most `2 · threads` ahead of the one that is asked for.

    What a result is depends on its key alone: each is worked out by one thread, without threads below it. Used in a
    `with` block. Whoever asks for the first result that is not cached waits for it and starts those that follow, so
    cached results that lie between uncached ones may be worked out in vain; nothing is if all are cached.

    Args:
        load: key -> what `work` works on; called by the thread that asks, since artefacts are for one thread only.
        work: -> arrays.
        threads: how many at once.
    """

    def __init__(
        self,
        load: Callable[[int], np.ndarray],
        work: Callable[[int, np.ndarray], Mapping[str, np.ndarray]],
        keys: Sequence[int],
        threads: int | None = None,
    ) -> None:
        self.load, self.work, self.keys = load, work, list(keys)
        self.__module__ = work.__module__  # artefacts are named by the file of an author that makes them
        self.threads = min(threads or torch.get_num_threads(), max(1, len(self.keys)))
        self._position = {key: position for position, key in enumerate(self.keys)}
        self._begun: dict[int, Future[Made]] = {}
        self._next = 0
        self._stack = ExitStack()

    def __enter__(self) -> Ahead:
        # Both are settings of the whole process, which threads that come and go must not each put back.
        self._stack.enter_context(threadpool_limits(limits=1))
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ConvergenceWarning)
        self._pool = self._stack.enter_context(ThreadPoolExecutor(self.threads))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def __call__(self, key: int) -> Made:
        """The result for a key; it carries its share of the wall-clock. Raises what `work` raises."""
        position = self._position[key]
        self._next = max(self._next, position)
        while self._next < min(position + 2 * self.threads, len(self.keys)):
            ahead = self.keys[self._next]
            self._begun[ahead] = self._pool.submit(self._timed, ahead, self.load(ahead))
            self._next += 1
        for passed in [other for other in self._begun if self._position[other] < position]:
            del self._begun[passed]
        return self._begun.pop(key).result()

    def _timed(self, key: int, loaded: np.ndarray) -> Made:
        begun = time.perf_counter()
        arrays = self.work(key, loaded)
        return Made(arrays, seconds=(time.perf_counter() - begun) / self.threads)

"""What threads begin ahead of being asked for comes in order, at most so far ahead, with its errors in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ddbench.methods.d3hr import groups
from ddbench.methods.diffusion.ahead import begun_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_are_those_of_a_loop(threads: int) -> None:
    assert list(begun_ahead(lambda n: n * n, range(20), threads)) == [n * n for n in range(20)]
    assert list(begun_ahead(lambda n: n, [], threads)) == []


def test_it_begins_ahead_but_not_far() -> None:
    asked: list[int] = []
    begun = threading.Event()

    def keys() -> Iterator[int]:
        for n in range(100):
            asked.append(n)
            yield n

    def work(n: int) -> int:
        if n == 1:
            begun.set()
        return n

    results = begun_ahead(work, keys(), 2)
    assert next(results) == 0
    assert begun.wait(30)
    assert len(asked) == 5  # the one that was asked for, and two for each thread
    results.close()  # type: ignore[attr-defined]
    assert len(asked) == 5


def test_an_error_comes_where_its_result_would() -> None:
    results = begun_ahead(lambda n: 1 / n, [1, 0, 2], 2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_groups_do_not_depend_on_who_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "BLOCK_NUMBERS", 2 * 8 * 3)
    drawn_by: set[int] = set()

    def draw(block: int) -> torch.Generator:
        drawn_by.add(threading.get_ident())
        return torch.Generator().manual_seed(block)

    def best(threads: int) -> torch.Tensor:
        drawn_by.clear()
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return groups.best_group(draw, torch.zeros(8), torch.ones(8), size=2, groups=31, skew_weight=0.5)

    alone = best(1)
    assert drawn_by == {threading.get_ident()}
    assert torch.equal(best(4), alone)
    assert threading.get_ident() not in drawn_by

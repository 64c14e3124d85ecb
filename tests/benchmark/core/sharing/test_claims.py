"""Numbers that are given out: each to one owner, however many ask at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ddbench.benchmark.core.sharing import claims
from ddbench.benchmark.core.sharing.claims import claim, claimed, free_number


def test_each_owner_has_a_number_of_its_own(tmp_path: Path) -> None:
    owners = [f"owner {number % 10}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda owner: claim(tmp_path / "claims", owner, {0, 3}), owners))
    assert given[:10] * 4 == given, "who asks again has the same"
    assert sorted(given[:10]) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert free_number(tmp_path / "claims", "owner 4") == given[4]
    assert free_number(tmp_path / "claims", "new") == 0


def test_one_that_another_takes_between_the_look_and_the_claim_is_not_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = claims.free_number

    def slowly(*arguments: object) -> int:
        number = look(*arguments)
        monkeypatch.setattr(claims, "free_number", look)
        assert claim(tmp_path / "claims", "quick") == number
        return number

    (tmp_path / "claims").mkdir()
    monkeypatch.setattr(claims, "free_number", slowly)
    assert claim(tmp_path / "claims", "slow") == 1
    assert claimed(tmp_path / "claims") == {0: "quick", 1: "slow"}

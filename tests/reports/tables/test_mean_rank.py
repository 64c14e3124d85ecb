"""Mean ranks and wins against counting by hand, scipy's Friedman test and simulation."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from ddbench.benchmark.commands.leaderboard import leaderboard_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.reports.results import rows
from ddbench.reports.tables import mean_rank
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.mean_rank import MeanRanks, mean_ranks
from ddbench.reports.tables.methods_as_run import methods_as_run
from ddbench.reports.tables.win_tie_loss import Pairing, pairings

N_TEST = 500


def found_in(folder: Any) -> MeanRanks:
    return mean_ranks(build(rows.read(folder.out)).tables)


def of(found: MeanRanks) -> dict[str, tuple[float, list[float]]]:
    return {one.method: (one.mean_rank, one.by_cluster) for one in found.methods}


def test_ranks_are_averaged_within_a_dataset_and_seed_first(folder: Any, make_folder: Any) -> None:
    # digits, two IPCs, seeds 0-2; another dataset, one IPC: its three clusters weigh as much as those of digits.
    folder.method("a", [[90.0], [80.0], [70.0]], ipc=1)
    folder.method("b", [[80.0], [80.0], [80.0]], ipc=1)
    folder.method("a", [[90.0], [90.0], [70.0]], ipc=10)
    folder.method("b", [[80.0], [80.0], [80.0]], ipc=10)
    other = make_folder(folder.out, dataset="woof", content_hash="dd" * 32)
    other.method("a", [[10.0], [10.0], [10.0]])
    other.method("b", [[20.0], [20.0], [20.0]])
    found = found_in(folder)
    assert [(one.dataset, one.seed, len(one.tables)) for one in found.clusters] == [
        *(("digits", seed, 2) for seed in range(3)),
        *(("woof", seed, 1) for seed in range(3)),
    ]
    assert found.cells == 9
    a = [1.0, (1.5 + 1) / 2, 2.0, 2.0, 2.0, 2.0]
    assert of(found) == {"a": (pytest.approx(np.mean(a)), a), "b": (pytest.approx(3 - np.mean(a)), [3 - x for x in a])}
    interval = stats.t.interval(0.95, 5, np.mean(a), stats.sem(a))
    one = next(one for one in found.methods if one.method == "a")
    assert (one.low, one.high) == (pytest.approx(interval[0]), 2.0)  # cut at the last rank


def test_a_method_with_one_set_for_all_seeds_is_ranked_in_each(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [60.0]])
    made_by = folder.distill_spec("herding")
    images = folder.distill(made_by)
    for seed, accuracy in ((0, 70.0), (1000, 70.4)):  # the students of set seeds 0 and 1
        folder.student(folder.evaluate_spec(made_by, seed=seed), "herding", accuracy, images=images, made_by=made_by)
    assert of(found_in(folder)) == {"dmgd": (1.5, [1.0, 2.0]), "herding": (1.5, [2.0, 1.0])}


def test_only_methods_in_all_common_cells_are_compared_and_the_others_are_named(folder: Any) -> None:
    for ipc in (1, 10):
        folder.method("a", [[90.0], [80.0]], ipc=ipc)
        folder.method("b", [[80.0], [70.0]], ipc=ipc)
    folder.method("c", [[95.0]], ipc=10)
    folder.method("a", [[50.0]], ipc=50)
    folder.method("full", [[99.0]], ipc=None)
    found = found_in(folder)
    assert [one.method for one in found.methods] == ["a", "b"]
    assert [(one.method, one.cells) for one in found.left_out] == [("c", 1)]
    assert (found.cells, found.cells_left_out) == (4, 1)
    assert all(one.low is None for one in found.methods)  # two clusters


def test_nothing_in_common_is_no_comparison(folder: Any) -> None:
    folder.method("a", [[90.0]], ipc=1)
    folder.method("b", [[80.0]], ipc=10)
    found = found_in(folder)
    assert (found.methods, found.clusters, found.p_value, found.pairings) == ([], [], None, [])
    with pytest.raises(UsageError, match="no two methods have students of one seed"):
        CliRunner().invoke(leaderboard_app, ["--runs", str(folder.out), "--mean-rank"], catch_exceptions=False)


def test_the_p_value_is_friedmans_by_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = np.array([[1.0, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3]])
    observed = stats.friedmanchisquare(*ranks.T).statistic
    orders = np.array(list(permutations((1.0, 2, 3))))
    # By symmetry the first cluster may stay as it is: 6³ orders of the others.
    exact = [
        stats.friedmanchisquare(*np.stack([ranks[0], a, b, c]).T).statistic >= observed - 1e-9
        for a in orders
        for b in orders
        for c in orders
    ]
    monkeypatch.setattr(mean_rank, "PERMUTATIONS", 4000)
    assert mean_rank._permutation_p_value(ranks) == pytest.approx(np.mean(exact), abs=0.02)


def test_a_win_is_a_difference_that_the_test_separates(folder: Any) -> None:
    rng = np.random.default_rng(0)
    easiness = rng.random(N_TEST)

    def sets(lift: float) -> list[list[np.ndarray]]:
        return [[rng.random(N_TEST) < np.clip(easiness + lift, 0, 1)] for _ in range(4)]

    for ipc, lift in ((1, 0.3), (10, -0.3), (20, 0.3), (50, 0.0)):
        folder.method("a", sets(lift), ipc=ipc)
        folder.method("b", sets(0.0), ipc=ipc)
    folder.method("a", sets(0.5)[:1], ipc=100)
    folder.method("b", sets(0.0)[:1], ipc=100)
    folder.method("full", [[99.0]], ipc=None)
    tables = build(rows.read(folder.out)).tables
    (pair,) = pairings(tables)
    assert pair in (
        Pairing(a="a", b="b", wins=2, ties=1, losses=1, not_tested=1),
        Pairing(a="b", b="a", wins=1, ties=1, losses=2, not_tested=1),
    )
    shown = CliRunner().invoke(leaderboard_app, ["--runs", str(folder.out), "--mean-rank"]).output
    line = next(line for line in shown.splitlines() if line.startswith("a "))
    assert line.split()[-3:] == ["2", "1", "1"]


def test_contestants_are_told_apart_by_prior_and_held_together_over_ipc(folder: Any) -> None:
    for ipc in (1, 10):
        folder.method("dmgd", [[80.0], [81.0]], ipc=ipc, prior="ab" * 32, params={"steps": ipc})
        folder.method("random", [[70.0], [71.0]], ipc=ipc)
    folder.method("dmgd", [[60.0], [61.0]], ipc=10, prior="cd" * 32)
    found = {one.name: sorted(one.rows) for one in methods_as_run(build(rows.read(folder.out)).tables)}
    assert found.pop("random") == [0, 1]
    assert all(name.startswith("dmgd · prior") for name in found)
    assert sorted(found.values()) == [[0, 1], [1]]


def test_namesakes_in_one_table_are_told_apart_by_parameters(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [81.0]], params={"steps": 1})
    folder.method("dmgd", [[60.0], [61.0]], params={"steps": 2})
    found = methods_as_run(build(rows.read(folder.out)).tables)
    assert len({one.name for one in found}) == 2
    assert sorted(index for one in found for index in one.rows.values()) == [0, 1]


def test_mean_ranks_are_written_as_data(folder: Any, tmp_path: Any) -> None:
    folder.method("a", [[90.0], [80.0], [70.0]])
    folder.method("b", [[80.0], [70.0], [60.0]])
    ran = CliRunner().invoke(leaderboard_app, ["--runs", str(folder.out), "--mean-rank", "--json"])
    assert MeanRanks.model_validate_json(ran.output) == found_in(folder)
    file = tmp_path / "ranks.json"
    CliRunner().invoke(leaderboard_app, ["--runs", str(folder.out), "--mean-rank", "--to", str(file)])
    assert MeanRanks.model_validate_json(file.read_text()) == found_in(folder)

"""DD-Ranking's scores at values worked out by hand, from results folders made for it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ddbench.benchmark.core.spec import ProtocolSpec
from ddbench.reports.quality.ranking_scores import ScoreTable, normalised, score_tables
from ddbench.reports.results import groups, rows

PLAIN = ProtocolSpec(name="quick", version=1, overrides={"augmentation": False}, hash="22" * 32)
SOFT = ProtocolSpec(name="soft-rded-half", version=1, overrides={}, hash="33" * 32)


def tables(folder: Any) -> list[ScoreTable]:
    results = rows.read(folder.out)
    return score_tables(results.store, groups.group(results))


def of(table: ScoreTable, method: str) -> Any:
    return next(row for row in table.rows if row.method == method)


def test_the_normalisation_reaches_from_0_to_100() -> None:
    assert normalised(-1) == pytest.approx(0)
    assert normalised(1) == pytest.approx(100)
    assert normalised(0) == pytest.approx(26.894142, abs=1e-6)  # 100 / (e + 1)
    assert normalised(0.1) > normalised(0)


def test_lrs_is_the_formula_with_fractions(folder: Any) -> None:
    folder.method("random", [[40.0], [44.0]])
    folder.method("full", [[90.0]], ipc=None)
    folder.method("dmgd", [[60.0], [66.0]])
    (table,) = tables(folder)
    assert (table.name, table.hard, table.unaugmented) == ("lrs@quick@1", "quick@1, convnet3", None)
    score = of(table, "dmgd")
    assert (score.hlr, score.ior) == (pytest.approx(0.90 - 0.63), pytest.approx(0.63 - 0.42))
    gain = 0.5 * 0.21 - 0.5 * 0.27
    expected = 100 * (math.exp(gain) - math.exp(-1)) / (math.e - math.exp(-1))
    assert score.lrs.value == pytest.approx(expected)
    assert score.lrs.low < expected < score.lrs.high
    assert (score.sets, score.ars) == (2, None)
    reference = of(table, "random")
    assert reference.ior == 0
    assert reference.lrs.value == pytest.approx(normalised(-0.5 * 0.48))
    assert [row.method for row in table.rows] == ["dmgd", "random"], "the whole training set is no contestant"
    assert "quick[augmentation=false]@1" in table.notes[0]


def test_without_the_whole_set_there_is_no_lrs(folder: Any) -> None:
    folder.method("random", [[40.0], [44.0]])
    folder.method("dmgd", [[60.0], [66.0]])
    (table,) = tables(folder)
    score = of(table, "dmgd")
    assert (score.lrs, score.hlr) == (None, None)
    assert score.ior == pytest.approx(0.21)
    assert any("--method full" in note for note in table.notes)


def test_without_random_there_is_no_table(folder: Any) -> None:
    folder.method("full", [[90.0]], ipc=None)
    folder.method("dmgd", [[60.0], [66.0]])
    assert tables(folder) == []


def test_ars_joins_the_protocol_with_and_without_augmentation(folder: Any) -> None:
    for protocol, random, dmgd in ((None, 40.0, 60.0), (PLAIN, 30.0, 34.0)):
        given = {} if protocol is None else {"protocol": protocol}
        folder.method("random", [[random], [random + 2]], **given)
        folder.method("dmgd", [[dmgd], [dmgd + 2]], **given)
    (table,) = tables(folder)
    assert table.unaugmented == "quick[augmentation=false]@1"
    assert of(table, "dmgd").ars.value == pytest.approx(normalised(0.5 * 0.20 + 0.5 * 0.04))
    assert of(table, "random").ars.value == pytest.approx(normalised(0))
    assert of(table, "random").ars.low is None


def test_soft_labels_take_hlr_from_a_protocol_with_hard_ones(folder: Any) -> None:
    folder.method("random", [[40.0], [44.0]])
    folder.method("full", [[90.0]], ipc=None)
    folder.method("dmgd", [[60.0], [66.0]])
    for label, accuracies in (("random", [50.0, 50.0]), ("dmgd", [70.0, 74.0]), ("dit", [60.0, 61.0])):
        for seed, accuracy in enumerate(accuracies):
            made_by = folder.distill_spec(label, seed=seed)
            images = folder.distill(made_by, label)
            spec = folder.evaluate_spec(made_by, seed=1000 * seed, protocol=SOFT, student="resnet18_bn")
            spec = spec.model_copy(update={"teacher_sha256": "ab" * 32})
            folder.student(spec, label, accuracy, images=images, made_by=made_by)
    hard, soft = tables(folder)
    assert hard.name == "lrs@quick@1"
    assert (soft.name, soft.hard) == ("lrs@soft-rded-half@1", "quick@1, convnet3")
    score = of(soft, "dmgd")
    assert (score.ior, score.hlr) == (pytest.approx(0.72 - 0.50), pytest.approx(0.90 - 0.63))
    assert score.lrs.value == pytest.approx(normalised(0.5 * 0.22 - 0.5 * 0.27))
    assert of(soft, "random").lrs.value == pytest.approx(normalised(-0.5 * 0.48))
    assert of(soft, "dit").lrs is None, "it has no students under hard labels"
    assert "[augmentation=false,cutmix=false]" in soft.notes[0]


def test_rows_of_one_name_stay_apart(folder: Any) -> None:
    folder.method("random", [[40.0], [44.0]])
    folder.method("full", [[90.0]], ipc=None)
    for prior, accuracy in (("aa" * 32, 60.0), ("bb" * 32, 50.0)):
        folder.method("dmgd", [[accuracy], [accuracy]], prior=prior)
    (table,) = tables(folder)
    both = [row for row in table.rows if row.method == "dmgd"]
    assert [row.ior for row in both] == [pytest.approx(0.18), pytest.approx(0.08)]
    assert "aaaaaaaa" in both[0].qualifiers
    assert of(table, "random").qualifiers == []

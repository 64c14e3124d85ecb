"""EL2N, forgetting, AUM and CCS: scores against a second count, selections against the published rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from ddbench.benchmark.cells.dynamics import Dynamics
from ddbench.datasets.base import ArraySource
from ddbench.methods.base import DistillTask
from ddbench.methods.classifier import ClassifierRecipe
from ddbench.methods.dynamics.choice import ends, stratified
from ddbench.methods.dynamics.method import AUM, CCS, EL2N, Forgetting, ScoredCoreset

Make = Callable[..., DistillTask]
CLASSES = ("a", "b")
SCORES = st.lists(st.floats(-5, 5), min_size=1, max_size=60)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_outputs_in_training() -> None:
    """Five images, three classes, four epochs in orders of their own; counted again image by image."""
    rng = np.random.default_rng(0)
    labels, outputs = np.array([0, 1, 2, 1, 0]), 3 * rng.standard_normal((4, 5, 3))
    recorded = Dynamics(5, early_epochs=2, device=torch.device("cpu"))
    for epoch in range(1, 5):
        order = rng.permutation(5)
        if epoch == 3:
            order = order[:4]  # an epoch may leave one out
        network = nn.Identity()
        forward = recorded.watched(network, torch.from_numpy(order), torch.from_numpy(labels), epoch)
        for batch in np.array_split(order, 2):
            given = torch.from_numpy(outputs[epoch - 1, batch]).requires_grad_()
            assert forward(given) is given
        outputs[epoch - 1, np.setdiff1d(np.arange(5), order)] = np.nan
    el2n, aum, forgotten = np.zeros(5), np.zeros(5), np.zeros(5)
    for i, label in enumerate(labels):
        was_right = False
        for epoch, row in enumerate(outputs[:, i], 1):
            if np.isnan(row).any():
                continue
            p = np.exp(row) / np.exp(row).sum()
            el2n[i] += np.linalg.norm(p - np.eye(3)[label]) * (epoch <= 2)
            aum[i] += p[label] - max(p[j] for j in range(3) if j != label)
            right = row.argmax() == label
            forgotten[i] += was_right and not right
            was_right = right
    scores = {name: values.numpy() for name, values in recorded.scores().items()}
    assert scores["el2n"] == pytest.approx(el2n, rel=1e-5)
    assert scores["aum"] == pytest.approx(aum, rel=1e-5)
    assert scores["forgetting"].tolist() == forgotten.tolist()
    assert forgotten.sum() > 0
    again = Dynamics(5, 2, torch.device("cpu"))
    again.load(recorded.state())
    assert all(torch.equal(again.scores()[name], values) for name, values in recorded.scores().items())


# Selections -----------------------------------------------------------------------------------------------------------


@given(SCORES, st.integers(1, 60), st.booleans())
def test_one_end_is_kept_in_order_and_larger_sets_begin_with_smaller_ones(
    scores: list[float], count: int, highest: bool
) -> None:
    found = ends(np.array(scores), count, highest=highest)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i] if highest else scores[i], i))[:count]
    assert found.tolist() == expected


@given(SCORES, st.data())
def test_strata_get_equal_shares_of_what_is_left(scores: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    share, strata = data.draw(st.sampled_from([0.0, 0.3, 0.9])), data.draw(st.sampled_from([1, 3, 50]))
    values = np.array(scores)
    found = stratified(values, count, left_out_share=share, strata=strata, stream=generator())
    assert len(set(found.tolist())) == count
    left_out = min(int(share * len(scores)), len(scores) - count)
    hardest = np.argsort(values, kind="stable")[:left_out]
    assert not set(found.tolist()) & set(hardest.tolist())
    rest = [i for i in range(len(scores)) if i not in set(hardest.tolist())]
    low, high = min(scores[i] for i in rest), max(scores[i] for i in rest)
    high = max(1.0001 * high, float(np.nextafter(high, np.inf)))
    edges = np.linspace(low, high, strata + 1)

    def stratum(i: int) -> int:
        return next((s for s in range(strata) if edges[s] <= scores[i] < edges[s + 1]), strata - 1)

    sizes = [sum(stratum(i) == s for i in rest) for s in range(strata)]
    still, budgets = count, [0] * strata
    for drawn_from, s in enumerate(sorted(range(strata), key=lambda s: sizes[s])):
        budgets[s] = min(sizes[s], still // (strata - drawn_from))
        still -= budgets[s]
    assert [sum(stratum(int(i)) == s for i in found) for s in range(strata)] == budgets


def test_strata_are_drawn_from_at_random() -> None:
    scores = np.linspace(0, 1, 200)
    drawn = [stratified(scores, 20, left_out_share=0.3, strata=4, stream=generator(seed)) for seed in (0, 0, 1)]
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()
    assert min(drawn[0]) >= 60
    assert [int(((drawn[0] - 60) // 35 == quarter).sum()) for quarter in range(4)] == [5, 5, 5, 5]


# Methods --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dynamics_task(make_task: Make, random_images: Callable[..., ArraySource]) -> Make:
    scores = {
        name: np.random.default_rng(i).standard_normal(24) for i, name in enumerate(("el2n", "aum", "forgetting"))
    }

    def make(recipes: list[ClassifierRecipe] | None = None, **given: Any) -> DistillTask:
        def trained(recipe: ClassifierRecipe) -> Any:
            if recipes is not None:
                recipes.append(recipe)
            return SimpleNamespace(dynamics=scores)

        task = make_task(random_images(CLASSES), CLASSES, **given)
        return dataclasses.replace(task, trained_classifier=trained)

    return make


def kept(method: ScoredCoreset, task: DistillTask, class_index: int) -> list[int]:
    method.prepare(task)
    return [int(i) for i in method.choose(task, class_index)]


@pytest.mark.parametrize(
    ("method", "score", "highest"),
    [
        (EL2N(), "el2n", True),
        (EL2N(EL2N.Params(keep="lowest")), "el2n", False),
        (Forgetting(), "forgetting", True),
        (AUM(), "aum", False),
        (AUM(AUM.Params(keep="highest")), "aum", True),
    ],
)
def test_each_class_is_ranked_by_itself(dynamics_task: Make, method: ScoredCoreset, score: str, highest: bool) -> None:
    task = dynamics_task(ipc=5)
    method.prepare(task)
    scores = method._scores
    for c in (0, 1):
        members = list(range(12 * c, 12 * c + 12))
        expected = sorted(members, key=lambda i: scores[i], reverse=highest)[:5]
        assert kept(method, task, c) == expected
    assert not method.uses_seed


def test_ccs_leaves_the_hardest_out_and_follows_the_seed(dynamics_task: Make) -> None:
    method = CCS(CCS.Params(left_out_share=0.5, strata=2))
    drawn = [kept(method, dynamics_task(ipc=4, seed=seed), 1) for seed in range(8)]
    hardest = set((12 + np.argsort(method._scores[12:])[:6]).tolist())
    assert all(len(set(one)) == 4 and not set(one) & hardest for one in drawn)
    assert len({tuple(one) for one in drawn}) > 1


def test_one_training_is_recorded_for_all_that_ask_alike(dynamics_task: Make) -> None:
    recipes: list[ClassifierRecipe] = []
    for method in (EL2N(), Forgetting(), AUM(), CCS()):
        method.prepare(dynamics_task(recipes))
    assert len(set(recipes)) == 1
    assert recipes[0] == ClassifierRecipe(
        network="timm:resnet34", image_size=8, epochs=60, learning_rate=0.1, batch_size=256, schedule="cosine",
        records_dynamics=True,
    )  # fmt: skip
    EL2N(EL2N.Params(early_epochs=3)).prepare(dynamics_task(recipes))
    assert recipes[-1].early_epochs == 3


def test_a_recipe_that_records_nothing_is_named_as_before() -> None:
    recipe = ClassifierRecipe(network="convnet3", image_size=8, epochs=1)
    assert not {"records_dynamics", "early_epochs"} & recipe.model_dump(mode="json").keys()
    assert recipe.model_copy(update={"records_dynamics": True}).model_dump(mode="json")["records_dynamics"] is True


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"network": "efficientnet_lite0"}, "comes trained"),
        ({"network": "resnet99"}, "expected resnet_ap10"),
        ({"cutmix": True}, "cutmix"),
        ({"epochs": 5}, "early_epochs: 10 of a training of 5"),
    ],
)
def test_what_cannot_be_recorded_is_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EL2N.Params(**params)

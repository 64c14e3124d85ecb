"""Semantic Matching: the three stages, and the statistics of the perturbed label."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ddbench.methods.diffusion.guidance import Step
from ddbench.methods.dmgd.semantic import SemanticMatching

B, D, S = 5, 64, 50
GENERATOR = torch.Generator().manual_seed(0)
PAIR = torch.randn(B, 2, D, generator=GENERATOR) * 0.3 + 0.1
OTHER = torch.randn(B, D, generator=GENERATOR)
NOISE = torch.rand(S, B, 2, D, generator=GENERATOR)


def term(**settings: Any) -> SemanticMatching:
    defaults = {"noise_weight": 0.06, "mix_weight": 0.01, "lower": 500, "upper": 900}
    return SemanticMatching(NOISE, OTHER, **(defaults | settings))


def at(t: int, n: int = 7) -> Step:
    return Step(n=n, k=S - 1 - n, t=t)


def by_hand(pair: Tensor, u: Tensor, r: Tensor, a: float, b: float, noise_weight: float, mix_weight: float) -> Tensor:
    """One image's perturbed pair by the formulas, in float64."""
    pair, u, r = pair.double(), u.double(), r.double()
    q = a * pair + b * (noise_weight * u + mix_weight * r)
    return (q - q.mean()) / q.std() * pair.std() + pair.mean()


@pytest.mark.parametrize(("t", "fraction"), [(999, 0), (901, 0), (900, 0), (700, 0.5), (600, 0.75), (500, 1), (0, 1)])
def test_stages(t: int, fraction: float) -> None:
    assert term().clean_fraction(t) == fraction


@pytest.mark.parametrize("t", [499, 500, 0])
def test_the_label_is_the_class_in_refinement(t: int) -> None:
    assert torch.equal(term().label(at(t), PAIR), PAIR)


@pytest.mark.parametrize("t", [520, 700, 899, 900, 917, 999])
@pytest.mark.parametrize("weights", ["sqrt", "linear"])
def test_formula(t: int, weights: Any) -> None:
    fraction = max(0.0, (900 - t) / 400)
    a, b = (math.sqrt(fraction), math.sqrt(1 - fraction)) if weights == "sqrt" else (fraction, 1 - fraction)
    mix = 0.0 if t > 900 else 0.01  # no other class in exploration
    changed = term(weights=weights).label(at(t), PAIR)
    for row in range(B):
        expected = by_hand(PAIR[row], NOISE[7, row], OTHER[row], a, b, 0.06, mix)
        torch.testing.assert_close(changed[row].double(), expected, rtol=0, atol=1e-5)


def test_moments_are_those_of_the_clean_pair() -> None:
    for t in (600, 900, 950):
        changed = term().label(at(t), PAIR).flatten(1)
        torch.testing.assert_close(changed.mean(1), PAIR.flatten(1).mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(changed.std(1), PAIR.flatten(1).std(1), rtol=1e-4, atol=1e-5)
        assert (changed - PAIR.flatten(1)).abs().max() > 0.01


def test_in_exploration_the_noise_weight_has_no_effect() -> None:
    torch.testing.assert_close(term(noise_weight=1e-3).label(at(950), PAIR), term(noise_weight=10).label(at(950), PAIR))


def test_without_spread_the_label_is_kept() -> None:
    changed = term(noise_weight=0).label(at(950), PAIR)
    assert torch.equal(changed, PAIR)
    # At λ = 0 but inside the soft stage the other class remains, and it has spread.
    assert (term(noise_weight=0).label(at(900), PAIR) - PAIR).abs().max() > 0.1


def test_no_exploration_keeps_the_class_above_the_upper_bound() -> None:
    gentle = term(exploration=False)
    assert torch.equal(gentle.label(at(950), PAIR), PAIR)
    for t in (900, 700):  # the bound itself belongs to the soft stage
        assert torch.equal(gentle.label(at(t), PAIR), term().label(at(t), PAIR))


def test_no_refinement_goes_down_to_zero() -> None:
    dynamic = term(lower=0)
    assert dynamic.clean_fraction(450) == 0.5
    assert dynamic.clean_fraction(0) == 1
    assert not torch.equal(dynamic.label(at(20), PAIR), PAIR)


def test_null_row_can_be_left_alone() -> None:
    changed = term(perturb_null=False).label(at(700), PAIR)
    assert torch.equal(changed[:, 1], PAIR[:, 1])
    a = b = math.sqrt(0.5)
    for row in range(B):  # the moments are those of the class row alone
        expected = by_hand(PAIR[row, 0], NOISE[7, row, 0], OTHER[row], a, b, 0.06, 0.01)
        torch.testing.assert_close(changed[row, 0].double(), expected, rtol=0, atol=1e-5)


def test_without_renormalisation_it_is_the_plain_mixture() -> None:
    changed = term(renormalise=False).label(at(700), PAIR)
    expected = math.sqrt(0.5) * (PAIR + 0.06 * NOISE[7] + 0.01 * OTHER[:, None])
    torch.testing.assert_close(changed, expected)


def test_each_step_has_its_own_noise() -> None:
    assert not torch.equal(term().label(at(950, n=1), PAIR), term().label(at(950, n=2), PAIR))

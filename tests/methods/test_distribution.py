"""Distribution Matching against POT's plain solvers, closed forms and finite differences of a second implementation."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import ot
import pytest
import torch

from ddbench.methods.diffusion.guidance import State, Step
from ddbench.methods.dmgd.distribution import DistributionMatching, Support, transport_plan

ALPHA_BAR = 0.3


def random_problem(rows: int, points: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Costs (rows, points) as between points on a sphere, and masses (points,)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1.6, (rows, points)), rng.dirichlet(np.full(points, 3.0))


def plan_of(cost: np.ndarray, masses: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    return transport_plan(torch.from_numpy(cost)[None], torch.from_numpy(masses)[None], epsilon, iterations)[0].numpy()


@pytest.mark.parametrize("rows", [1, 2, 7, 30])
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_plan_equals_pot_after_as_many_scalings(rows: int, iterations: int) -> None:
    cost, masses = random_problem(rows, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT says that it has not converged: that is the point
        expected = ot.sinkhorn(
            masses, np.full(rows, 1 / rows), cost.T, 0.1, numItermax=iterations, stopThr=0, warn=False
        ).T
    np.testing.assert_allclose(plan_of(cost, masses, 0.1, iterations), expected, rtol=1e-10)


@pytest.mark.parametrize("epsilon", [0.1, 0.05, 0.01])
def test_converged_plan_equals_pot(epsilon: float) -> None:
    cost, masses = random_problem(6, 10, seed=1)
    expected = ot.sinkhorn(
        masses, np.full(6, 1 / 6), cost.T, epsilon, method="sinkhorn_log", numItermax=20000, stopThr=1e-13
    ).T
    plan = plan_of(cost, masses, epsilon, 20000)
    np.testing.assert_allclose(plan, expected, atol=1e-9)
    np.testing.assert_allclose(plan.sum(1), np.full(6, 1 / 6), atol=1e-9)


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 1.0])
def test_plan_of_two_points_by_hand(epsilon: float) -> None:
    """Rows and columns of mass ½ at distances 0 and c: ½ / (1 + exp(-c/ε)) on the diagonal, whatever the scalings."""
    c = 0.3
    stays, moves = 0.5 / (1 + np.exp(-c / epsilon)), 0.5 / (1 + np.exp(c / epsilon))
    for iterations in (1, 5, 12):
        plan = plan_of(np.array([[0, c], [c, 0]]), np.array([0.5, 0.5]), epsilon, iterations)
        np.testing.assert_allclose(plan, [[stays, moves], [moves, stays]], rtol=1e-12)


def test_the_scalings_go_on_where_the_plan_is_nearly_right() -> None:
    """Their number is part of the method; POT by itself would stop after the first here."""
    cost, masses = random_problem(3, 4)
    off = [np.abs(plan_of(1 + 1e-6 * cost, masses, 0.1, n).sum(1) - 1 / 3).max() for n in (1, 5)]
    assert 1e-10 < off[0] < 1e-6
    assert off[1] < 1e-2 * off[0]


def test_small_regularisation_does_not_underflow() -> None:
    cost, masses = random_problem(4, 10)
    assert np.exp(-cost.astype(np.float32) / 0.005).min() == 0  # the plain form has empty rows of zeros here
    plan = transport_plan(torch.from_numpy(cost).float()[None], torch.from_numpy(masses).float()[None], 0.005, 200)[0]
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(0).double(), torch.from_numpy(masses), rtol=1e-3, atol=1e-6)


def objective(
    x0: np.ndarray, memory: np.ndarray, points: np.ndarray, masses: np.ndarray, plan: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """L of one class and its plan, by plain scalings in NumPy; with a given plan, L for that plan."""
    a = np.concatenate([memory, x0])
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (a, points))
    cost = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    if plan is None:
        plan = np.exp(-cost / 0.1)
        for _ in range(5):
            plan = plan * (1 / len(a) / plan.sum(1))[:, None]
            plan = plan * (masses / plan.sum(0))[None]
    return float((plan * cost).sum()), plan


def problem(classes: int, memory: int, current: int, points: int = 6, size: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    shape = (classes * current, 3, 2, 2)
    return {
        "z": rng.normal(size=shape),
        "epsilon": 0.3 * rng.normal(size=shape),
        "memory": rng.normal(size=(classes, memory, size)),
        "points": rng.normal(size=(classes, points, size)),
        "masses": rng.dirichlet(np.full(points, 3.0), classes),
    }


def term_and_state(p: dict[str, Any], k: int = 40, **settings: Any) -> tuple[DistributionMatching, State]:
    tensors = {key: torch.from_numpy(value) for key, value in p.items()}
    defaults = {"scale": 2.0, "epsilon": 0.1, "iterations": 5, "window": (30, 45)}
    term = DistributionMatching(
        Support(tensors["points"], tensors["masses"]), tensors["memory"], **(defaults | settings)
    )
    z, epsilon = tensors["z"], tensors["epsilon"]
    x0 = z / ALPHA_BAR**0.5 - (1 / ALPHA_BAR - 1) ** 0.5 * epsilon
    sigma = torch.linspace(0.1, 0.3, z.numel(), dtype=torch.float64).view_as(z)
    return term, State(Step(9, k, 800), z, epsilon, x0, sigma, ALPHA_BAR)


def finite_differences(p: dict[str, Any], hold_plan: bool) -> np.ndarray:
    """∂L/∂z of each class by central differences, ε of the network held constant."""
    classes = len(p["points"])

    def values(z: np.ndarray, plans: list[np.ndarray] | None) -> list[tuple[float, np.ndarray]]:
        x0 = z / ALPHA_BAR**0.5 - (1 / ALPHA_BAR - 1) ** 0.5 * p["epsilon"]
        x0 = x0.reshape(classes, -1, p["points"].shape[2])
        return [
            objective(x0[g], p["memory"][g], p["points"][g], p["masses"][g], None if plans is None else plans[g])
            for g in range(classes)
        ]

    plans = [plan for _, plan in values(p["z"], None)] if hold_plan else None
    gradient, step = np.zeros_like(p["z"]), 1e-5
    for index in np.ndindex(p["z"].shape):
        sides = []
        for sign in (1, -1):
            moved = p["z"].copy()
            moved[index] += sign * step
            sides.append(sum(value for value, _ in values(moved, plans)))
        gradient[index] = (sides[0] - sides[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize(("memory", "current"), [(0, 1), (3, 1), (0, 4), (2, 3)])
@pytest.mark.parametrize("gradient", ["unrolled", "envelope"])
def test_shift_is_the_gradient(memory: int, current: int, gradient: Any) -> None:
    p = problem(2, memory, current)
    term, state = term_and_state(p, gradient=gradient)
    expected = -2.0 * state.sigma.numpy() * finite_differences(p, hold_plan=gradient == "envelope")
    shift = term.shift(state)
    np.testing.assert_allclose(shift, expected, rtol=1e-6, atol=1e-9)
    assert np.abs(expected).max() > 1e-4
    for g in range(2):
        x0 = state.x0.reshape(2, current, -1)[g].numpy()
        assert term.costs[0][g] == pytest.approx(objective(x0, p["memory"][g], p["points"][g], p["masses"][g])[0])


def test_the_two_gradients_differ_unless_one_row_is_left() -> None:
    for memory, same in ((3, False), (0, True)):
        p = problem(2, memory, 1)
        both = [term_and_state(p, gradient=gradient) for gradient in ("unrolled", "envelope")]
        shifts = [term.shift(state) for term, state in both]
        assert torch.allclose(*shifts) == same


def test_without_sigma_and_by_scale() -> None:
    p = problem(2, 2, 1)
    (full, state), (bare, _), (double, _) = (
        term_and_state(p, **settings) for settings in ({}, {"times_sigma": False}, {"scale": 4.0})
    )
    torch.testing.assert_close(full.shift(state), bare.shift(state) * state.sigma)
    torch.testing.assert_close(double.shift(state), 2 * full.shift(state))


def test_window_is_inclusive() -> None:
    p = problem(1, 0, 1)
    acts = [k for k in range(50) if (pair := term_and_state(p, k=k))[0].shift(pair[1]) is not None]
    assert acts == list(range(30, 46))


def test_classes_do_not_touch_each_other() -> None:
    p = problem(3, 2, 2)
    term, state = term_and_state(p)
    together = term.shift(state)
    for g in range(3):
        alone = {key: value[g : g + 1] for key, value in p.items() if key in ("memory", "points", "masses")}
        alone |= {key: p[key][2 * g : 2 * g + 2] for key in ("z", "epsilon")}
        single, own = term_and_state(alone)
        rows = slice(2 * g, 2 * g + 2)
        torch.testing.assert_close(single.shift(replace(own, sigma=state.sigma[rows])), together[rows])


def test_on_a_support_point_the_shift_is_finite() -> None:
    p = problem(1, 2, 1)
    term, state = term_and_state(p)
    shift = term.shift(replace(state, x0=torch.from_numpy(p["points"][:, 0]).view_as(state.x0)))
    assert shift.isfinite().all()
    assert shift.abs().max() > 0


def test_a_step_along_the_shift_lowers_the_cost() -> None:
    p = problem(2, 3, 1)
    term, state = term_and_state(p, scale=0.1)
    shift = term.shift(state)
    moved = p | {"z": p["z"] + shift.numpy()}
    after, state_after = term_and_state(moved)
    after.shift(state_after)
    assert (after.costs[0] < term.costs[0]).all()

"""Minimax's losses against hand-computed memories, and DiT's training loss against torch's distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.minimax.denoising import DenoisingLoss, discretised_log_likelihood
from ddbench.methods.minimax.memories import Memory, minimax_losses

SCHEDULE = NoiseScheduleMetadata(steps=1000, beta_start=1e-4, beta_end=0.02)


def at(*degrees: float) -> Tensor:
    """Vectors in the plane: their cosines are those of the angles between them, whatever their lengths."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1) * torch.arange(1, len(degrees) + 1)[:, None]


def cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def test_the_losses_are_those_of_the_extreme_pairs() -> None:
    real, generated = Memory(4), Memory(4)
    real.push([0, 0, 1], at(0, 90, 10))
    generated.push([0, 0, 1], at(60, 200, 100))
    # Class 0: predictions at 20° and 50°. Farthest real pair 70° (20°, 90°); nearest earlier prediction 10° (50°, 60°).
    # Class 1: a prediction at 40°. 30° from its real one, 60° from its earlier prediction.
    # Class 2: no memory; counts among the three classes and adds nothing.
    representativeness, diversity = minimax_losses(at(20, 50, 40, 0), [0, 0, 1, 2], real, generated)
    assert representativeness.item() == pytest.approx(((1 - cos(70)) + (1 - cos(30))) / 3, abs=1e-6)
    assert diversity.item() == pytest.approx((cos(10) + cos(60)) / 3, abs=1e-6)


def test_their_gradients_turn_predictions_the_right_way() -> None:
    real, generated = Memory(4), Memory(4)
    real.push([0], at(90))
    generated.push([0], at(-30))
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        x0 = at(30).requires_grad_()
        losses = minimax_losses(x0, [0], real, generated)
        (weights[0] * losses[0] + weights[1] * losses[1]).backward()
        assert x0.grad is not None
        moved = x0.detach() - 0.1 * x0.grad
        # Towards the real one at 90°, and away from the earlier prediction at -30°.
        assert torch.rad2deg(torch.atan2(moved[0, 1], moved[0, 0])) > 30 + 1


def test_the_first_batch_has_no_memory_to_compare_with() -> None:
    losses = minimax_losses(at(0, 1).requires_grad_(), [0, 1], Memory(4), Memory(4))
    assert [loss.item() for loss in losses] == [0, 0]


def test_a_memory_keeps_the_newest_of_each_class() -> None:
    memory = Memory(3)
    one = torch.arange(1.0, 8)[:, None].requires_grad_()
    memory.push([0, 1, 0, 0], one[:4])
    memory.push([0, 1, 0], one[4:])
    assert memory.of_class[0].flatten().tolist() == [4, 5, 7]
    assert memory.of_class[1].flatten().tolist() == [2, 6]
    assert not memory.of_class[0].requires_grad
    memory.push([2] * 5, torch.arange(5.0)[:, None])
    assert memory.of_class[2].flatten().tolist() == [2, 3, 4]


def drawn(t: list[int], learned: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Network output, x, x_t, noise and t."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(t), 2, 4, 4)
    x, noise = torch.rand(shape, generator=generator) * 2 - 1, torch.randn(shape, generator=generator)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    signal = torch.cumprod(1 - beta, 0)[t].float().view(-1, 1, 1, 1)
    output = torch.randn((len(t), 4 if learned else 2, 4, 4), generator=generator)
    return output, x, signal.sqrt() * x + (1 - signal).sqrt() * noise, noise, torch.tensor(t)


def test_without_a_learned_variance_it_is_the_error_of_epsilon() -> None:
    output, x, x_t, noise, t = drawn([3, 998], learned=False)
    denoised = DenoisingLoss(SCHEDULE)(output, x, x_t, noise, t)
    torch.testing.assert_close(denoised.loss, torch.nn.functional.mse_loss(output, noise))
    exact = DenoisingLoss(SCHEDULE)(noise, x, x_t, noise, t)
    assert exact.loss == 0
    torch.testing.assert_close(exact.x0, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("time", [1, 400, 999])
def test_the_bound_is_the_kl_divergence_of_the_steps(time: int) -> None:
    output, x, x_t, noise, t = drawn([time])
    epsilon, v = (part.double() for part in output.chunk(2, dim=1))
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    signal = torch.cumprod(1 - beta, 0)
    now, before, b = signal[time], signal[time - 1], beta[time]
    tilde = b * (1 - before) / (1 - now)

    def posterior_mean(clean: Tensor) -> Tensor:
        return (before.sqrt() * b * clean + (1 - b).sqrt() * (1 - before) * x_t.double()) / (1 - now)

    predicted = (x_t.double() - (1 - now).sqrt() * epsilon) / now.sqrt()
    share = (v + 1) / 2
    std = (share * b.log() + (1 - share) * tilde.log()).exp().sqrt()
    kl = kl_divergence(Normal(posterior_mean(x.double()), tilde.sqrt()), Normal(posterior_mean(predicted), std))
    expected = (epsilon - noise).square().mean() + kl.mean() / math.log(2)
    found = DenoisingLoss(SCHEDULE)(output, x, x_t, noise, t).loss
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_bound_trains_the_variance_alone() -> None:
    output, x, x_t, noise, t = drawn([0, 5, 700])
    output.requires_grad_()
    DenoisingLoss(SCHEDULE)(output, x, x_t, noise, t).loss.backward()
    assert output.grad is not None
    of_epsilon, of_v = output.grad.chunk(2, dim=1)
    torch.testing.assert_close(of_epsilon, 2 * (output.detach()[:, :2] - noise) / noise.numel())
    assert (of_v != 0).all(dim=1).any()


def test_the_predicted_latent_has_a_gradient() -> None:
    output, x, x_t, noise, t = drawn([500])
    output.requires_grad_()
    DenoisingLoss(SCHEDULE)(output, x, x_t, noise, t).x0.sum().backward()
    assert output.grad is not None
    assert (output.grad[:, :2] < 0).all()
    assert (output.grad[:, 2:] == 0).all()


def test_the_likelihood_of_the_levels_sums_to_one() -> None:
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, std in ((0.1, 0.3), (-1.2, 0.05), (0.9, 2.0)):
        log_variance = torch.full_like(levels, 2 * math.log(std))
        found = discretised_log_likelihood(levels, torch.full_like(levels, mean), log_variance).exp()
        assert found.sum().item() == pytest.approx(1, abs=1e-6)
        middle = Normal(mean, std).cdf(levels[100] + 1 / 255) - Normal(mean, std).cdf(levels[100] - 1 / 255)
        assert found[100].item() == pytest.approx(max(1e-12, middle.item()), rel=1e-6)


def test_at_the_first_step_the_bound_is_the_levels_likelihood() -> None:
    output, x, x_t, noise, t = drawn([0])
    x0 = DenoisingLoss(SCHEDULE)(output, x, x_t, noise, t).x0
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    signal = torch.cumprod(1 - beta, 0)
    tilde_1 = beta[1] * (1 - signal[0]) / (1 - signal[1])  # stands in for β̃_0 = 0
    share = (output[:, 2:].double() + 1) / 2
    std = (share * beta[0].log() + (1 - share) * tilde_1.log()).exp().sqrt()
    step = Normal(x0.double(), std)
    likelihood = step.cdf(x.double() + 1 / 255) - step.cdf(x.double() - 1 / 255)
    expected = (output[:, :2] - noise).square().mean() - likelihood.clamp(min=1e-12).log2().mean()
    found = DenoisingLoss(SCHEDULE)(output, x, x_t, noise, t).loss
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)

"""The sampler: ancestral DDPM sampling with classifier-free guidance and a method's guidance terms.

DDPM (arXiv 2006.11239), respaced and with learned variance (arXiv 2102.09672); classifier-free guidance (arXiv
2207.12598) on the prior's guided channels only. Every diffusion method runs this loop; what it adds are terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.guidance import Guidance, LabelGuidance, ShiftGuidance, State, Step
from ddbench.methods.diffusion.noise import ImageKey, NoiseSource
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.schedule import Respaced


@dataclass(frozen=True)
class Start:
    """Where the chain begins, if not at its noisiest step with noise alone."""

    k: int
    """Index in the respaced chain of the step that is executed first."""
    z: Tensor
    """The latents z_k at its noise level, (B, C, h, w)."""


@dataclass(frozen=True)
class SampleOutcome:
    """Legend: B images, C channels, h = w side."""

    latents: Tensor
    """The finished latents, (B, C, h, w) float32 on the prior's device."""
    path_kl_nats: dict[str, Tensor]
    """Shift term -> (B,) Σ_{k>0} ½‖δ_k/σ_k‖²: a bound on how far the term moved each image's distribution."""


@torch.no_grad()
def sample(
    prior: Prior,
    images: Sequence[ImageKey],
    terms: Sequence[Guidance],
    noise: NoiseSource,
    *,
    steps: int,
    cfg_scale: float,
    start: Start | None = None,
    on_step: Callable[[Step, Tensor], None] = lambda step, z: None,
) -> SampleOutcome:
    """Sample one batch of images in lockstep.

    Args:
        images: the batch; each image's class id gives its label.
        terms: guidance terms, applied in order.
        noise: the batch's draws.
        steps: S, the length of the respaced chain.
        cfg_scale: s in ε = ε_null + s (ε_class - ε_null); at 1 the null half is not evaluated.
        start: None: all steps, from noise.
        on_step: called with each executed step and the (B, C, h, w) latents after it.

    Raises:
        UsageError: a class that the prior does not know.
        RunError: a latent became infinite or NaN; it names the step and the class, and what is at fault.
    """
    chain = prior.schedule(steps)
    label_terms = [term for term in terms if isinstance(term, LabelGuidance)]
    shift_terms = [term for term in terms if isinstance(term, ShiftGuidance)]
    static_pair = label_pairs(prior, images)
    path_kl = {term.name: torch.zeros(len(images), device=prior.device) for term in shift_terms}
    sums = []
    if start is None:
        start = Start(steps - 1, send(noise.initial(prior.latent_shape), prior.device))
    z = start.z

    for n, k in enumerate(reversed(range(start.k + 1))):
        step = Step(n, k, int(chain.timesteps[k]))
        pair = static_pair
        for label_term in label_terms:
            pair = label_term.label(step, pair)
        epsilon, v = guided_prediction(prior, z, step.t, pair, cfg_scale, prior.guided_channels)

        alpha_bar = float(chain.alpha_bar[k])
        x0 = z / alpha_bar**0.5 - (1 / alpha_bar - 1) ** 0.5 * epsilon
        sigma = _sigma(chain, k, v)
        mean = float(chain.mean_x0[k]) * (x0.clamp(-1, 1) if prior.metadata.clip_denoised else x0)
        mean += float(chain.mean_z[k]) * z
        state = State(step, z, epsilon, x0, sigma, alpha_bar)
        for shift_term in shift_terms:
            delta = shift_term.shift(state)
            if delta is not None:
                mean += delta
                if k > 0:  # the last step has no noise, so its shift has no KL
                    path_kl[shift_term.name] += 0.5 * (delta / sigma).square().flatten(1).sum(1)

        z = mean + sigma * send(noise.step(n, prior.latent_shape), prior.device) if k > 0 else mean
        sums.append(z.flatten(1).sum(1))
        on_step(step, z)

    timesteps = chain.timesteps[: start.k + 1].flip(0).tolist()
    check_finite(torch.stack(sums), images, timesteps, prior=prior, first=start.z)
    return SampleOutcome(z, path_kl)


def label_pairs(prior: Prior, images: Sequence[ImageKey]) -> Tensor:
    """(B, 2, D): the embeddings [class; null] of each image; UsageError for a class that the prior does not know."""
    return prior.embed_labels(torch.tensor([[prior.label_of(image.class_id), prior.null_label] for image in images]))


def guided_prediction(
    prior: Prior, z: Tensor, t: int, pair: Tensor, cfg_scale: float, channels: int
) -> tuple[Tensor, Tensor | None]:
    """ε after classifier-free guidance of the leading `channels`, and v, both (B, C, h, w); v and the unguided channels
    are the class's own."""
    if cfg_scale == 1:
        return prior.predict(z, t, pair[:, 0])
    both, v = prior.predict(z.repeat_interleave(2, 0), t, pair.flatten(0, 1))
    class_half, null_half = both[0::2], both[1::2]
    guided = slice(0, channels)
    epsilon = class_half.clone()
    epsilon[:, guided] = null_half[:, guided] + cfg_scale * (class_half[:, guided] - null_half[:, guided])
    return epsilon, None if v is None else v[0::2]


def _sigma(chain: Respaced, k: int, v: Tensor | None) -> Tensor:
    """σ_k: from log σ² = f·log β_k + (1 - f)·log β̃_k with f = (v + 1)/2; without v, σ² = β̃_k."""
    low, high = float(chain.log_beta_tilde[k]), float(chain.log_beta[k])
    if v is None:
        return torch.tensor(0.5 * low).exp()
    return (0.5 * (low + (v + 1) / 2 * (high - low))).exp()


def check_finite(
    sums: Tensor,
    images: Sequence[ImageKey],
    timesteps: Sequence[int],
    what: str = "sampling",
    *,
    prior: Prior | None = None,
    first: Tensor | None = None,
) -> None:
    """Raise RunError if a latent became infinite or NaN; checked at the end, to wait for a GPU once.

    Args:
        sums: (S, B), the sum of each latent after each executed step.
        timesteps: of the S executed steps.
        prior: with the latents `first` before the first step, (B, C, h, w): if that step failed, whether the network
            alone fails on them, without any guidance.
    """
    bad = (~sums.isfinite().cpu()).nonzero().tolist()
    if not bad:
        return
    n, row = bad[0]
    mend = "Lower the guidance (cfg_scale, or the weight of the method's terms), or use --precision fp32."
    if n == 0 and prior is not None and first is not None:
        epsilon, _ = prior.predict(first, timesteps[0], label_pairs(prior, images)[:, 0])
        if not epsilon.isfinite().all():
            mend = (
                "The network alone predicts no finite noise there, without any guidance: its weights are at fault"
                + (", or the precision: use --precision fp32." if prior.precision != "fp32" else "; copy them again.")
            )
    raise RunError(
        f"{what} broke down: the latent of class {images[row].class_id}, image {images[row].image_index} is not "
        f"finite after step {n + 1} of {len(timesteps)} (t = {timesteps[n]}). {mend}"
    )

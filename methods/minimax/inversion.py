"""Inversion matching (IMS3, CVPR 2026, arXiv 2603.13960, eq. 5 to 7), as its released program computes it.

What the network being tuned makes of a noised latent is drawn to what DDIM inversion makes of the clean one. Inversion
is unstable where data are rare, and that is where the samples are to spread. At the paper's weight the term is a faint
one: the mean of the next step holds β_t/√(α_t (1 - ᾱ_t)) ≤ 0.04 of ε̂, so a cosine changes little with it
(docs/fidelity.md has what was measured).

Legend: B batch, C latent channels, h = w latent side, T timesteps of the training schedule.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata
from ddbench.methods.diffusion.schedule import alpha_bar


class InversionMatching:
    """One step of DDIM inversion at each time of the training schedule, and the cosine that compares its result."""

    def __init__(self, schedule: NoiseScheduleMetadata, device: torch.device | str = "cpu") -> None:
        signal = alpha_bar(schedule)
        self.here = signal.float().to(device)
        self.above = torch.cat([signal[1:], signal.new_zeros(1)]).float().to(device)  # after T - 1 there is no signal

    def inverted(self, epsilon: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The step from t to t + 1 of DDIM (arXiv 2010.02502, η = 0), taken from clean latents as if they were at t.

        The predicted clean latents are clipped to [-1, 1], and ε is what then leads from `x` to them.

        Args:
            epsilon: (B, C, h, w) ε̂ of the network at `x` and t.
            x: (B, C, h, w) clean latents: the program inverts these, not the noised ones.
            t: (B,) int64.
        """
        here, above = (table[t].view(-1, 1, 1, 1) for table in (self.here, self.above))
        scale, spread = (1 / here).sqrt(), (1 / here - 1).sqrt()
        x0 = (scale * x - spread * epsilon).clamp(-1, 1)
        return above.sqrt() * x0 + (1 - above).sqrt() * (scale * x - x0) / spread

    @staticmethod
    def cosine(denoised: Tensor, inverted: Tensor) -> Tensor:
        """Mean over all B² pairs of the cosine of a denoised and an inverted latent: the program's mean is not of the
        pairs of one image alone. ()."""
        return (F.normalize(denoised.flatten(1), dim=1) @ F.normalize(inverted.flatten(1), dim=1).T).mean()

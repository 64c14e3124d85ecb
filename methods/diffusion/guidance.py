"""What a method adds to plain sampling: guidance terms, small objects that the one sampler calls.

A term changes the label embedding (`LabelGuidance`), or shifts the mean of a step (`ShiftGuidance`), or both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A step of the chain."""

    n: int
    """Number of steps executed before this one."""
    k: int
    """Index in the respaced chain: S-1, executed first, is the noisiest; 0 is the last."""
    t: int
    """Timestep in the training schedule."""


@dataclass(frozen=True)
class State:
    """What is known at a step once the network has been evaluated. Legend: B images, C channels, h = w side."""

    step: Step
    z: Tensor
    """The latents z_k, (B, C, h, w)."""
    epsilon: Tensor
    """The predicted noise ε after classifier-free guidance, (B, C, h, w)."""
    x0: Tensor
    """The predicted clean latents x̂0 = z/√ᾱ - √(1/ᾱ - 1)·ε before any clipping, (B, C, h, w)."""
    sigma: Tensor
    """The step's noise scale σ_k, (B, C, h, w), or (1,) where the prior predicts no variance."""
    alpha_bar: float


class LabelGuidance(ABC):
    """Changes what the network is conditioned on."""

    @abstractmethod
    def label(self, step: Step, pair: Tensor) -> Tensor:
        """The (B, 2, D) embeddings [class; null] to use at this step, from those before it."""


class ShiftGuidance(ABC):
    """Shifts the mean of a step; its path KL is reported under its name."""

    name: str

    @abstractmethod
    def shift(self, state: State) -> Tensor | None:
        """(B, C, h, w) to add to the posterior mean, or None where the term does nothing."""


Guidance = LabelGuidance | ShiftGuidance

"""Parameters that several diffusion methods have in common. Planning reads them, so nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

PAPER_STEPS = 50
"""Length of the chain of all these methods' papers and programs."""

Steps = Annotated[int, Field(ge=2, le=1000, description="Length of the respaced DDPM chain.")]
CfgScale = Annotated[float, Field(ge=0, description="Scale of classifier-free guidance; 1 switches it off.")]
SampledLatents = Annotated[
    Literal["mean", "sample"],
    Field(
        description="Latents of the real images: posterior means, or posterior samples of randomly flipped images "
        "(the program samples, but does not flip)."
    ),
]


def at_the_same_times(params: type[BaseModel], given: Any, *indices: str, to_the_last: bool = True) -> Any:
    """The parameters as given, and for those of `indices` that are not, the papers' place in a chain of that length.

    Papers state indices of a chain of 50 steps. With another number of steps, an index that is not given is the one
    nearest in time to its default. For a validator that runs before all others: what is no mapping, or has no usable
    `steps`, comes back as it is.

    Args:
        to_the_last: S indices span the training schedule, t = k·(N-1)/(S-1); if not, t = k·N/S.
    """
    try:
        steps = int(given["steps"])
    except (TypeError, KeyError, ValueError):
        return given
    scale = (steps - 1) / (PAPER_STEPS - 1) if to_the_last else steps / PAPER_STEPS
    return {index: round(params.model_fields[index].default * scale) for index in indices} | given


def check_window(params: Any, first: str, last: str) -> None:
    """Raises ValueError unless the parameters `first` ≤ `last` are indices of the respaced chain."""
    window = getattr(params, first), getattr(params, last)
    if not window[0] <= window[1] < params.steps:
        raise ValueError(
            f"expected {first} ≤ {last} ≤ steps - 1 = {params.steps - 1}, indices of the respaced chain, got "
            f"{window[0]} and {window[1]}"
        )

"""What can be set of CoDA. Defaults are those of the released script; imports no torch."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Literal

from pydantic import Field

from ddbench.methods import base
from ddbench.methods.diffusion.params import CfgScale

UMAP = "umap-learn"
"""The distribution that embeds; `umap` on the package index is another one."""


class RepresentativeParams(base.Params):
    """How the representative images of a class are found."""

    embedding: Annotated[
        Literal["umap", "none"],
        Field(
            description="In what the latents are clustered, each of their numbers brought to mean 0 and variance 1 "
            "over the class: in UMAP's embedding, or as they are (not CoDA's; it needs no extra)."
        ),
    ] = "umap"
    n_neighbors: Annotated[
        int,
        Field(
            ge=2,
            description="UMAP's neighbours of an image. The script's for ImageNet-A at IPC 10, tuned for each set and "
            "IPC; no source gives the others. The program's own default is 15.",
        ),
    ] = 85
    dimensions: Annotated[int, Field(ge=2, description="Of UMAP's embedding.")] = 50
    embedding_seed: Annotated[int, Field(ge=0, lt=2**32, description="UMAP's, in every set and for every class.")] = 42
    min_cluster_size: Annotated[
        int,
        Field(
            ge=2,
            description="HDBSCAN's, the fewest images of a cluster. The script's for ImageNet-A at IPC 10, tuned as "
            "n_neighbors is. The program's own default is 5.",
        ),
    ] = 55
    min_samples: Annotated[
        int,
        Field(
            ge=1,
            description="HDBSCAN's neighbours within an image's core distance, without itself, as the program's "
            "library counts; scikit-learn's counts it too and is given one more.",
        ),
    ] = 3

    def images_needed(self) -> tuple[int, str]:
        """The fewest images of a class, and what they are needed for."""
        if self.embedding == "none":
            return 2, "the 2 that can be clustered"
        # UMAP cuts n_neighbors to the images there are, and starts from dimensions + 1 eigenvectors of their graph.
        needed = max(self.n_neighbors + 1, self.dimensions + 2)
        return needed, f"the {needed} of UMAP with n_neighbors={self.n_neighbors} and dimensions={self.dimensions}"

    def unsupported(self) -> str | None:
        """Why it cannot run on this machine, or None."""
        if self.embedding == "none":
            return None
        try:
            metadata.version(UMAP)
        except metadata.PackageNotFoundError:
            return (
                f"embedding=umap is made by {UMAP}, which is not installed: pip install 'ddbench[coda]', or set "
                "embedding=none, which is not CoDA's"
            )
        return None


class CoDAParams(RepresentativeParams):
    steps: Annotated[
        int, Field(ge=2, le=1000, description="Steps of DPM-Solver++ (second order, on Karras's noise levels).")
    ] = 25
    cfg_scale: CfgScale = 5.0
    guidance_scale: Annotated[
        float,
        Field(
            ge=0,
            description="γ: the class's predicted clean latent is moved by the share γ·σ of its way to the "
            "representative, before classifier-free guidance multiplies that by cfg_scale. 0: no pull.",
        ),
    ] = 0.05
    guided_from: Annotated[
        float,
        Field(
            ge=0,
            description="σ = √((1-ᾱ)/ᾱ) above which nothing is pulled. CoDA's prior begins at 14.6, so the default "
            "leaves it as published; a DiT begins at 157, where γ·σ·cfg_scale is 39 times the way.",
        ),
    ] = 15.0
    guided_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Of S steps those before step ⌊share·S⌋ are pulled, at 1 all but the last. The script's; the "
            "program's own default is 1.",
        ),
    ] = 0.9

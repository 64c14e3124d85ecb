"""DMGD: Distribution Matching Guided Diffusion (arXiv 2605.03877, CVPR 2026). Training-free.

A frozen class-conditional prior is sampled under two guidances: Semantic Matching (`semantic.py`) decides what label
each step follows, Distribution Matching (`distribution.py`) pulls a class's images, one after the other, towards
weighted points (`support.py`) that stand for its real images. `lockstep.py` runs them over many classes at once.
Defaults are those of the authors' released program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method, RealImages

if TYPE_CHECKING:
    import numpy as np

    from ddbench.datasets.base import Dataset, Resize
    from ddbench.methods.diffusion.priors.files import PriorMetadata

PROGRAM_STEPS = 50


class DMGD(Method):
    """DMGD and, by its parameters, every ablation of it down to the plain prior."""

    name = "dmgd"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    needs_prior = True

    class Params(base.Params):
        steps: Annotated[int, Field(ge=2, le=1000, description="Length of the respaced DDPM chain.")] = PROGRAM_STEPS
        cfg_scale: Annotated[
            float, Field(ge=0, description="Scale of classifier-free guidance; 1 switches it off.")
        ] = 4.0

        semantic_matching: Annotated[bool, Field(description="Dynamic label; false: the class's own throughout.")] = (
            True
        )
        label_noise_weight: Annotated[float, Field(ge=0, description="β_n, weight of the noise on the label.")] = 0.06
        label_mix_weight: Annotated[float, Field(ge=0, description="β_s, weight of another class's label.")] = 0.01
        label_noise: Annotated[
            Literal["uniform", "normal"], Field(description="Noise on the label: U(0, 1) (program) or N(0, 1).")
        ] = "uniform"
        label_weights: Annotated[
            Literal["sqrt", "linear"],
            Field(
                description="Weights of label and perturbation: √λ, √(1-λ) (program) or λ, 1-λ (notes on the paper)."
            ),
        ] = "sqrt"
        perturb_null: Annotated[bool, Field(description="Perturb the null label too (program).")] = True
        renormalise: Annotated[
            bool, Field(description="Give the perturbed pair the mean and std of the clean one (program).")
        ] = True
        label_t_lower: Annotated[
            int, Field(ge=0, le=1000, description="Original timestep below which the label is the class's own.")
        ] = 500
        label_t_upper: Annotated[
            int, Field(ge=1, le=1000, description="Original timestep above which the label is pure noise.")
        ] = 900
        exploration: Annotated[
            bool, Field(description="False: the class's own label, not noise, above label_t_upper.")
        ] = True

        distribution_matching: Annotated[bool, Field(description="Optimal-transport guidance.")] = True
        ot_scale: Annotated[
            float,
            Field(
                ge=0,
                description="ρ, weight of the transport guidance. The program's default is 0.5; its README uses 0.05 "
                "for Nette, a note on the paper says 0.05 for Woof and 0.5 for Nette.",
            ),
        ] = 0.5
        ot_gradient: Annotated[
            Literal["unrolled", "envelope"],
            Field(description="Differentiate through the scalings (program), or hold the plan constant (paper)."),
        ] = "unrolled"
        ot_sigma: Annotated[
            bool, Field(description="Multiply the shift by σ_k (program; not in the paper's formula).")
        ] = True
        ot_epsilon: Annotated[float, Field(gt=0, description="Entropic regularisation of the plan.")] = 0.1
        ot_iterations: Annotated[int, Field(ge=1, description="Number of Sinkhorn scalings.")] = 5
        ot_window_first: Annotated[
            int,
            Field(
                ge=0,
                description="Last step of the transport guidance to be executed, as index k of the respaced chain "
                "(0 is the cleanest). Not given with another number of steps: the step nearest in time.",
            ),
        ] = 30
        ot_window_last: Annotated[
            int,
            Field(ge=0, description="First step of the transport guidance to be executed; as ot_window_first."),
        ] = 45
        greedy: Annotated[
            bool,
            Field(description="One image of a class after the other (program); false: all of them jointly."),
        ] = True
        support: Annotated[
            Literal["kmeans", "mean", "density"],
            Field(description="What stands for a class's real images: k-means, their mean, or a density sample."),
        ] = "kmeans"
        support_points: Annotated[int, Field(ge=1, description="K, number of support points (`mean` has one).")] = 10
        support_latents: Annotated[
            Literal["mean", "sample"],
            Field(
                description="Latents of the real images: posterior means, or posterior samples of randomly flipped "
                "images (program)."
            ),
        ] = "mean"
        support_init: Annotated[
            Literal["k-means++", "random"],
            Field(description="Start of k-means; random: points drawn with replacement, 100 iterations (program)."),
        ] = "k-means++"

        @model_validator(mode="before")
        @classmethod
        def _window_at_the_same_times(cls, given: Any) -> Any:
            """The program's window is in indices of 50 steps; in a chain of another length, the same part of it."""
            try:
                scale = (int(given["steps"]) - 1) / (PROGRAM_STEPS - 1)
            except (TypeError, KeyError, ValueError):
                return given
            ends = ("ot_window_first", "ot_window_last")
            return {end: round(cls.model_fields[end].default * scale) for end in ends} | given

        @model_validator(mode="after")
        def _windows_in_order(self) -> DMGD.Params:
            if self.label_t_lower >= self.label_t_upper:
                raise ValueError(
                    f"expected label_t_lower < label_t_upper, got {self.label_t_lower} and {self.label_t_upper}"
                )
            if not self.ot_window_first <= self.ot_window_last < self.steps:
                raise ValueError(
                    f"expected ot_window_first ≤ ot_window_last ≤ steps - 1 = {self.steps - 1}, indices of the "
                    f"respaced chain, got {self.ot_window_first} and {self.ot_window_last}"
                )
            return self

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.semantic_matching and len(dataset.class_ids) < 2:
            return "semantic matching mixes in the label of another class, and this dataset has one class"
        return None

    def images_at(self, resolution: int, prior: PriorMetadata | None) -> Sequence[tuple[int, Resize]]:
        return prior.real_images if prior is not None and self.params.distribution_matching else ()

    def reads_real_images(self) -> RealImages:
        return RealImages.ALL if self.params.distribution_matching else RealImages.NONE

    def shows_real_images(self) -> bool:
        return False

    def prepare(self, task: DistillTask) -> None:
        """Encode the real images and find the support points of each class.

        Raises:
            UsageError: a class with fewer images than support points.
        """
        self._support: Mapping[int, Mapping[str, np.ndarray]] = {}
        if not self.params.distribution_matching:
            return
        needed = 1 if self.params.support == "mean" else self.params.support_points
        for class_index in task.class_indices:
            found = len(task.train.of_class(class_index))
            if found < needed:
                raise UsageError(
                    f"class {task.class_ids[class_index]} has {found} training images, fewer than "
                    f"support_points={needed}; set support_points={found} or fewer, or support=mean"
                )
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.dmgd.support import class_supports

        self._support = class_supports(task, self.params, task.class_indices)

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.dmgd.lockstep import Lockstep

        yield from Lockstep(task, self.params, self._support).rounds()

"""ManifoldGD: manifold guidance beside mode guidance (arXiv 2602.23295, CVPR 2026). Training-free.

As in MGD3, an image is drawn to its own mode of the class's latents; the modes are leaves of a bisecting tree, and a
second term steps along the normal of what stands for the data near the mode. Formulas and defaults are the released
program's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddbench.methods.base import DistillTask
from ddbench.methods.enough_images import check_enough_images
from ddbench.methods.manifoldgd.params import ManifoldGDParams
from ddbench.methods.mgd3.method import MGD3

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ddbench.methods.diffusion.batches import Batch
    from ddbench.methods.diffusion.guidance import Guidance


class ManifoldGD(MGD3):
    """Image j of a class is drawn towards mode j, and towards the data around it."""

    name = "manifoldgd"
    version = 1
    Params = ManifoldGDParams

    def prepare(self, task: DistillTask) -> None:
        """Modes of every class.

        Raises:
            UsageError: a class with fewer images, or fewer distinct ones, than IPC.
        """
        # Planning reads this file for its parameters; what needs torch and diffusers is imported when it runs.
        from ddbench.methods.diffusion.clustering import class_centroids
        from ddbench.methods.manifoldgd.modes import bisecting_modes

        assert task.ipc is not None
        check_enough_images(task, task.ipc, f"the {task.ipc} clusters asked for")
        prior, self._modes = task.load_prior(), dict[int, "np.ndarray"]()
        for c in task.class_indices:
            task.progress(f"modes of class {task.class_ids[c]}")
            bisecting = self.params.modes == "bisecting"
            self._modes[c] = bisecting_modes(task, prior, c) if bisecting else class_centroids(task, prior, c, task.ipc)

    def _terms(self, task: DistillTask, batch: Batch, modes: Tensor) -> list[Guidance]:
        from ddbench.methods.manifoldgd.manifold import ManifoldGuidance, annealed_radius

        p, terms = self.params, super()._terms(task, batch, modes)
        if p.manifold_scale:
            terms.append(
                ManifoldGuidance(
                    modes,
                    [task.stream("manifold", *image) for image in batch.images],
                    scale=p.manifold_scale,
                    bandwidth=p.density_bandwidth,
                    radius_at=annealed_radius(p.manifold_radius, p.radius_factor, p.warm_steps),
                    tangent_dimensions=p.tangent_dimensions,
                    stop_step=p.stop_step,
                )
            )
        return terms

"""A cell's prior: the one that was planned, on the cell's device, and tuned if it is to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.spec import DistillSpec
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.planning.prior_names import NamedPrior, name_prior
from ddbench.methods.base import DistillTask, Method

if TYPE_CHECKING:
    from ddbench.methods.diffusion.prior import Prior


def planned_prior(spec: DistillSpec, launch: Launch) -> NamedPrior | None:
    """The prior of a cell; None: it needs none.

    Raises:
        RunError: the prior of that name is not the one of the specification.
    """
    if launch.prior is None:
        return None
    prior = name_prior(launch.prior, DATASETS.load(spec.dataset.name))
    if prior.sha256 != spec.prior_sha256:
        raise RunError(
            f"the prior {launch.prior} has changed since this cell was planned: "
            f"expected SHA-256 {spec.prior_sha256}, found {prior.sha256}. Plan the run again."
        )
    return prior


def load_prior(named: NamedPrior, task: DistillTask) -> Prior:
    """Load a prior onto the task's device, and tune it, or find that an earlier cell did."""
    from ddbench.methods.diffusion.prior import Prior

    with task.phase("load prior"):
        prior = Prior.load(named.files, device=task.device, precision=task.precision)
    for tuning in named.tunings:
        method: type[Method] = METHODS.load(tuning.name)
        prior = method(method.Params.model_validate(tuning.params)).tuned_prior(task, prior)
    return prior

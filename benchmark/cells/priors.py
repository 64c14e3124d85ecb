"""A cell's prior: the one that was planned, on the cell's device, tuned if it is to be, and its network through
`torch.compile` in cells that sample so much that it pays.

What pays is counted and not timed: cells that make parts of one set, and an attempt that goes on with another's work,
come to the same answer, and a set's images do not depend on how busy a machine is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.spec import Compile, DatasetSpec, DistillSpec
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.planning.prior_names import NamedPrior, name_prior
from ddbench.benchmark.planning.run_prior import names_of, trained_on_tested
from ddbench.benchmark.protocols.compiled import TOLERANCE, compile_network
from ddbench.datasets.base import ImageSource
from ddbench.methods.base import DistillTask, Method

if TYPE_CHECKING:
    from ddbench.methods.diffusion.network import Denoiser
    from ddbench.methods.diffusion.prior import Prior


WORTH_FLOPS = 2e13
"""Of a whole set, from which on compiling pays: on one core of a CPU some five minutes, of which it saves about one and
takes half of one (docs/performance.md)."""
ROWS = 20
"""That a compiler is shown: ten images, each with its class and without."""
STEPS = 50
"""Of a method that does not say how many it takes."""


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


def check_unseen(prior: NamedPrior, spec: DatasetSpec, test: ImageSource) -> None:
    """Raises UsageError if a prior was trained on images that students are tested on, as far as it says on which."""
    seen = prior.files.metadata.trained_on_of(names_of(spec.name), test.names)
    if seen:
        said = f" ({len(seen)} of {len(test)}, such as {seen[0]})"
        raise UsageError(trained_on_tested(prior.name, spec, said))


def load_prior(named: NamedPrior, task: DistillTask, faster: Callable[[Prior], None] = lambda prior: None) -> Prior:
    """Load a prior onto the task's device, and tune it, or find that an earlier cell did.

    Args:
        faster: is given the prior as it was loaded, to set its `compiler`, which tuned ones inherit.
    """
    from ddbench.methods.diffusion.prior import Prior

    with task.phase("load prior"):
        prior = Prior.load(named.files, device=task.device, precision=task.precision)
        faster(prior)
    for tuning in named.tunings:
        method: type[Method] = METHODS.load(tuning.name)
        prior = method(method.Params.model_validate(tuning.params)).tuned_prior(task, prior)
    return prior


class CompiledDenoiser:
    """What makes a prior's network faster, and what a result says of it."""

    def __init__(self, arithmetic: dict[str, Any] | None = None, keep: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            arithmetic: what earlier attempts at the set noted, which this one adds to.
            keep: writes it down, before any image is sampled so.
        """
        self.arithmetic = {} if arithmetic is None else arithmetic
        """As a student's: `compiled`, and `not_compiled` with the reason where it should have been and is not. Both,
        where one attempt could and another could not: the set has images of each."""
        self._keep = keep

    def _is_not(self, problem: str) -> None:
        print(f"the prior's network is not compiled: {problem}", flush=True)
        self.arithmetic.setdefault("compiled", [])
        self.arithmetic["not_compiled"] = problem
        self._keep()

    def __call__(self, network: Denoiser, x: Tensor, conditioning: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The network compiled for any number of rows above one, if it says of `x` what the network itself says; else
        the network as it is.

        Args:
            x, conditioning: (N, C, h, w) and (N, E), N ≥ 2, of the sampling that is about to begin.
        """
        try:
            # In one piece, so that PyTorch, where it gives up compiling more, says so.
            compiled = compile_network(network, fullgraph=True)
            # A compiler looks at the size of what it is shown: an attempt that goes on with a batch of another size,
            # and another part of the set, get the same code.
            shown = [
                given.repeat(-(-ROWS // len(given)), *[1] * (given.ndim - 1))[:ROWS] for given in (x, conditioning)
            ]
            for given in shown:
                torch._dynamo.mark_dynamic(given, 0)  # one code for all batches
            own, other = network(*shown).double(), compiled(*shown).double()
        except Exception as error:  # compilers raise anything, and without one the network does as well
            self._is_not(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return network
        differs = float((other - own).norm() / own.norm().clamp(min=1e-30))
        if not differs <= TOLERANCE:
            self._is_not(f"the compiled network's output differs by {differs:.2g}")
            return network
        self.arithmetic["compiled"] = ["denoiser"]
        self._keep()
        return compiled


def pays(choice: Compile, spec: DistillSpec, n_classes: int, prior: Prior) -> bool:
    """Whether a cell's sampling goes through `torch.compile`.

    Args:
        choice: `auto` compiles where the set, of which the cell may be a part, takes `WORTH_FLOPS`, on a CPU: on a GPU
            nobody has measured it yet.
        n_classes: of the whole set.
    """
    if choice != "auto":
        return choice == "always"
    if prior.device.type != "cpu":
        return False
    params, network = spec.method.params, prior.network
    steps = params.get("steps", STEPS)
    evaluations = (1 if params.get("cfg_scale") == 1 else 2) * (steps if isinstance(steps, int) else STEPS)
    time = network.embed_time(torch.zeros(1, device=prior.device))
    label = prior.embed_labels(torch.tensor([prior.null_label]))
    # Attention as products of matrices: of a CPU's own kernel for it PyTorch's counter knows nothing.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(torch.zeros(1, *prior.latent_shape, device=prior.device), network.conditioning(time, label))
    return (spec.ipc or 1) * n_classes * evaluations * counted.get_total_flops() >= WORTH_FLOPS

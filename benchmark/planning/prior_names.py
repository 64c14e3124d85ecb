"""A prior as runs name it: `digits`, a folder, or `minimax(digits)`, another prior tuned by a method.

A tuned prior is planned by its recipe and made inside the first cell that needs it, on that cell's training images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.spec import MethodSpec, Scalar, digest
from ddbench.benchmark.planning.contestants import contestants, load_method
from ddbench.datasets.base import Dataset
from ddbench.methods.base import Method
from ddbench.methods.diffusion.priors.files import PriorFiles, find_prior

TUNED = re.compile(r"([\w.-]+(?:\[[^\[\]]*\])?)\((.+)\)")


@dataclass(frozen=True)
class NamedPrior:
    """A prior's files, and the methods that tune it before it is used."""

    name: str
    files: PriorFiles
    tunings: tuple[MethodSpec, ...] = ()
    """The tunings in the order in which they are applied, each with the parameters that the tuned weights depend on."""

    @property
    def sha256(self) -> str:
        """Hash of the files; of a tuned prior, of its base's hash and the recipe. Images and seed are each cell's."""
        sha256 = self.files.sha256
        for tuning in self.tunings:
            sha256 = digest({"prior": sha256, "tuned_by": tuning.model_dump(mode="json")})
        return sha256

    @property
    def trained_on(self) -> str:
        tuned = [f"; then tuned by {tuning.name} on the run's training images" for tuning in self.tunings]
        return self.files.trained_on + "".join(tuned)

    def tuned_by(self, selector: str, dataset: type[Dataset], user: Mapping[str, Scalar] | None = None) -> NamedPrior:
        """This prior, tuned by a method with its parameters for a dataset.

        Args:
            selector: as in `--method`: `minimax` or `minimax[tuning_steps=400]`.
            user: parameters for any method that has them; of the tuner's, those that the tuned weights depend on count.

        Raises:
            UsageError: an unknown method, one that tunes no prior, or parameters that are not its own.
        """
        method = load_method(selector)
        tuning = method.tuning
        if tuning is None:
            tuners = [entry.name for entry in METHODS if _tunes(entry.name)]
            raise UsageError(f"prior {selector}({self.name}): {selector} tunes no prior; {', '.join(tuners)} do")
        shared = {key: value for key, value in (user or {}).items() if key in tuning.model_fields}
        found = contestants(selector, dataset, shared, set())
        if len(found) > 1:
            raise UsageError(f"prior {selector}({self.name}): one value for each parameter, please")
        (contestant,) = found
        tuner = contestant.instance()
        reason = tuner.supports_prior(self.files.metadata) or tuner.tunes_several()
        if reason is not None:
            raise UsageError(f"prior {selector}({self.name}): {reason}")
        params = {key: value for key, value in contestant.spec.params.items() if key in tuning.model_fields}
        spec = contestant.spec.model_copy(update={"params": params})
        return replace(self, name=f"{contestant.label}({self.name})", tunings=(*self.tunings, spec))


def name_prior(name: str, dataset: type[Dataset]) -> NamedPrior:
    """The prior of that name, its files checked.

    Raises:
        UsageError: as `find_prior` and `NamedPrior.tuned_by`.
    """
    tuned = TUNED.fullmatch(name)
    if tuned is None or Path(name).expanduser().is_dir():
        return NamedPrior(name, find_prior(name))
    return name_prior(tuned[2], dataset).tuned_by(tuned[1], dataset)


def _tunes(name: str) -> bool:
    try:
        method: type[Method] = METHODS.load(name)
    except UsageError:
        return False
    return method.tuning is not None

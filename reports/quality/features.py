"""Images as features: of a classifier trained on the real images, or of Inception v3.

Legend: N images, S side in pixels, C channels, F features, K classes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.classifiers import with_classifiers
from ddbench.benchmark.cells.distill import train_hash
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.store import Store
from ddbench.datasets.base import Dataset, SplitData
from ddbench.methods.base import DistillTask
from ddbench.methods.normalisation import unit_range
from ddbench.methods.observer import Observer, observer
from ddbench.methods.observer_params import ObserverParams

BATCH = 256
FID_CLASSES, TORCHVISION_CLASSES = 1008, 1000
"""Rows of the last layer of the two networks that are called Inception v3."""


class Extractor(Protocol):
    """What measures need of a network."""

    weights_sha256: str
    validation_accuracy_percent: float | None

    def features(self, images: np.ndarray) -> np.ndarray:
        """(N, S, S, C) uint8 -> (N, F) float64."""

    def classes(self, images: np.ndarray) -> np.ndarray | None:
        """(N,) predicted classes; None for a network that does not know them."""


class ClassifierFeatures:
    """What the last linear layer of a classifier takes, and the classes that it gives."""

    def __init__(self, seen_by: Observer, device: torch.device) -> None:
        self._seen_by, self._device = seen_by, device
        self.weights_sha256 = seen_by.sha256
        self.validation_accuracy_percent: float | None = getattr(seen_by, "validation_accuracy", None)

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        return _in_batches(lambda batch: self._seen_by.features(unit_range(batch, self._device)).double(), images)

    @torch.no_grad()
    def classes(self, images: np.ndarray) -> np.ndarray:
        network, normalise = self._seen_by.network(), self._seen_by.normalise
        return _in_batches(lambda batch: network(normalise(unit_range(batch, self._device))).argmax(1), images)


class InceptionFeatures:
    """The 2,048 pooled features of Inception v3, for images resized to 299 px with antialiasing.

    Two networks bear that name, and the file tells which: FID's own (converted from TensorFlow's of 2015, 1,008
    classes; it needs the package torch-fidelity), and torchvision's (1,000 classes), whose distances are not FID.

    Raises:
        UsageError: the file holds neither, or the package is missing.
    """

    validation_accuracy_percent: float | None = None

    def __init__(self, file: Path, sha256: str, device: torch.device) -> None:
        self.weights_sha256, self._device = sha256, device
        state = _read_state(file)
        last = state.get("fc.weight")
        rows = None if last is None else last.shape[0]
        if rows == TORCHVISION_CLASSES:
            self._network = _torchvisions(file, state).to(device)
        elif rows == FID_CLASSES:
            self._network = _fids(file).to(device)
        else:
            raise UsageError(
                f"{file} holds no Inception v3: expected a state dict whose fc.weight has {TORCHVISION_CLASSES} rows "
                f"(torchvision's) or {FID_CLASSES} (FID's), got {rows if rows is not None else 'no fc.weight'}"
            )

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        return _in_batches(lambda batch: self._network(self._pixels(batch)).double(), images)

    def classes(self, images: np.ndarray) -> None:
        return None

    def _pixels(self, images: np.ndarray) -> Tensor:
        """(n, 3, S, S) uint8."""
        return torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


def _in_batches(of: Callable[[np.ndarray], Tensor], images: np.ndarray) -> np.ndarray:
    return np.concatenate([of(images[at : at + BATCH]).cpu().numpy() for at in range(0, len(images), BATCH)])


class _Torchvisions(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        resized = F.interpolate(pixels.float(), size=(299, 299), mode="bilinear", align_corners=False, antialias=True)
        # The weights were made for pixels in −1 … 1.
        return torch.as_tensor(self.network(resized / 127.5 - 1))


def _torchvisions(file: Path, state: dict[str, Tensor]) -> nn.Module:
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, init_weights=False, aux_logits=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{file} is not torchvision's inception_v3: {str(error).splitlines()[-1].strip()}") from error
    network.fc = nn.Identity()
    return _Torchvisions(network).eval().requires_grad_(False)


def _fids(file: Path) -> nn.Module:
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(file))
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{file} holds FID's own Inception, whose network is in the package torch-fidelity: install it "
            "(`pip install torch-fidelity`), or give torchvision's weights of inception_v3"
        ) from error
    except RuntimeError as error:
        raise UsageError(f"{file} is not FID's Inception: {str(error).splitlines()[-1].strip()}") from error
    network: nn.Module = metric.inception
    return network.eval().requires_grad_(False)


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{file} holds more than tensors, which is not loaded since it could run code; save its state dict alone"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise UsageError(f"{file} cannot be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{file}: expected a state dict (name -> tensor), got {type(state).__name__}")
    return state


def classifier(
    params: ObserverParams,
    dataset: Dataset,
    split: SplitData,
    resolution: int,
    *,
    store: Store,
    scratch: Path,
    device: torch.device,
    say: Callable[[str], None],
) -> ClassifierFeatures:
    """The classifier that `params` describe: the artefact of the results folder, trained now if it has none.

    It is not trained on the validation part of the training images. A training that is killed goes on from `scratch`.

    Raises:
        UsageError: a checkpoint that does not fit.
        RunError: a loss that is not finite.
    """
    meter = Meter(device, scratch / "spent.json")

    def no_prior() -> Any:
        raise RuntimeError("a classifier needs no prior")

    task = DistillTask(
        class_ids=dataset.class_ids,
        class_indices=tuple(range(len(dataset.class_ids))),
        ipc=None,
        seed=0,
        train=split.train,
        train_hash=train_hash(split.content_hash, resolution),
        device=device,
        precision="fp32",
        batch_size=BATCH,
        scratch=scratch,
        done={},
        load_prior=no_prior,
        cache=DiskArtefacts(store.artefacts, meter),
        phase=meter.phase,
        progress=say,
    )
    return ClassifierFeatures(observer(with_classifiers(task, split.validation), params), device)

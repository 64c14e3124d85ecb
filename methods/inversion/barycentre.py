"""Where the features of a class's images are to lie (WMDD, ICCV 2025, arXiv 2311.18531): the Wasserstein barycentre of
its real images' features with as many points as the class has images, image j at point j.

Of one measure the barycentre with free support and equal weights is found by Cuturi and Doucet's fixed point (POT's
`free_support_barycenter`): each point moves to the mean of the mass that an optimal transport brings to it. It begins
with points of N(0, 1), as the program's does.

Legend: K classes, I images of a class (IPC), N real images, F features.
"""

from __future__ import annotations

import numpy as np
import ot
import torch
from torch import Tensor

from ddbench.methods.base import DistillTask
from ddbench.methods.observer import Observer, class_features


def barycentres(task: DistillTask, teacher: Observer) -> Tensor:
    """(K, I, F) of all classes of the dataset, whichever the cell has; each an artefact."""
    points = [_of_class(task, teacher, c) for c in range(len(task.class_ids))]
    return torch.from_numpy(np.stack(points)).float().to(task.device)


def barycentre(features: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The points (I, F) float64 to which `start` moves, for features (N, F), all of equal weight."""
    weights = np.full(len(features), 1 / len(features))
    return ot.lp.free_support_barycenter(
        [features.astype(np.float64)], [weights], start, b=np.full(len(start), 1 / len(start))
    )


def _of_class(task: DistillTask, teacher: Observer, class_index: int) -> np.ndarray:
    assert task.ipc is not None
    class_id, ipc = task.class_ids[class_index], task.ipc

    def make() -> dict[str, np.ndarray]:
        features = class_features(task, teacher, class_index)
        task.progress(f"barycentre of class {class_id}: {ipc} points of {len(features)} features")
        stream = task.stream("barycentre", class_id)
        start = torch.randn(ipc, features.shape[1], generator=stream, dtype=torch.float64).numpy()
        return {"points": barycentre(features, start)}

    key = {
        "train": task.train_hash,
        "class_id": class_id,
        "classifier": teacher.sha256,
        "device": task.device.type,
        "seed": task.seed,
        "ipc": ipc,
    }
    return task.cache.arrays("barycentre", key, make)["points"]

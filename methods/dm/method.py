"""DM: Dataset Condensation with Distribution Matching (Zhao & Bilen, WACV 2023). Optimises pixels.

The pixels of a class's images are moved until random networks embed them, on average, where they embed the class's
real images: `matching.py`, under the augmentation of `siamese.py`. Defaults are those of the authors' released program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.classifier import Normalisation

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


def _known_operations(augmentation: str) -> str:
    unknown = [name for name in augmentation.split("_") if name not in OPERATIONS]
    if unknown and augmentation != "none":
        raise ValueError(f"unknown operation {unknown[0]!r}; expected none or some of {'_'.join(OPERATIONS)}")
    return augmentation


class DM(Method):
    """Distribution matching of real and synthetic images in the embeddings of random networks.

    Training-free in the sense of `CostClass`: no weights are trained, only pixels. That is long work all the same.
    """

    name = "dm"
    version = 1
    cost_class = CostClass.TRAINING_FREE
    check_params: ClassVar = {"iterations": 2, "network_image_size": 8}

    class Params(base.Params):
        iterations: Annotated[int, Field(ge=1, description="Steps of the optimiser, each with a new network.")] = 20_000
        learning_rate: Annotated[
            float,
            Field(gt=0, description="Of SGD on the pixels. The program's README uses 10 from IPC 100 on (CIFAR-10)."),
        ] = 1.0
        momentum: Annotated[float, Field(ge=0, lt=1, description="Of SGD on the pixels.")] = 0.5
        real_batch: Annotated[
            int, Field(ge=1, description="Real images of a class in a step, drawn without replacement.")
        ] = 256
        network: Annotated[
            Literal["convnet3", "convnet6", "resnet_ap10", "resnet18"],
            Field(
                description="Whose embedding is matched: what its last linear layer takes. The program's is convnet3, "
                "for images of 32 px; which one made the published numbers at 256 px is unknown."
            ),
        ] = "convnet3"
        network_image_size: Annotated[
            int | None,
            Field(ge=8, description="Side to which images are resized (bilinearly) for the network; none: the run's."),
        ] = None
        init: Annotated[
            Literal["real", "noise"], Field(description="Start from real images of the class, or from N(0, 1).")
        ] = "real"
        augmentation: Annotated[
            str,
            AfterValidator(_known_operations),
            Field(description="Operations of the siamese augmentation, one of which is drawn in a step; or none."),
        ] = "_".join(OPERATIONS)
        normalisation: Annotated[
            Normalisation,
            Field(description="Mean and std of pixels: ImageNet's by channel (RGB only), or 0.5 and 0.5."),
        ] = "imagenet"

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if self.params.normalisation == "imagenet" and dataset.channels != 3:
            return f"normalisation=imagenet is for RGB images and these have {dataset.channels} channel(s)"
        return None

    def shows_real_images(self) -> bool:
        return True

    def prepare(self, task: DistillTask) -> None:
        """Raises UsageError: a class has fewer images to start from than IPC."""
        assert task.ipc is not None
        for class_index in task.class_indices:
            found = len(task.train.of_class(class_index))
            if self.params.init == "real" and found < task.ipc:
                raise UsageError(
                    f"class {task.class_ids[class_index]} has {found} training images to start from, fewer than the "
                    f"{task.ipc} asked for; choose --ipc {found} or less, or init=noise"
                )

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        from ddbench.methods.dm.matching import Matching

        assert task.ipc is not None
        # The classes of a chunk are optimised side by side, and all their images are finished together.
        classes = max(1, task.batch_size // task.ipc)
        for start in range(0, len(task.class_indices), classes):
            grid = [(c, i) for c in task.class_indices[start : start + classes] for i in range(task.ipc)]
            missing = [key for key in grid if key not in task.done]
            if missing:
                matching = Matching(task, self.params, tuple(dict.fromkeys(c for c, _ in missing)))
                pixels = matching.run()
                yield [DistilledImage(c, i, pixels[c, i]) for c, i in missing]
                matching.forget()

"""dc-convnet3@1: the evaluator of Dataset Condensation's programs with siamese augmentation: DSA, DM and what follows
them (Zhao & Bilen, ICML 2021, arXiv 2102.08259; WACV 2023, arXiv 2110.04181; VICO-UoE/DatasetCondensation, MIT).

That program counts epochs from 0 to 1000, so it trains 1001; after the one with the number 501 it makes a new
optimiser with a tenth of the learning rate. It looks at the test set once, at the end.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MultiStep,
    Protocol,
    Sgd,
    Siamese,
    Statistics,
)
from ddbench.benchmark.protocols.lengths import EpochTable

EPOCHS = 1001

PROTOCOL = Protocol(
    name="dc-convnet3",
    version=1,
    summary="hard labels, the dataset's own resolution, SGD, 1001 epochs with siamese augmentation (DSA, DM)",
    comparable_with_papers=True,
    image_size=None,
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    statistics=(
        Statistics(dataset="cifar10", mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
        Statistics(dataset="cifar100", mean=(0.5071, 0.4866, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    ),
    students=("convnet3",),
    width=128,
    students_per_set=20,
    optimiser=Sgd(learning_rate=0.01, momentum=0.9, weight_decay=0.0005),
    schedule=MultiStep(milestones=((502, EPOCHS),), factor=0.1, restarts=True),
    batch_size=256,
    epochs=EpochTable.constant(EPOCHS),
    augmentation=Siamese(
        operations=("color", "crop", "cutout", "flip", "scale", "rotate"),
        brightness=1,
        saturation=2,
        contrast=0.5,
        crop_padding=0.125,
        cutout=0.5,
        flip_probability=0.5,
        scale=1.2,
        rotation_degrees=15,
    ),
    cutmix=False,
    looks=1,
    # The program pins PyTorch 1.2, which has no TF32.
    tf32_convolutions=False,
    tf32_matmul=False,
    cudnn_benchmark=False,
)

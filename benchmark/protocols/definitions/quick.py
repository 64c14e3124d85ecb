"""quick@1: the embedded default, for the built-in digits and for smoke runs on a CPU."""

from __future__ import annotations

from ddbench.benchmark.protocols.base import AdamW, Affine, Protocol
from ddbench.benchmark.protocols.lengths import EpochTable

PROTOCOL = Protocol(
    name="quick",
    version=1,
    summary="small ConvNet at the dataset's own resolution, seconds per student on a CPU; not comparable with papers",
    comparable_with_papers=False,
    notice="quick: not comparable with papers",
    image_size=None,
    channels=None,
    # Pixels to [-1, 1], for greyscale and colour alike: it needs no statistics of the data.
    mean=(0.5,),
    std=(0.5,),
    students=("convnet3", "convnet6", "resnet_ap10", "resnet18"),
    width=64,
    students_per_set=3,
    optimiser=AdamW(learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    batch_size=64,
    epochs=EpochTable(up_to=((10, 300), (50, 150)), beyond=60, full=60),
    # No flip: a mirrored digit is another sign.
    augmentation=Affine(shift=0.1, scale=(0.9, 1.1)),
    cutmix=False,
    looks=10,
    tf32_convolutions=False,
    tf32_matmul=False,
    cudnn_benchmark=False,
)

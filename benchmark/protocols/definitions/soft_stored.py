"""soft-stored@1: students are trained with the soft labels that come with a set made elsewhere.

Programs that learn or store labels (DATM; one label an image of an early expert) evaluate each in a way of its own.
This protocol is none of theirs: it is the same for all, so that what labels add can be compared. AdamW at 1e-3 with
decay on tensors of more than one dimension and a cosine to 0 are what evaluators with soft labels use; epochs are
those of the protocols with hard labels; crops are of half the image or more, since a label is of the whole image, and
there is no CutMix.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AdamW,
    Cosine,
    Crop,
    Protocol,
    StoredLabels,
)
from ddbench.benchmark.protocols.lengths import EpochTable

PROTOCOL = Protocol(
    name="soft-stored",
    version=1,
    summary="the soft labels that come with a set made elsewhere, one an image, at the dataset's own resolution",
    comparable_with_papers=False,
    notice="soft-stored: labels that came with the sets; not comparable with papers, whose evaluators differ",
    image_size=None,
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    students=("resnet_ap10", "resnet18", "convnet3", "convnet6", "resnet18_bn", "resnet50_bn", "resnet101_bn"),
    students_per_set=3,
    optimiser=AdamW(learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.01, decay_above_dimensions=1),
    batch_size=64,
    schedule=Cosine(),
    epochs=EpochTable(up_to=((1, 3000), (10, 2000), (50, 1500), (200, 1000), (500, 500)), beyond=300, full=300),
    augmentation=Crop(shuffle=False, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip_probability=0.5),
    cutmix=False,
    loss="kl-to-stored",
    stored=StoredLabels(temperature=1.0),
    looks=100,
    tf32_convolutions=True,
    tf32_matmul=False,
    cudnn_benchmark=True,
)

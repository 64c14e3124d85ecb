"""soft-delt@1: the evaluator of DELT's program (Shen et al., CVPR 2025, arXiv 2411.19946; VILA-Lab/DELT), which is
RDED's with RandAugment before crops of a quarter or more, and without the shuffling of patches.

It looks at the test set after epochs 1, 11, 21, … and the last. From 100 classes on a ResNet-101 trains in batches of
half the size of the others'. As RDED's, it sends every mixed batch through the student a second time: the override
`second_pass`.

soft-delt-64@1 is that program on Tiny-ImageNet: what RDED's does there (`soft-rded-whole-64`) with these crops and
looks. Its scripts are for ImageNet-1K alone; RandAugment and the crops of a quarter are theirs, as they are on all
other datasets here.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import Crop, Protocol, RandAugment
from ddbench.benchmark.protocols.definitions import soft_rded
from ddbench.benchmark.protocols.lengths import BatchTable, LooksFromFirst

PROTOCOL: Protocol = soft_rded.HALF.model_copy(
    update={
        "name": "soft-delt",
        "summary": "soft labels, 224 px, 300 epochs; RandAugment, then crops of a quarter or more (DELT)",
        "batch_size": BatchTable(
            at=((1, 10), (10, 50), (30, 100)), doubled_from_classes=100, undoubled=("resnet101_bn",)
        ),
        "augmentation": Crop(
            shuffle=False,
            scale=(0.25, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip_probability=0.5,
            rand_augment=RandAugment(config="rand-m6-n2-mstd1.0", fill=(124, 116, 104)),
        ),
        "looks": LooksFromFirst(every=10),
    }
)
AT_64 = soft_rded.WHOLE_64.model_copy(
    update={
        "name": "soft-delt-64",
        "summary": "soft labels, 64 px, 300 epochs in batches of 100; soft-delt for Tiny-ImageNet (DELT)",
        "augmentation": PROTOCOL.augmentation,
        "looks": PROTOCOL.looks,
    }
)

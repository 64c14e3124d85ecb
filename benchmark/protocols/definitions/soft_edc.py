"""soft-edc@1, soft-edc-linear@1: soft labels as EDC's program gives them (Shao et al., NeurIPS 2024).

Its labels are the mean of four teachers' outputs, stored in half precision; students minimise the squared difference
from them and a fortieth of the cross-entropy, and a running mean of their weights is tested. The two differ in their
learning rates alone: soft-edc has the half cosine that the program's option names (`--ls-type cos --st 2`);
soft-edc-linear the line that the program runs with this option, since a second chain of conditions, which knows no
`cos`, puts a linear schedule in the cosine's place (Branch_full_ImageNet_1k/train/train_FKD_parallel.py:274-289). The
program names a shuffling of an image's four patches, but joins them again in their old order
(shaoshitong/EDC @80116a7 Branch_full_ImageNet_1k/relabel/utils_fkd.py:33-50), and labels are made without it: so images
are not shuffled here.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import Crop, HalfCosine, Linear, Protocol
from ddbench.benchmark.protocols.definitions.soft_fkd import FKD
from ddbench.benchmark.protocols.lengths import LooksFromFirst
from ddbench.benchmark.protocols.soft.committees import Committee, Member, Members
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION

PROTOCOL: Protocol = FKD.model_copy(
    update={
        "name": "soft-edc",
        "summary": "soft labels, 224 px, 300 epochs in batches of 100, squared errors to four teachers (EDC)",
        "batch_size": 100,
        "batchnorm_parts": None,
        "weight_average": 0.99,
        "schedule": HalfCosine(),
        "augmentation": Crop(shuffle=False, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip_probability=0.5),
        "loss": "mse-to-teacher",
        "cross_entropy_weight": 0.025,
        "teacher": Committee(
            members=(
                Members(
                    teachers=tuple(
                        Member(network=network, imagenet_1k=TORCHVISION[network].sha256)
                        for network in ("resnet18_bn", "mobilenet_v2", "shufflenet_v2_x0_5", "alexnet")
                    )
                ),
            ),
            stored_bits=16,
        ),
        "looks": LooksFromFirst(every=30),
    }
)
LINEAR: Protocol = PROTOCOL.model_copy(
    update={
        "name": "soft-edc-linear",
        "summary": "soft labels, 224 px, soft-edc at the learning rates that EDC's program runs: a line to half (EDC)",
        "schedule": Linear(stretch=2),
    }
)

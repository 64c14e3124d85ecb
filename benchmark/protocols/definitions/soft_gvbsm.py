"""soft-gvbsm@1: soft labels as G-VBSM's program gives them (Shao et al., CVPR 2024).

Its labels are the mean of four teachers' outputs, each batch's brought to one norm first, stored in half precision as
in soft-fkd; students minimise the squared difference from them and a tenth of the cross-entropy. Their BatchNorm sees
512 images at once, that of ResNet-50 and -101 128, as the program trains them on two GPUs.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions.soft_fkd import FKD
from ddbench.benchmark.protocols.soft.committees import Committee, Member, Members
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION

PROTOCOL: Protocol = FKD.model_copy(
    update={
        "name": "soft-gvbsm",
        "summary": "soft labels, 224 px, 300 epochs in batches of 1024, squared errors to four teachers (G-VBSM)",
        "batchnorm_parts_of": (("resnet50_bn", 8), ("resnet101_bn", 8)),
        "loss": "mse-to-teacher",
        "cross_entropy_weight": 0.1,
        "teacher": Committee(
            members=(
                Members(
                    teachers=tuple(
                        Member(network=network, imagenet_1k=TORCHVISION[network].sha256)
                        for network in ("resnet18_bn", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5")
                    )
                ),
            ),
            scaled=True,
            stored_bits=16,
        ),
    }
)

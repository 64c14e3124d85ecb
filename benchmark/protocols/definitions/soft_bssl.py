"""soft-bssl-1@1, soft-bssl-4@1, soft-bssl-5@1, soft-bssl-1-cvdd@1, soft-bssl-5-64@1, soft-bssl-1-cvdd-64@1: soft labels
as the programs of FADRM (arXiv 2506.24125) and CV-DD (arXiv 2501.07575) give them.

Teachers are in training mode, so that their BatchNorm takes the statistics of the crops that they label
("batch-specific soft labels", CV-DD): they and the student see a batch in two halves. Both programs have a learning
rate and a stretch of the cosine for each dataset, student and IPC, and train in no other cells.

| protocol | numbers of | teachers | rates, looks |
|---|---|---|---|
| soft-bssl-1 | FADRM | ResNet-18 | FADRM's |
| soft-bssl-4 | FADRM+ | four, equal | FADRM's |
| soft-bssl-5 | CV-DD | five, by their scores | CV-DD's |
| soft-bssl-1-cvdd | SRe2L++, in CV-DD's table | ResNet-18 | CV-DD's |
| soft-bssl-5-64 | CV-DD on Tiny-ImageNet | five, by their scores, with stems for small images | CV-DD's |
| soft-bssl-1-cvdd-64 | SRe2L++ there | ResNet-18 with such a stem | CV-DD's |

The last two train at 64 px, in batches of 16, and test images are seen as they are.

On Nette, CV-DD's scripts label in batches of 10 and train students in batches of 16 at IPC 10 and 50, for which there
are no labels then; here it is 10 throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ddbench.benchmark.protocols.base import CellRate, Protocol, Teacher
from ddbench.benchmark.protocols.definitions.soft_fkd import FKD
from ddbench.benchmark.protocols.definitions.soft_rded import RESNET18_IMAGENET1K_V1
from ddbench.benchmark.protocols.lengths import LateLooks, LooksFromFirst
from ddbench.benchmark.protocols.network_names import CIFAR
from ddbench.benchmark.protocols.soft.committees import Committee, Member, Members
from ddbench.benchmark.protocols.soft.torchvision_weights import TORCHVISION

_RATES = {
    ("imagenet-1k", "resnet18_bn"): ((1, 1e-3, 2), (10, 1e-3, 2), (50, 1e-3, 1)),
    ("imagenet-1k", "resnet50_bn"): ((1, 5e-4, 2), (10, 1e-3, 2), (50, 1e-3, 1)),
    ("imagenet-1k", "resnet101_bn"): ((1, 3.5e-3, 2), (10, 1e-3, 2), (50, 5e-4, 1)),
    ("woof", "resnet18_bn"): ((1, 5e-4, 2), (10, 5e-4, 1), (50, 1e-3, 2)),
    ("woof", "resnet50_bn"): ((1, 5e-4, 2), (10, 5e-3, 1), (50, 5e-4, 1)),
    ("woof", "resnet101_bn"): ((1, 1e-3, 1), (10, 5e-4, 2), (50, 5e-4, 1)),
    ("nette", "resnet18_bn"): ((1, 5e-4, 2), (10, 5e-4, 1), (50, 5e-4, 2)),
    ("nette", "resnet50_bn"): ((1, 5e-4, 2), (10, 5e-4, 1), (50, 5e-4, 1)),
    ("nette", "resnet101_bn"): ((1, 5e-4, 2), (50, 1e-3, 2)),
}
"""(dataset, student) -> (IPC, learning rate, stretch of the cosine). Nette's IPC 10 with ResNet-101 cannot run."""

_CVDD_RATES = {
    ("imagenet-1k", "resnet18_bn"): ((1, 1e-3, 2), (10, 1e-3, 2), (50, 1e-3, 1)),
    ("imagenet-1k", "resnet50_bn"): ((1, 1e-3, 2), (10, 1e-3, 2), (50, 1e-3, 1)),
    ("imagenet-1k", "resnet101_bn"): ((1, 1e-3, 2), (10, 1e-3, 2), (50, 5e-4, 2)),
    ("nette", "resnet18_bn"): ((1, 5e-4, 2), (10, 5e-4, 1), (50, 5e-4, 2)),
    ("nette", "resnet50_bn"): ((1, 5e-4, 2), (10, 1e-3, 1), (50, 5e-4, 1)),
    ("nette", "resnet101_bn"): ((1, 5e-4, 2), (10, 5e-4, 2), (50, 1e-3, 2)),
}
"""As above, of CV-DD's program."""

_CVDD_RATES_64 = {
    ("tiny-imagenet", f"resnet18{CIFAR}"): ((1, 1e-3, 2), (10, 1e-3, 1), (50, 1e-3, 2)),
    ("tiny-imagenet", f"resnet50{CIFAR}"): ((1, 1e-3, 1), (10, 1e-3, 1), (50, 1e-3, 1)),
    ("tiny-imagenet", f"resnet101{CIFAR}"): ((1, 5e-4, 2), (10, 5e-4, 2), (50, 5e-4, 2)),
}
"""As above, for networks with a 3×3 stem."""


def _rates(of: Mapping[tuple[str, str], Sequence[tuple[int, float, float]]]) -> tuple[CellRate, ...]:
    return tuple(
        CellRate(dataset=dataset, student=student, ipc=ipc, learning_rate=rate, stretch=stretch)
        for (dataset, student), cells in of.items()
        for ipc, rate, stretch in cells
    )


def _members(**weights: float) -> tuple[Member, ...]:
    return tuple(
        Member(network=network, weight=weight, imagenet_1k=TORCHVISION[network].sha256)
        for network, weight in weights.items()
    )


def _by_scores(members: Iterable[Members]) -> Committee:
    """CV-DD's: a teacher's share is the softmax of its score / 10."""
    return Committee(members=tuple(members), softmax_of_weights=10.0, temperature=20.0, mode="train", stored_bits=16)


_EQUAL = {"resnet18_bn": 1.0, "shufflenet_v2_x1_0": 1.0, "mobilenet_v2": 1.0}

PROTOCOL: Protocol = FKD.model_copy(
    update={
        "name": "soft-bssl-1",
        "summary": "soft labels, 224 px, 300 epochs in batches of 10 or 16, one teacher in training mode (FADRM)",
        "batch_size": 10,
        "batch_size_beyond_100_classes": 16,
        "batchnorm_parts": 2,
        "rates": _rates(_RATES),
        "teacher": Teacher(
            network="resnet18_bn",
            temperature=20.0,
            imagenet_1k=RESNET18_IMAGENET1K_V1,
            mode="train",
            stored_bits=16,
        ),
        "looks": LateLooks(every=10, beyond=(4, 5)),
    }
)
FOUR: Protocol = PROTOCOL.model_copy(
    update={
        "name": "soft-bssl-4",
        "summary": "soft labels, 224 px, 300 epochs in batches of 10 or 16, four teachers in training mode (FADRM+)",
        "teacher": Committee(
            members=(
                Members(dataset="imagenet-1k", ipc=1, teachers=_members(**_EQUAL, alexnet=1.0)),
                Members(teachers=_members(**_EQUAL, densenet121=1.0)),
            ),
            temperature=20.0,
            mode="train",
            stored_bits=16,
        ),
    }
)
FIVE: Protocol = PROTOCOL.model_copy(
    update={
        "name": "soft-bssl-5",
        "summary": "soft labels, 224 px, 300 epochs in batches of 10 or 16, five teachers in training mode (CV-DD)",
        "rates": _rates(_CVDD_RATES),
        "teacher": _by_scores(
            Members(
                dataset=dataset,
                teachers=_members(
                    resnet18_bn=scores[0],
                    resnet50_bn=scores[1],
                    shufflenet_v2_x1_0=scores[2],
                    mobilenet_v2=scores[3],
                    densenet121=scores[4],
                ),
            )
            for dataset, scores in (
                ("imagenet-1k", (56.4, 42.3, 52.5, 44.2, 40.6)),
                ("nette", (62.4, 52.0, 57.2, 54.0, 60.8)),
            )
        ),
        "looks": LooksFromFirst(every=10),
    }
)
ONE_BY_CVDD: Protocol = PROTOCOL.model_copy(
    update={
        "name": "soft-bssl-1-cvdd",
        "summary": "soft labels, 224 px, 300 epochs in batches of 10 or 16, soft-bssl-1 at CV-DD's rates (SRe2L++)",
        "rates": FIVE.rates,
        "looks": FIVE.looks,
    }
)

_AT_64 = {
    "image_size": 64,
    "test_resize": None,
    "students": (f"resnet18{CIFAR}", f"resnet50{CIFAR}", f"resnet101{CIFAR}"),
    "rates": _rates(_CVDD_RATES_64),
    "batch_size": 16,
    "batch_size_beyond_100_classes": None,
}
FIVE_64: Protocol = FIVE.model_copy(
    update={
        "name": "soft-bssl-5-64",
        "summary": "soft labels, 64 px, 300 epochs in batches of 16, soft-bssl-5 for Tiny-ImageNet (CV-DD)",
        **_AT_64,
        "teacher": _by_scores(
            [
                Members(
                    dataset="tiny-imagenet",
                    teachers=tuple(
                        Member(network=f"{network}{CIFAR}", weight=score)
                        for network, score in (
                            ("resnet18", 46.5),
                            ("resnet50", 28.3),
                            ("shufflenet_v2_x0_5", 43.6),
                            ("mobilenet_v2", 44.8),
                            ("densenet121", 41.5),
                        )
                    ),
                )
            ]
        ),
    }
)
ONE_BY_CVDD_64: Protocol = ONE_BY_CVDD.model_copy(
    update={
        "name": "soft-bssl-1-cvdd-64",
        "summary": "soft labels, 64 px, 300 epochs in batches of 16, soft-bssl-1-cvdd for Tiny-ImageNet (SRe2L++)",
        **_AT_64,
        "teacher": Teacher(network=f"resnet18{CIFAR}", temperature=20.0, mode="train", stored_bits=16),
    }
)

"""soft-bssl-1@1: soft labels as FADRM's program gives them with one teacher (arXiv 2506.24125).

The teacher is in training mode, so that its BatchNorm takes the statistics of the crops that it labels ("batch-specific
soft labels", CV-DD): it and the student see a batch in two halves. The program has a learning rate and a stretch of the
cosine for each dataset, student and IPC, and trains in no other cells. CV-DD and FADRM+ label with four or five
weighted teachers, which this protocol does not have; SRe2L++'s numbers are of CV-DD's program, with other rates.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import CellRate, Protocol, Teacher
from ddbench.benchmark.protocols.definitions.soft_fkd import FKD
from ddbench.benchmark.protocols.definitions.soft_rded import RESNET18_IMAGENET1K_V1
from ddbench.benchmark.protocols.lengths import LateLooks

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

PROTOCOL: Protocol = FKD.model_copy(
    update={
        "name": "soft-bssl-1",
        "summary": "soft labels, 224 px, 300 epochs in batches of 10 or 16, one teacher in training mode (FADRM)",
        "batch_size": 10,
        "batch_size_beyond_100_classes": 16,
        "batchnorm_parts": 2,
        "rates": tuple(
            CellRate(dataset=dataset, student=student, ipc=ipc, learning_rate=rate, stretch=stretch)
            for (dataset, student), cells in _RATES.items()
            for ipc, rate, stretch in cells
        ),
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

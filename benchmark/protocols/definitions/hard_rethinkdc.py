"""hard-rethinkdc@1: the hard-label evaluator of Rethinking Dataset Compression (arXiv 2502.06434), whose program trains
and looks as in soft-fkd-128 but for the labels, and mixes no images."""

from __future__ import annotations

from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions.soft_fkd import FKD_128

PROTOCOL: Protocol = FKD_128.model_copy(
    update={
        "name": "hard-rethinkdc",
        "summary": "hard labels, 224 px, AdamW, 300 epochs in batches of 128, crops of 8 % or more (RethinkDC)",
        "loss": "cross-entropy",
        "teacher": None,
        "cutmix": False,
    }
)

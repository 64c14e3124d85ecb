"""soft-budget@1 and its shorter and longer forms: the same number of student updates and the same teacher for everyone.

Published evaluators with soft labels give the same 10,000 images 3,000 to 187,500 updates, and how many has more to say
than the images (docs/protocols.md, "One budget for all"). Here U updates are taken of batches of 100 whatever the IPC,
and the schedule counts updates. Each length is a protocol of its own, so no table mixes them: 3,000 is what
SRe2L's evaluator gives IPC 10, 187,500 what that of CV-DD and FADRM gives it.

No paper has these numbers: `random` under the same protocol is the companion of each row.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.definitions.soft_fkd import FKD_128
from ddbench.benchmark.protocols.lengths import Updates

PER_EPOCH = 100


def _protocol(name: str, updates: int) -> Protocol:
    protocol: Protocol = FKD_128.model_copy(
        update={
            "name": name,
            "summary": f"soft labels, 224 px, {updates:,} updates of 100 images at every IPC: one budget for all",
            "comparable_with_papers": False,
            "notice": f"{name}: as many updates for every method; not comparable with papers, whose updates differ",
            "batch_size": 100,
            "epochs": Updates(updates=updates, per_epoch=PER_EPOCH),
            "looks": 10,
        }
    )
    return protocol


SHORT = _protocol("soft-budget-3k", 3_000)
PROTOCOL = _protocol("soft-budget", 30_000)
LONG = _protocol("soft-budget-190k", 190_000)

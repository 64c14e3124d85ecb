"""hard-dmgd-adamw@1: what the released program of DMGD runs. It is hard-minimax-sgd with AdamW and five students."""

from __future__ import annotations

from ddbench.benchmark.protocols import hard_minimax_sgd
from ddbench.benchmark.protocols.base import AdamW, Protocol

PROTOCOL = Protocol(
    **{
        **dict(hard_minimax_sgd.PROTOCOL),
        "name": "hard-dmgd-adamw",
        "version": 1,
        "summary": "hard labels, 224 px, AdamW, 2000 epochs at IPC 10 (the released DMGD program)",
        "notice": "not comparable with hard-minimax-sgd: another optimiser",
        # The program sets AdamW's numbers itself, whatever the number of classes.
        "optimiser": AdamW(learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
        "optimiser_beyond_100_classes": None,
        "students_per_set": 5,
    }
)

"""hard-igd-adamw@1: what the released program of IGD runs; DAP's tables use it. It is hard-dmgd-adamw at 256 px with
another normalisation, and Minimax's epochs on the whole training split."""

from __future__ import annotations

from ddbench.benchmark.protocols import hard_dmgd_adamw, hard_minimax_sgd
from ddbench.benchmark.protocols.base import Protocol

PROTOCOL = Protocol(
    **{
        **dict(hard_dmgd_adamw.PROTOCOL),
        "name": "hard-igd-adamw",
        "version": 1,
        "summary": "hard labels, 256 px, AdamW, 2000 epochs at IPC 10 (the released IGD program, DAP)",
        "notice": "not comparable with hard-minimax-sgd or hard-dmgd-adamw: 256 px and another normalisation",
        "image_size": 256,
        "mean": (0.5,),
        "std": (0.5,),
        # Its --epochs is Minimax's by default, not DMGD's.
        "epochs": hard_minimax_sgd.PROTOCOL.epochs,
        "looks_of_full": None,
    }
)

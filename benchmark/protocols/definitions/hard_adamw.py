"""hard-dmgd-adamw@1 and hard-igd-adamw@1: what the released programs of DMGD and IGD run. DAP's tables use the second.

The first is hard-minimax-sgd with AdamW, five students, and 1000 epochs on the whole training split; the second is the
first at 256 px with another normalisation, and Minimax's epochs on the whole training split.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import AdamW, Protocol
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd
from ddbench.benchmark.protocols.lengths import LateLooks

DMGD = Protocol(
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
        # Without an IPC the program trains for the default of its --epochs, and looks after every epoch.
        "epochs": hard_minimax_sgd.PROTOCOL.epochs.model_copy(update={"full": 1000}),
        "looks_of_full": LateLooks(every=1, beyond=(0, 1)),
    }
)

IGD = Protocol(
    **{
        **dict(DMGD),
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

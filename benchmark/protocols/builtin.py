"""The built-in protocols, as data: nothing is imported until one is used."""

from __future__ import annotations

from ddbench.benchmark.core.registry import Entry

ENTRIES: list[Entry] = [
    Entry(
        "quick",
        "ddbench.benchmark.protocols.definitions.quick:PROTOCOL",
        "small ConvNet at the dataset's own resolution, seconds per student on a CPU; not comparable with papers",
        tags=("embedded",),
    ),
    Entry(
        "hard-minimax-sgd",
        "ddbench.benchmark.protocols.definitions.hard_minimax_sgd:PROTOCOL",
        "hard labels, 224 px, SGD, 2000 epochs at IPC 10 (Minimax, IDC, MGD3)",
        tags=("paper",),
    ),
    Entry(
        "hard-dmgd-adamw",
        "ddbench.benchmark.protocols.definitions.hard_adamw:DMGD",
        "hard labels, 224 px, AdamW, 2000 epochs at IPC 10 (the released DMGD program)",
        tags=("paper",),
    ),
    Entry(
        "hard-igd-adamw",
        "ddbench.benchmark.protocols.definitions.hard_adamw:IGD",
        "hard labels, 256 px, AdamW, 2000 epochs at IPC 10 (the released IGD program, DAP)",
        tags=("paper",),
    ),
    Entry(
        "soft-rded-shuffle",
        "ddbench.benchmark.protocols.definitions.soft_rded:SHUFFLE",
        "soft labels, 224 px, 300 epochs; the four patches of a collage shuffled, crops of half or more (RDED, CaO2)",
        tags=("paper",),
    ),
    Entry(
        "soft-rded-half",
        "ddbench.benchmark.protocols.definitions.soft_rded:HALF",
        "soft labels, 224 px, 300 epochs; crops of half or more of whole images (RDED's without shuffling)",
        tags=("paper",),
    ),
    Entry(
        "soft-rded-crop",
        "ddbench.benchmark.protocols.definitions.soft_rded:CROP",
        "soft labels, 224 px, 300 epochs; crops of 8 % or more of whole images (D3HR)",
        tags=("paper",),
    ),
    Entry(
        "soft-stored",
        "ddbench.benchmark.protocols.definitions.soft_stored:PROTOCOL",
        "the soft labels that come with a set made elsewhere, one an image, at the dataset's own resolution",
    ),
]

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
        "soft-delt",
        "ddbench.benchmark.protocols.definitions.soft_delt:PROTOCOL",
        "soft labels, 224 px, 300 epochs; RandAugment, then crops of a quarter or more (DELT)",
        tags=("paper",),
    ),
    Entry(
        "soft-fkd",
        "ddbench.benchmark.protocols.definitions.soft_fkd:FKD",
        "soft labels, 224 px, 300 epochs in batches of 1024, crops of 8 % or more (SRe2L, CDA, D4M)",
        tags=("paper",),
    ),
    Entry(
        "soft-fkd-128",
        "ddbench.benchmark.protocols.definitions.soft_fkd:FKD_128",
        "soft labels, 224 px, 300 epochs in batches of 128, crops of 8 % or more (LPLD, DWA, RethinkDC)",
        tags=("paper",),
    ),
    Entry(
        "hard-rethinkdc",
        "ddbench.benchmark.protocols.definitions.hard_rethinkdc:PROTOCOL",
        "hard labels, 224 px, AdamW, 300 epochs in batches of 128, crops of 8 % or more (RethinkDC)",
        tags=("paper",),
    ),
    Entry(
        "hard-nodistill",
        "ddbench.benchmark.protocols.definitions.hard_nodistill:PROTOCOL",
        "hard labels, 224 px, AdamW, 3001 epochs with siamese augmentation (A Label is Worth a Thousand Images)",
        tags=("paper",),
    ),
    Entry(
        "dc-convnet3",
        "ddbench.benchmark.protocols.definitions.dc_convnet3:PROTOCOL",
        "hard labels, the dataset's own resolution, SGD, 1001 epochs with siamese augmentation (DSA, DM)",
        tags=("paper",),
    ),
    Entry(
        "dc-convnet3-zca",
        "ddbench.benchmark.protocols.definitions.dc_convnet3_zca:PROTOCOL",
        "dc-convnet3 on images whitened by ZCA (MTT's evaluator, at one learning rate for every set)",
        tags=("paper",),
    ),
    Entry(
        "soft-bssl-1",
        "ddbench.benchmark.protocols.definitions.soft_bssl:PROTOCOL",
        "soft labels, 224 px, 300 epochs in batches of 10 or 16, one teacher in training mode (FADRM)",
        tags=("paper",),
    ),
    Entry(
        "soft-bssl-4",
        "ddbench.benchmark.protocols.definitions.soft_bssl:FOUR",
        "soft labels, 224 px, 300 epochs in batches of 10 or 16, four teachers in training mode (FADRM+)",
        tags=("paper",),
    ),
    Entry(
        "soft-bssl-5",
        "ddbench.benchmark.protocols.definitions.soft_bssl:FIVE",
        "soft labels, 224 px, 300 epochs in batches of 10 or 16, five teachers in training mode (CV-DD)",
        tags=("paper",),
    ),
    Entry(
        "soft-bssl-1-cvdd",
        "ddbench.benchmark.protocols.definitions.soft_bssl:ONE_BY_CVDD",
        "soft labels, 224 px, 300 epochs in batches of 10 or 16, soft-bssl-1 at CV-DD's rates (SRe2L++)",
        tags=("paper",),
    ),
    Entry(
        "soft-gvbsm",
        "ddbench.benchmark.protocols.definitions.soft_gvbsm:PROTOCOL",
        "soft labels, 224 px, 300 epochs in batches of 1024, squared errors to four teachers (G-VBSM)",
        tags=("paper",),
    ),
    Entry(
        "soft-edc",
        "ddbench.benchmark.protocols.definitions.soft_edc:PROTOCOL",
        "soft labels, 224 px, 300 epochs in batches of 100, squared errors to four teachers (EDC)",
        tags=("paper",),
    ),
    Entry(
        "soft-edc-linear",
        "ddbench.benchmark.protocols.definitions.soft_edc:LINEAR",
        "soft labels, 224 px, soft-edc at the learning rates that EDC's program runs: a line to half (EDC)",
        tags=("paper",),
    ),
    Entry(
        "soft-rded-whole-64",
        "ddbench.benchmark.protocols.definitions.soft_rded:WHOLE_64",
        "soft labels, 64 px, 300 epochs in batches of 100; whole images (RDED on Tiny-ImageNet)",
        tags=("paper",),
    ),
    Entry(
        "soft-delt-64",
        "ddbench.benchmark.protocols.definitions.soft_delt:AT_64",
        "soft labels, 64 px, 300 epochs in batches of 100; soft-delt for Tiny-ImageNet (DELT)",
        tags=("paper",),
    ),
    Entry(
        "soft-bssl-5-64",
        "ddbench.benchmark.protocols.definitions.soft_bssl:FIVE_64",
        "soft labels, 64 px, 300 epochs in batches of 16, soft-bssl-5 for Tiny-ImageNet (CV-DD)",
        tags=("paper",),
    ),
    Entry(
        "soft-bssl-1-cvdd-64",
        "ddbench.benchmark.protocols.definitions.soft_bssl:ONE_BY_CVDD_64",
        "soft labels, 64 px, 300 epochs in batches of 16, soft-bssl-1-cvdd for Tiny-ImageNet (SRe2L++)",
        tags=("paper",),
    ),
    *(
        Entry(
            name,
            f"ddbench.benchmark.protocols.definitions.soft_budget:{attribute}",
            f"soft labels, 224 px, {updates:,} updates of 100 images at every IPC: one budget for all",
        )
        for name, attribute, updates in (
            ("soft-budget-3k", "SHORT", 3_000),
            ("soft-budget", "PROTOCOL", 30_000),
            ("soft-budget-190k", "LONG", 190_000),
        )
    ),
    Entry(
        "soft-stored",
        "ddbench.benchmark.protocols.definitions.soft_stored:PROTOCOL",
        "the soft labels that come with a set made elsewhere, one an image, at the dataset's own resolution",
    ),
]

UNAVAILABLE = {
    "soft-sre2l-64": "evaluator of SRe2L's program for Tiny-ImageNet (zeyuanyin/tiny-imagenet): 100 epochs of SGD at "
    "0.2 with a warm-up of five, the divergence times T², no CutMix, the dataset's own mean and std; no protocol here "
    "has a warm-up or a T², and teachers here take ImageNet's mean and std",
    "soft-cim": "evaluator of CIM: factor crops and DSA, MSE on outputs",
    "soft-nodistill": "evaluator of A Label is Worth a Thousand Images: one label an image, of an expert stopped at an "
    "epoch and learning rate of each IPC, where teachers here are trained to their end; the labels of such an expert "
    "can come with a set, --protocol soft-stored",
    "glad": "evaluator of GLaD: 128 px, DSA, the mean of four architectures",
}
"""Evaluators that published numbers name and that are not here, and why."""

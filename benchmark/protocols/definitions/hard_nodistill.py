"""hard-nodistill@1: the hard-label evaluator of "A Label is Worth a Thousand Images", as its command for ImageNet-1K
has it but for the expert (Qin et al., NeurIPS 2024, arXiv 2406.10485; sunnytqin/no-distillation).

The program counts epochs from 0 to 3000, so it trains 3001; its learning rate is 0 in the last. It looks after those
with the numbers 200, 400, … 3000, and here a look is after the first too. Learning rates are those of the paper's table
of hyperparameters, which is of its soft labels and of ImageNet-1K (that command, of IPC 1, has 5e-3 where the table has
1e-3); which ones its hard labels had, and whether 3000 epochs were run beyond IPC 1, no source says.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD, AdamW, CellRate, Cosine, Protocol
from ddbench.benchmark.protocols.definitions import dc_convnet3
from ddbench.benchmark.protocols.lengths import EpochTable, LooksFromFirst

EPOCHS = 3001
STRETCH = (EPOCHS - 1) / EPOCHS
_RATES = ((1, 1e-3), (10, 5e-3), (50, 5e-3), (100, 5e-3), (200, 2e-3))
"""(IPC, learning rate)."""

PROTOCOL = Protocol(
    name="hard-nodistill",
    version=1,
    summary="hard labels, 224 px, AdamW, 3001 epochs with siamese augmentation (A Label is Worth a Thousand Images)",
    comparable_with_papers=True,
    image_size=224,
    channels=3,
    test_resize=(8, 7),  # 256 for 224
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    students=("resnet18_bn",),
    students_per_set=5,
    optimiser=AdamW(learning_rate=5e-3, betas=(0.9, 0.999), weight_decay=0.01),
    rates=tuple(
        CellRate(dataset="imagenet-1k", student="resnet18_bn", ipc=ipc, learning_rate=rate, stretch=STRETCH)
        for ipc, rate in _RATES
    ),
    batch_size=256,
    schedule=Cosine(stretch=STRETCH),
    epochs=EpochTable.constant(EPOCHS),
    augmentation=dc_convnet3.PROTOCOL.augmentation,
    cutmix=False,
    looks=LooksFromFirst(every=200),
    # The program pins PyTorch 1.13, with TF32 in convolutions but not in matrix products, and turns the search off.
    tf32_convolutions=True,
    tf32_matmul=False,
    cudnn_benchmark=False,
)

"""hard-minimax-sgd@1: what the released program of Minimax Diffusion (Gu et al., CVPR 2024) runs; its ancestor is IDC
(Kim et al., ICML 2022). Hard labels, 224 px, SGD. MGD3 and ManifoldGD train their students so too."""

from __future__ import annotations

from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD, CropColour, Protocol, Sgd
from ddbench.benchmark.protocols.lengths import EpochTable

PROTOCOL = Protocol(
    name="hard-minimax-sgd",
    version=1,
    summary="hard labels, 224 px, SGD, 2000 epochs at IPC 10 (Minimax, IDC, MGD3)",
    comparable_with_papers=True,
    image_size=224,
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    students=("resnet_ap10", "resnet18", "convnet6"),
    students_per_set=3,
    optimiser=Sgd(learning_rate=0.01, momentum=0.9, weight_decay=5e-4),
    optimiser_beyond_100_classes=Sgd(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    batch_size=64,
    batch_size_beyond_100_classes=128,
    epochs=EpochTable(
        up_to=((1, 3000), (10, 2000), (50, 1500), (200, 1000), (500, 500)),
        beyond=300,
        full=300,
        two_thirds_at_100_classes=True,
    ),
    augmentation=CropColour(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip_probability=0.5, jitter=0.4, lighting_std=0.1),
    cutmix=True,
    looks=100,
    # What PyTorch does on an Ampere GPU when a program sets nothing: TF32 in convolutions, not in matrix products.
    tf32_convolutions=True,
    tf32_matmul=False,
    cudnn_benchmark=True,
)

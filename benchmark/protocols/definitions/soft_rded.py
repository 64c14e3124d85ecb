"""soft-rded-shuffle@1, soft-rded-half@1, soft-rded-crop@1: soft labels as RDED's program gives them (Sun et al., CVPR
2024). The three differ in the crops alone, since the programs that cite this evaluator do; so the crop is in the name.

soft-rded-whole-64@1 is what that program does with Tiny-ImageNet: its scripts for it have a factor of 1, by which a
crop has the whole image and nothing is shuffled; 100 images a step at every IPC; ResNets with a 3×3 stem for student
and teacher; test images are brought to 64 // 7 · 8 = 72 px, then cropped.

The original's extra forward pass, which moves BatchNorm's statistics twice a step, is the override `second_pass`.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AdamW,
    Crop,
    HalfCosine,
    Protocol,
    Teacher,
)
from ddbench.benchmark.protocols.lengths import BatchTable, EpochTable, LateLooks
from ddbench.benchmark.protocols.network_names import MODIFIED

RESNET18_IMAGENET1K_V1 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
"""SHA-256 of torchvision's `resnet18-f37072fd.pth`. timm's ResNet-18 is trained otherwise and gives other labels."""


def _protocol(crops: str, summary: str, *, shuffle: bool, scale: tuple[float, float]) -> Protocol:
    return Protocol(
        name=f"soft-rded-{crops}",
        version=1,
        summary=summary,
        comparable_with_papers=True,
        image_size=224,
        channels=3,
        test_resize=(8, 7),  # 256 for 224
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        students=("resnet18_bn", "resnet50_bn", "resnet101_bn"),
        students_per_set=3,
        optimiser=AdamW(learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.01, decay_above_dimensions=1),
        learning_rate_of=(
            ("timm:vit", 1e-4),
            ("timm:swin", 1e-4),
            ("timm:efficientnet_b0", 2e-3),
            ("timm:mobilenetv2", 2.5e-3),
            ("timm:vgg11", 5e-4),
        ),
        batch_size=BatchTable(at=((1, 10), (10, 50), (50, 100)), doubled_from_classes=100),
        schedule=HalfCosine(),
        epochs=EpochTable.constant(300),
        augmentation=Crop(shuffle=shuffle, scale=scale, ratio=(3 / 4, 4 / 3), flip_probability=0.5),
        cutmix=True,
        loss="kl-to-teacher",
        teacher=Teacher(network="resnet18_bn", temperature=20.0, imagenet_1k=RESNET18_IMAGENET1K_V1),
        looks=LateLooks(every=10, beyond=(4, 5)),
        # What PyTorch does on an Ampere GPU when a program sets nothing: TF32 in convolutions, not in matrix products.
        tf32_convolutions=True,
        tf32_matmul=False,
        cudnn_benchmark=True,
    )


SHUFFLE = _protocol(
    "shuffle",
    "soft labels, 224 px, 300 epochs; the four patches of a collage shuffled, crops of half or more (RDED, CaO2)",
    shuffle=True,
    scale=(0.5, 1.0),
)
HALF = _protocol(
    "half",
    "soft labels, 224 px, 300 epochs; crops of half or more of whole images (RDED's without shuffling)",
    shuffle=False,
    scale=(0.5, 1.0),
)
CROP = _protocol(
    "crop",
    "soft labels, 224 px, 300 epochs; crops of 8 % or more of whole images (D3HR)",
    shuffle=False,
    scale=(0.08, 1.0),
)
WHOLE_64 = HALF.model_copy(
    update={
        "name": "soft-rded-whole-64",
        "summary": "soft labels, 64 px, 300 epochs in batches of 100; whole images (RDED on Tiny-ImageNet)",
        "image_size": 64,
        "test_resize": (9, 8),  # 72 for 64
        "students": (f"resnet18{MODIFIED}", f"resnet101{MODIFIED}"),
        "batch_size": 100,
        "augmentation": Crop(shuffle=False, scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3), flip_probability=0.5),
        "teacher": Teacher(network=f"resnet18{MODIFIED}", temperature=20.0),
    }
)

"""soft-fkd@1 and soft-fkd-128@1: soft labels as the programs around SRe2L give them (Yin et al., NeurIPS 2023).

There a teacher's outputs on every crop of every epoch are stored before the first student is trained ("fast knowledge
distillation", Shen and Xing, ECCV 2022), in half precision. Here they are computed as the student meets the crop and
rounded to half precision, which is the same label; what storing them takes is counted (`stored_label_bytes`).

soft-fkd is SRe2L's, CDA's and D4M's: batches of 1024, of which BatchNorm sees 512 at once. soft-fkd-128 is that of the
programs that train on batches of 128 (LPLD, DWA; Rethinking Dataset Compression's, whose labels are not stored).
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD, AdamW, Cosine, Crop, Protocol, Teacher
from ddbench.benchmark.protocols.definitions.soft_rded import RESNET18_IMAGENET1K_V1
from ddbench.benchmark.protocols.lengths import EpochTable, LooksFromFirst

FKD = Protocol(
    name="soft-fkd",
    version=1,
    summary="soft labels, 224 px, 300 epochs in batches of 1024, crops of 8 % or more (SRe2L, CDA, D4M)",
    comparable_with_papers=True,
    image_size=224,
    channels=3,
    test_resize=(8, 7),  # 256 for 224
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    students=("resnet18_bn", "resnet50_bn", "resnet101_bn"),
    students_per_set=3,
    optimiser=AdamW(learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.01, decay_above_dimensions=1),
    batch_size=1024,
    batchnorm_parts=2,
    schedule=Cosine(),
    epochs=EpochTable.constant(300),
    augmentation=Crop(shuffle=False, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip_probability=0.5),
    cutmix=True,
    loss="kl-to-teacher",
    teacher=Teacher(network="resnet18_bn", temperature=20.0, imagenet_1k=RESNET18_IMAGENET1K_V1, stored_bits=16),
    looks=LooksFromFirst(every=10),
    # What PyTorch does on an Ampere GPU when a program sets nothing: TF32 in convolutions, not in matrix products.
    tf32_convolutions=True,
    tf32_matmul=False,
    cudnn_benchmark=True,
)
FKD_128 = FKD.model_copy(
    update={
        "name": "soft-fkd-128",
        "summary": "soft labels, 224 px, 300 epochs in batches of 128, crops of 8 % or more (LPLD, DWA, RethinkDC)",
        "batch_size": 128,
        "batchnorm_parts": None,
        "teacher": Teacher(network="resnet18_bn", temperature=20.0, imagenet_1k=RESNET18_IMAGENET1K_V1),
        "looks": LooksFromFirst(every=50),
    }
)

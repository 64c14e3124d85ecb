"""Students as the released programs of Minimax and DMGD train them, in plain PyTorch: a DataLoader, transforms of one
image after the other, optimiser and schedule as PyTorch gives them. What our trainer's speed is held against.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ddbench.benchmark.protocols.base import IMAGENET_MEAN, IMAGENET_STD

JITTER = 0.4
GREY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
EIGENVALUES = torch.tensor([0.2175, 0.0188, 0.0045])
EIGENVECTORS = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class Images(Dataset[Any]):
    """PIL images in memory, transformed as they are asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: v2.Compose) -> None:
        self.images, self.labels, self.transform = [Image.fromarray(image) for image in images], labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def jitter(image: Tensor) -> Tensor:
    """Brightness, contrast and saturation in random order."""
    for kind in torch.randperm(3).tolist():
        toward = [torch.zeros(()), (GREY * image).sum(0).mean(), (GREY * image).sum(0, keepdim=True)][kind]
        alpha = 1 + (2 * torch.rand(()) - 1) * JITTER
        image = alpha * image + (1 - alpha) * toward
    return image


def lighting(image: Tensor) -> Tensor:
    return image + (EIGENVECTORS @ (0.1 * torch.randn(3) * EIGENVALUES))[:, None, None]


def transforms(side: int, *, train: bool) -> v2.Compose:
    on_the_image = [v2.Resize(side), v2.CenterCrop(side), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    random: list[Any] = [
        v2.RandomResizedCrop(side, scale=(0.5, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.Lambda(jitter),
        v2.Lambda(lighting),
    ]
    return v2.Compose([*on_the_image, *(random if train else []), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


def mixed_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy under CutMix."""
    side, partners = images.shape[-1], torch.randperm(len(images))
    half = int(side * math.sqrt(1 - np.random.beta(1, 1))) // 2  # noqa: NPY002 - as programs draw it
    (top, bottom), (left, right) = (
        np.clip([centre - half, centre + half], 0, side)
        for centre in np.random.randint(side, size=2)  # noqa: NPY002
    )
    images = images.clone()
    images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    own, logits = 1 - (bottom - top) * (right - left) / side**2, network(images)
    return own * F.cross_entropy(logits, labels) + (1 - own) * F.cross_entropy(logits, labels[partners])


def train(
    network: nn.Module,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    epochs: int,
    batch_size: int = 64,
) -> float:
    """Train with AdamW, look at the test images a hundred times, and give the last accuracy in percent."""
    side = train[0].shape[1]
    batches = DataLoader(Images(*train, transforms(side, train=True)), batch_size, shuffle=True)
    tests = DataLoader(Images(*test, transforms(side, train=False)), batch_size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2 * epochs // 3, 5 * epochs // 6], gamma=0.2)
    accuracy = 0.0
    for epoch in range(1, epochs + 1):
        network.train()
        for images, labels in batches:
            loss = mixed_loss(network, images, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()  # a program adds it up for its log
        schedule.step()
        if epoch % max(1, epochs // 100) == 0:
            network.eval()
            with torch.no_grad():
                hits = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in tests)
            accuracy = 100 * hits / len(test[1])
    return accuracy

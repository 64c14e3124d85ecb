"""torchvision's classifiers of ImageNet-1K (`IMAGENET1K_V1`): the teachers there, one file each. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TorchvisionWeights:
    """The trained weights of one network."""

    file: str
    """Name of the file, as torchvision publishes it."""
    sha256: str
    """SHA-256 of the file; of the ShuffleNets its first ten digits, which torchvision's file names and its own check
    of a download have."""
    accuracy: float
    """Top-1 on ImageNet-1K's validation images, percent, as torchvision publishes it."""
    weights: str
    """What torchvision calls them."""


TORCHVISION: dict[str, TorchvisionWeights] = {
    "resnet18_bn": TorchvisionWeights(
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        69.758,
        "ResNet18_Weights.IMAGENET1K_V1",
    ),
    "resnet50_bn": TorchvisionWeights(
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        76.13,
        "ResNet50_Weights.IMAGENET1K_V1",
    ),
    "mobilenet_v2": TorchvisionWeights(
        "mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        71.878,
        "MobileNet_V2_Weights.IMAGENET1K_V1",
    ),
    "densenet121": TorchvisionWeights(
        "densenet121-a639ec97.pth",
        "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
        74.434,
        "DenseNet121_Weights.IMAGENET1K_V1",
    ),
    "efficientnet_b0": TorchvisionWeights(
        "efficientnet_b0_rwightman-7f5810bc.pth",
        "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
        77.692,
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
    ),
    "shufflenet_v2_x1_0": TorchvisionWeights(
        "shufflenetv2_x1-5666bf0f80.pth", "5666bf0f80", 69.362, "ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1"
    ),
    "shufflenet_v2_x0_5": TorchvisionWeights(
        "shufflenetv2_x0.5-f707e7126e.pth", "f707e7126e", 60.552, "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    ),
    "alexnet": TorchvisionWeights(
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        56.522,
        "AlexNet_Weights.IMAGENET1K_V1",
    ),
}
"""Network -> its weights."""

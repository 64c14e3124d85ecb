"""Tiny-ImageNet-200 (Stanford's CS231N, 2015): 200 of ImageNet's classes at 64 px, from files that people have.

Its labelled validation images are the test part; the images of its own test part have no labels. Labels follow the
sorted wnids, as in every program that reads it through folders: the archive's `wnids.txt` has another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ddbench.datasets.base import Default, Headline
from ddbench.datasets.imagenet.classes import CLASS_NAMES, LISTS
from ddbench.datasets.imagenet.sources import Source
from ddbench.datasets.imagenet.splits import Expected
from ddbench.datasets.imagenet.wnid_dataset import WnidDataset
from ddbench.datasets.tiny_imagenet.places import sources_at

SPLIT = "default"
WNIDS = tuple((LISTS / "tiny_imagenet_wnids.txt").read_text(encoding="utf-8").split())
"""In label order."""
TRAIN_PER_CLASS, TEST_PER_CLASS = 500, 50
WARNING = (
    "the files of tiny-imagenet do not say which of ImageNet's images its test images are: priors, teachers and "
    "classifiers trained on ImageNet may have seen them."
)


class TinyImageNet(WnidDataset):
    """200 classes: 100,000 training and 10,000 test images of 64 px."""

    name = "tiny-imagenet"
    class_ids, class_names = WNIDS, tuple(CLASS_NAMES[wnid] for wnid in WNIDS)
    resolution = 64
    splits = (SPLIT,)
    headline = Headline(protocol="quick", student="convnet3", ipc=(1, 10, 50), sets=3, students=3)
    names_said = "tiny-imagenet's"
    expected: ClassVar[Mapping[str, Expected]] = {
        SPLIT: Expected(
            test=dict.fromkeys(WNIDS, TEST_PER_CLASS),
            train=dict.fromkeys(WNIDS, TRAIN_PER_CLASS),
            n_train=TRAIN_PER_CLASS * len(WNIDS),
            warning=WARNING,
        )
    }

    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {
        "sre2l": {
            "network": Default("resnet18_modified", "the form of SRe2L's, CDA's and DELT's programs for it"),
            "jitter": Default(4 / 64, "4 pixels in SRe2L's, CDA's and CV-DD's programs for it"),
        },
        "sre2l-pp": {"network": Default("resnet18_cifar", "the form of CV-DD's program for it")},
        "cv-dd": {
            "network": Default(
                "resnet18_cifar+resnet50_cifar+shufflenet_v2_x0_5_cifar+mobilenet_v2_cifar+densenet121_cifar",
                "the five of CV-DD's program for it, for small images",
            ),
            "committee_scores": Default("46.5+28.3+43.6+44.8+41.5", "the accuracies that CV-DD's program has for it"),
        },
        "cda": {
            "image_learning_rate": Default(0.4, "CDA's command for it"),
            "statistics_weight": Default(0.05, "CDA's command for it"),
        },
        "fadrm": {
            "network": Default("resnet18_cifar", "the form of FADRM's program for it"),
            "image_learning_rate": Default(0.01, "FADRM's script for it"),
            "steps": Default(1000, "FADRM's script for it"),
            "stages": Default(2, "FADRM's script for it"),
            "stage_scale": Default(1.0, "64 px in all stages of FADRM's script for it"),
        },
        "fadrm-plus": {
            "network": Default(
                "resnet18_cifar+shufflenet_v2_x0_5_cifar+densenet121_cifar+mobilenet_v2_cifar",
                "the four of FADRM's scripts for it, for small images; its script for IPC 1 leaves DenseNet out",
            ),
            "stage_scale": Default(1.0, "64 px in all stages of FADRM's scripts for it"),
        },
        "dwa": {
            "image_learning_rate": Default(0.1, "DWA's script for it"),
            "batch": Default(200, "DWA's script for it"),
            "variance_weight": Default(11.0, "DWA's script for it"),
            "ascent_steps": Default(12, "DWA's script for it"),
            "ascent_size": Default(0.015 / 12, "DWA's script for it"),
        },
        "lpld": {
            "image_learning_rate": Default(0.1, "LPLD's script for it"),
            "statistics_weight": Default(0.05, "LPLD's script for it"),
        },
        "wmdd": {
            "statistics_weight": Default(500.0, "WMDD's readme for it; its script has 1"),
            "image_learning_rate": Default(0.1, "WMDD's script for it"),
        },
    }

    def sources_at(self, path: Path) -> list[Source]:
        return sources_at(path, self.class_ids)

    def named_in_commands(self) -> str:
        return "DIR|tiny-imagenet-200.zip"

    def where_to_get(self) -> list[str]:
        first = self.class_ids[0]
        return [
            "Expected tiny-imagenet-200.zip, or its folder:",
            f"  DIR/train/{first}/images/{first}_*.JPEG   one folder per wnid",
            "  DIR/val/images/val_*.JPEG with DIR/val/val_annotations.txt, or one folder per wnid:",
            f"  DIR/val/{first}/val_*.JPEG, or DIR/val/{first}/images/val_*.JPEG",
            "It is had by",
            "  curl -O http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ]

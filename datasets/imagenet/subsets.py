"""ImageNet-Woof, ImageNette, ImageNet-100 and ImageNet-1K: classes of ILSVRC 2012, from any source that holds them.

Labels go by wnid, and what an image is by its file name: neither the order of folders nor the folder a file lies in
changes a split (`sources.py`, `splits.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ddbench.datasets.base import Default, Headline
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K, IMAGENET_100, NETTE, WOOF
from ddbench.datasets.imagenet.places import sources_at
from ddbench.datasets.imagenet.sources import Source
from ddbench.datasets.imagenet.splits import FASTAI, FIRST_100, IMAGENET, Expected, Names, expected_of
from ddbench.datasets.imagenet.wnid_dataset import WnidDataset


class ImageNetSubset(WnidDataset):
    """Some classes of ImageNet-1K. A subclass is a declaration."""

    resolution = 224
    splits: ClassVar[tuple[str, ...]] = (IMAGENET,)
    prior = "dit-xl-2-256"
    names_said = "ImageNet's"
    archive_stem: ClassVar[str | None] = None
    """Name of fast.ai's archive of these classes, without size and ending."""

    def test_names(self, split: str, data_dir: Path | None) -> Sequence[str]:
        opened = self._open(split, data_dir)
        return Names(opened.index, opened.test, self.class_ids)

    def sources_at(self, path: Path) -> list[Source]:
        return sources_at(path, () if self.archive_stem is None else (self.archive_stem,))

    def hints(self, split: str) -> list[str]:
        return ["Split fastai can be read from fast.ai's own folder or archive only."] if split == FASTAI else []

    def named_in_commands(self) -> str:
        return f"DIR|{self.archive_stem}2.tgz" if self.archive_stem else "DIR"

    def where_to_get(self) -> list[str]:
        first, stem = self.class_ids[0], self.archive_stem
        lines = [
            "Expected a folder of ImageNet (ILSVRC 2012):",
            f"  DIR/train/{first}/{first}_*.JPEG   one folder per wnid",
            f"  DIR/val/{first}/ILSVRC2012_val_*.JPEG, or all in DIR/val/ with DIR/ILSVRC2012_devkit_t12/ beside it",
            "made from the archives of https://image-net.org by",
            "  mkdir -p DIR/train DIR/val && tar xf ILSVRC2012_img_train.tar -C DIR/train",
            "  (cd DIR/train && for f in *.tar; do mkdir ${f%.tar} && tar xf $f -C ${f%.tar} && rm $f; done)",
            "  tar xf ILSVRC2012_img_val.tar -C DIR/val && tar xf ILSVRC2012_devkit_t12.tar.gz -C DIR",
        ]
        if stem is not None:
            lines += [
                f"or fast.ai's {stem}2, any size, as its archive or unpacked (DIR/train/{first}/, DIR/val/{first}/):",
                f"  curl -O https://s3.amazonaws.com/fast-ai-imageclas/{stem}2.tgz",
            ]
        return lines


def _names(class_ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(CLASS_NAMES[wnid] for wnid in class_ids)


def _fifty_each(class_ids: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(class_ids, 50)


def _igd_on_tuned_prior(**values: float | str) -> dict[str, dict[str, Default]]:
    defaults = {
        key: Default(value, "the paper's on the prior that Minimax tunes (Table 7)") for key, value in values.items()
    }
    return dict.fromkeys(("igd-minimax", "igd-minimax-small"), defaults)


class Woof(ImageNetSubset):
    """Ten breeds of dogs: 12,454 training and 500 test images."""

    name = "woof"
    class_ids, class_names = WOOF, _names(WOOF)
    splits = (IMAGENET, FASTAI, FIRST_100)
    headline = Headline(protocol="hard-minimax-sgd", student="resnet_ap10", ipc=(10,), sets=3, students=3)
    expected = expected_of("woof")
    archive_stem = "imagewoof"
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {
        "igd": {"checkpoints": Default("0+5+16+40", "the epochs that IGD's program ships for it")},
        **_igd_on_tuned_prior(deviation_scale="50@10+100"),
        "manifoldgd": {"density_bandwidth": Default(0.2, "ManifoldGD's script for it")},
    }


class Nette(ImageNetSubset):
    """Ten easily told classes: 12,894 training and 500 test images."""

    name = "nette"
    class_ids, class_names = NETTE, _names(NETTE)
    splits = (IMAGENET, FASTAI, FIRST_100)
    headline = Headline(protocol="hard-minimax-sgd", student="resnet_ap10", ipc=(10,), sets=3, students=3)
    expected = expected_of("nette")
    archive_stem = "imagenette"
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {
        "cao2": {
            "pool": Default(2, "CaO2's program for it"),
            "refine_steps": Default(0, "CaO2's program for it runs no latent optimisation"),
        },
        "cv-dd": {
            "committee_scores": Default("62.4+52+57.2+54+60.8", "the accuracies that CV-DD's program has for it"),
            "committee_at_ipc_1": Default(
                "timm:mobilenetv2_100+timm:densenet121", "the pair of CV-DD's program for it"
            ),
        },
        "fadrm": {"image_learning_rate": Default(0.05, "FADRM's script for it")},
        "wmdd": {"statistics_weight": Default(10.0, "WMDD's command for it")},
        **_igd_on_tuned_prior(influence_scale=15.0, deviation_scale="10"),
        "manifoldgd": {
            "density_bandwidth": Default(0.2, "ManifoldGD's script for it"),
            "manifold_radius": Default(0.05, "ManifoldGD's script for it"),
        },
    }


class ImageNet100(ImageNetSubset):
    """The distillation papers' 100 classes: 5,000 test images."""

    name = "imagenet-100"
    class_ids, class_names = IMAGENET_100, _names(IMAGENET_100)
    headline = Headline(protocol="hard-minimax-sgd", student="resnet_ap10", ipc=(10,), sets=3, students=3)
    expected: ClassVar[Mapping[str, Expected]] = {IMAGENET: Expected(_fifty_each(IMAGENET_100))}
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {
        "cao2": {
            "pool": Default(2, "CaO2's program for it"),
            "order": Default("ascending", "CaO2's program for it"),
            "refine_part": Default(8, "CaO2's program for it"),
        },
    }


class ImageNet1K(ImageNetSubset):
    """ILSVRC 2012: 1,281,167 training and 50,000 test images."""

    name = "imagenet-1k"
    class_ids, class_names = IMAGENET_1K, _names(IMAGENET_1K)
    headline = Headline(protocol="hard-minimax-sgd", student="resnet18", ipc=(10,), sets=3, students=1)
    expected: ClassVar[Mapping[str, Expected]] = {IMAGENET: Expected(_fifty_each(IMAGENET_1K), n_train=1_281_167)}
    method_defaults: ClassVar[Mapping[str, Mapping[str, Default]]] = {
        "igd": {
            "checkpoints": Default("0+5+18+52", "the epochs that IGD's program ships for it"),
            "deviation_scale": Default("120", "the paper's for it, at every IPC (Table 7)"),
        },
    }

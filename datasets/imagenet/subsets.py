"""ImageNet-Woof, ImageNette, ImageNet-100 and ImageNet-1K: classes of ILSVRC 2012, from any source that holds them.

Labels go by wnid, and what an image is by its file name: neither the order of folders nor the folder a file lies in
changes a split (`sources.py`, `splits.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.base import Default, Headline, ImageSource, Resize, SplitData
from ddbench.datasets.cache import remember_source, remembered_sources
from ddbench.datasets.file_dataset import FileDataset, Inspection, Prepared, Progress, silent
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K, IMAGENET_100, NETTE, WOOF
from ddbench.datasets.imagenet.opened import OpenedSplit
from ddbench.datasets.imagenet.places import sources_at
from ddbench.datasets.imagenet.sources import Source
from ddbench.datasets.imagenet.splits import (
    FASTAI,
    FIRST_100,
    IMAGENET,
    WARNINGS,
    Expected,
    Names,
    count_images,
    expected_of,
)

DATA_VARIABLE = "DDBENCH_DATA"


class ImageNetSubset(FileDataset):
    """Some classes of ImageNet-1K. A subclass is a declaration."""

    resolution = 224
    splits: ClassVar[tuple[str, ...]] = (IMAGENET,)
    prior = "dit-xl-2-256"
    expected: ClassVar[Mapping[str, Expected]]
    """What each split holds when whole."""
    archive_stem: ClassVar[str | None] = None
    """Name of fast.ai's archive of these classes, without size and ending."""

    def load(self, split: str, data_dir: Path | None, resolution: int) -> SplitData:
        """Open a split; what is not decoded yet at this resolution is decoded first.

        Raises:
            UsageError: unknown split, no source, or a source that does not hold the whole split.
            RunError: corrupt images, or too little free disk.
        """
        return self._open(split, data_dir).at(resolution, silent)

    def train_counts(self, split: str, data_dir: Path | None) -> Mapping[str, int]:
        opened = self._open(split, data_dir)
        return count_images(opened.index, opened.train, self.class_ids)

    def split_hash(self, split: str, data_dir: Path | None) -> str:
        return self._open(split, data_dir).split_hash

    def content_hash(self, split: str, data_dir: Path | None, resolution: int) -> str | None:
        return self._open(split, data_dir).content_hash(resolution)

    def train_at(
        self, split: str, data_dir: Path | None, image_size: int, resize: Resize, progress: Progress = silent
    ) -> ImageSource:
        """The training images at any side, from the files: what is not decoded yet is decoded first.

        Raises:
            UsageError: as `load`.
            RunError: as `load`.
        """
        return self._open(split, data_dir).train_at(image_size, resize, progress)

    def test_at(self, split: str, data_dir: Path | None, image_size: int, progress: Progress = silent) -> ImageSource:
        return self._open(split, data_dir).test_at(image_size, progress)

    def test_names(self, split: str, data_dir: Path | None) -> Sequence[str]:
        opened = self._open(split, data_dir)
        return Names(opened.index, opened.test, self.class_ids)

    def inspect(self, split: str, data_dir: Path | None) -> Inspection:
        self._check_split(split)
        found = self._sources(split, data_dir)
        # The one that a run would open; if there is none, the first: its table says what is missing.
        opened = next((one for one in found if not one.problems), found[0])
        expected = self.expected[split]
        notes = [warning for warning in (WARNINGS.get(split), opened.skipped_warning()) if warning]
        if opened.index.unknown:
            notes.append(f"files with other names than ImageNet's are left out, such as {opened.index.unknown[0]}")
        if opened.problems:
            other = [name for name in self.splits if name != split and not self._on(opened.source, name).problems]
            notes += [f"it holds all of split {name}" for name in other]
        return Inspection(
            source=str(opened.source),
            split=split,
            train=count_images(opened.index, opened.train, self.class_ids),
            test=count_images(opened.index, opened.test, self.class_ids),
            expected_train=expected.train,
            expected_test=expected.test,
            split_hash=opened.split_hash,
            expected_split_hash=expected.split_hash,
            problems=opened.problems,
            notes=tuple(notes),
            decoded=() if opened.problems else opened.decoded_resolutions(),
        )

    def prepare(
        self,
        split: str,
        data_dir: Path | None,
        resolution: int | None,
        *,
        skip_corrupt: bool = False,
        remember: bool = False,
        progress: Progress = silent,
    ) -> Prepared:
        opened = self._open(split, data_dir)
        decoded, warning = 0, None
        if resolution is not None:
            decoded = opened.decode(resolution, progress, skip_corrupt=skip_corrupt)
            opened = self._on(opened.source, split)
            warning = opened.at(resolution, progress).warning
        if remember:
            remember_source(self.name, split, opened.source.path.resolve())
        return Prepared(
            source=str(opened.source),
            n_train=len(opened.train),
            n_test=len(opened.test),
            split_hash=opened.split_hash,
            resolution=resolution,
            decoded=decoded,
            skipped=tuple(f"{location}: {why}" for location, why in opened.skipped.items()),
            folder=opened.source.cache,
            warning=warning,
        )

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UsageError(f"{self.name} has no split {split!r}; known: {', '.join(self.splits)}")

    def _open(self, split: str, data_dir: Path | None) -> OpenedSplit:
        """The one source that holds the whole split.

        Raises:
            UsageError: none does, or several do.
        """
        self._check_split(split)
        found = self._sources(split, data_dir)
        whole = [one for one in found if not one.problems]
        if len(whole) == 1:
            return whole[0]
        if whole:
            listed = "\n".join(f"  {one.source}" for one in whole)
            raise UsageError(
                f"several sources hold {self.name}, split {split}:\n{listed}\nName one of them with --data."
            )
        lines = []
        for one in found:
            lines.append(f"{one.source} does not hold {self.name}, split {split}:")
            lines += [f"  {problem}" for problem in one.problems]
            others = [name for name in self.splits if name != split and not self._on(one.source, name).problems]
            lines += [f"  It holds all of split {name}: use --split {name}" for name in others]
        if split == FASTAI:
            lines.append("Split fastai can be read from fast.ai's own folder or archive only.")
        lines.append(f"`bench verify {self.name} --data {found[0].source.path}` shows every class.")
        raise UsageError("\n".join(lines))

    def _sources(self, split: str, data_dir: Path | None) -> list[OpenedSplit]:
        """Every source at the first usual place that has one, indexed.

        Raises:
            UsageError: there is none.
        """
        stems = () if self.archive_stem is None else (self.archive_stem,)
        looked, problems = [], list[str]()
        for what, path in self._places(split, data_dir):
            looked.append(f"{what} {path}")
            found = []
            try:
                for source in sources_at(path, stems):
                    opened = self._on(source, split)
                    if len(opened.index):
                        found.append(opened)
            except UsageError as error:
                if data_dir is not None:
                    raise
                problems.append(str(error))
            if found:
                return found
        raise UsageError("\n".join([*problems, *self._missing(looked)]))

    def _places(self, split: str, data_dir: Path | None) -> Iterator[tuple[str, Path]]:
        if data_dir is not None:
            yield "--data", data_dir
            return
        if os.environ.get(DATA_VARIABLE):
            yield f"${DATA_VARIABLE}", Path(os.environ[DATA_VARIABLE]).expanduser()
        for path in remembered_sources(self.name, split):
            yield "prepared", path

    def _on(self, source: Source, split: str) -> OpenedSplit:
        return OpenedSplit.of(self.name, self.class_ids, self.expected[split], source, split)

    def _missing(self, looked: Sequence[str]) -> list[str]:
        """What is said where no images of this dataset were found: the expected tree, and what makes it."""
        first, stem = self.class_ids[0], self.archive_stem
        lines = [
            f"{self.name}: found no images of its {len(self.class_ids)} classes "
            f"({'looked at ' + ', '.join(looked) if looked else 'no place was named'}).",
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
        return [
            *lines,
            "Then name it once, or for one run, or for all datasets:",
            f"  bench prepare {self.name} --from DIR{f'|{stem}2.tgz' if stem else ''}",
            f"  bench run --dataset {self.name} --data DIR …",
            f"  export {DATA_VARIABLE}=DIR",
        ]


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

"""The ImageNet datasets as the rest of the benchmark sees them: labels for the prior, validation, real archives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.datasets.base import Headline
from ddbench.datasets.imagenet.classes import IMAGENET_1K, WOOF
from ddbench.datasets.imagenet.splits import Expected, validation_part
from ddbench.datasets.imagenet.subsets import ImageNetSubset
from ddbench.methods.base import DistillTask

# Labels ---------------------------------------------------------------------------------------------------------------


LABELS = [193, 182, 258, 162, 155, 167, 159, 273, 207, 229]
"""Of Woof's classes, in its order, among ImageNet's thousand."""


class TenFolders(ImageNetSubset):
    """Woof with one training and one test image in each class's folder."""

    name = "ten-folders"
    class_ids = WOOF
    class_names = WOOF
    headline = Headline(protocol="quick", student="convnet3", ipc=(1,), sets=1, students=1)
    expected = {  # noqa: RUF012 - a declaration
        "imagenet": Expected(test=dict.fromkeys(WOOF, 1), train=dict.fromkeys(WOOF, 1))
    }


def test_a_prior_of_a_thousand_classes_receives_imagenets_labels(
    make_prior: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder of ten classes through the sampler to the network's label embedding: 193, 182, …, not 0 … 9."""
    import torch

    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.priors.files import find_prior

    for number, wnid in enumerate(sorted(WOOF), start=1):
        for file in (f"train/{wnid}/{wnid}_1.png", f"val/{wnid}/ILSVRC2012_val_{number:08d}.png"):
            (tmp_path / "ten" / file).parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "ten" / file)
    dataset = TenFolders()
    data = dataset.load("imagenet", tmp_path / "ten", 8)
    assert [sorted(WOOF).index(WOOF[i]) + 1 for i in range(10)] == data.train.read(range(10))[:, 0, 0, 0].tolist()

    prior = Prior.load(find_prior(make_prior(IMAGENET_1K, channels=3, image_size=8)))
    received: list[list[int]] = []
    embed = prior.network.embed_labels

    def spy(labels: torch.Tensor) -> torch.Tensor:
        received.append(labels.flatten().tolist())
        return embed(labels)

    monkeypatch.setattr(prior.network, "embed_labels", spy)
    entry, method = METHODS.entry("dit"), METHODS.load("dit")
    task = DistillTask(
        class_ids=dataset.class_ids,
        class_indices=tuple(range(10)),
        ipc=1,
        seed=0,
        train=data.train,
        train_hash=data.content_hash,
        device=torch.device("cpu"),
        precision="fp32",
        batch_size=10,
        scratch=tmp_path,
        done={},
        load_prior=lambda: prior,
        cache=None,  # type: ignore[arg-type]
        phase=lambda name: nullcontext(),
        progress=lambda note: None,
    )
    made = method(method.Params.model_validate({**entry.overrides, "steps": 2}))
    made.prepare(task)
    images = [image for batch in made.distill(task) for image in batch]
    assert sorted(image.class_index for image in images) == list(range(10))
    for labels in received:
        assert [label for label in labels if label != 1000] in (LABELS, []), "in the order of the images"
    assert LABELS[0] in received[0]


# Validation part ------------------------------------------------------------------------------------------------------


def test_the_validation_part_depends_on_names_alone() -> None:
    sizes = [1300, 754, 95, 9]
    names = [f"n{label:08d}/n{label:08d}_{number}.JPEG" for label, size in enumerate(sizes) for number in range(size)]
    labels = np.repeat(np.arange(4), sizes)
    chosen = validation_part(names, labels, 4)
    assert np.bincount(labels[chosen], minlength=4).tolist() == [50, 50, 9, 0]
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    # Without some others of the class, the same are chosen among those that stay.
    kept = np.setdiff1d(np.arange(len(names)), np.setdiff1d(np.flatnonzero(labels == 0), chosen)[:100])
    again = kept[validation_part([names[i] for i in kept], labels[kept], 4)]
    assert np.array_equal(again, chosen)
    quarters = np.histogram(chosen[:50], bins=4, range=(0, 1300))[0]
    assert (quarters > 3).all(), "spread over the class"


# The real archives ----------------------------------------------------------------------------------------------------

ARCHIVES = {"woof": "imagewoof2-96.tgz", "nette": "imagenette2-96.tgz"}
PARTS = {"woof": "imagewoof-224-first100.tar", "nette": "imagenette-224-first100.tar"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_real_archives_hold_the_published_numbers(name: str, shared_data: Path) -> None:
    dataset = DATASETS.load(name)()
    for split in ("imagenet", "fastai", "imagenet-first100"):
        found = dataset.inspect(split, shared_data / ARCHIVES[name])
        assert not found.problems
        assert found.train == dataset.expected[split].train
        assert found.split_hash == dataset.expected[split].split_hash
    assert {n for wnid, n in found.test.items()} == {50}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_real_images_is_not_taken_for_all(name: str, shared_data: Path) -> None:
    dataset, part = DATASETS.load(name)(), shared_data / PARTS[name]
    with pytest.raises(UsageError, match=r"(?s)100 of 1300.*use --split imagenet-first100"):
        dataset.split_hash("imagenet", part)
    with pytest.raises(UsageError, match=r"fast\.ai's own folder or archive only"):
        dataset.split_hash("fastai", part)
    whole = shared_data / ARCHIVES[name]
    assert dataset.split_hash("imagenet-first100", part) == dataset.split_hash("imagenet-first100", whole)


def test_real_images_at_224_px_are_read_as_they_are(shared_data: Path) -> None:
    """The archive's images are 224 px already, so decoding neither resizes nor crops; its split carries a warning."""
    import tarfile

    part = shared_data / PARTS["woof"]
    data = DATASETS.load("woof")().load("imagenet-first100", part, 224)
    assert (len(data.train), len(data.test), len(data.validation)) == (1000, 500, 100)
    assert data.warning is not None
    assert "first 100 training images" in data.warning
    assert "enlarged" not in data.warning
    with tarfile.open(part) as archive:
        for index in (0, 333, 999):
            member = next(m for m in archive.getmembers() if m.name.endswith("train/" + data.train.names[index]))
            file = archive.extractfile(member)
            assert file is not None
            assert np.array_equal(data.train.read([index])[0], np.asarray(Image.open(file).convert("RGB")))

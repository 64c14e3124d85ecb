"""The model card of a trained prior: what it was trained on and how good its samples are, measured."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from ddbench.benchmark.core import seeds
from ddbench.datasets.base import ImageSource, SplitData
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.training import PriorTrainingReport
from ddbench.methods.diffusion.sampler import sample

CLASSIFIER = "scikit-learn's SVC(C=10, gamma='scale') on pixels / 255"


@dataclass(frozen=True)
class SampleQuality:
    """Of samples drawn at one CFG scale."""

    cfg_scale: float
    samples: int
    agreement: float
    """Share of the samples whose label a classifier of real images agrees with."""
    spread: float
    """Variance of the samples within a class, summed over pixels and averaged over classes, over that of the real
    training images: 1 is as varied as the data, 0 is one image."""
    nearest: float
    """Median over samples of the Euclidean distance to the nearest real training image, pixels in [0, 1]."""


@dataclass(frozen=True)
class PriorQuality:
    """What `measure_prior` found. The references come from the training split too: no test image is read."""

    by_cfg_scale: tuple[SampleQuality, ...]
    classifier_accuracy: float
    """Accuracy of the classifier in that measure, cross-validated on the training split in `n_folds` parts."""
    validation_nearest: float | None
    """Distance as in `SampleQuality.nearest`, of the real validation images to the rest of the training split: samples
    that lie much closer are copies. None where the split has no validation part."""
    steps: int
    seed: int


def measure_prior(
    prior: Prior,
    split: SplitData,
    class_ids: Sequence[str],
    *,
    cfg_scales: Sequence[float] = (1.0, 1.5, 2.0, 4.0),
    samples_per_class: int = 100,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 100,
    progress: Callable[[str], None] = lambda note: None,
) -> PriorQuality:
    """Sample every class at several CFG scales, without further guidance, and compare with the real training images."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    real, labels = _vectors(split.train), split.train.labels
    seeded = seeds.sklearn_seed(seed, "prior card", "folds")
    folds = StratifiedKFold(n_folds(labels), shuffle=True, random_state=seeded)
    accuracy = float(cross_val_score(SVC(C=10, gamma="scale"), real, labels, cv=folds).mean())
    classifier = SVC(C=10, gamma="scale").fit(real, labels)
    real_spread = _spread(real, labels)

    kept = np.setdiff1d(np.arange(len(real)), split.validation)
    neighbours = cKDTree(real[kept])
    images = [ImageKey(class_id, index) for class_id in class_ids for index in range(samples_per_class)]
    wanted = np.repeat(np.arange(len(class_ids)), samples_per_class)
    found = []
    for cfg_scale in cfg_scales:
        drawn = []
        for start in range(0, len(images), batch_size):
            progress(f"CFG {cfg_scale:g}: {start} of {len(images)} samples")
            batch = images[start : start + batch_size]
            noise = StreamNoise(partial(seeds.stream, seed), batch)
            drawn.append(prior.decode(sample(prior, batch, [], noise, steps=steps, cfg_scale=cfg_scale).latents))
        vectors = np.concatenate(drawn).reshape(len(images), -1) / 255.0
        found.append(
            SampleQuality(
                cfg_scale=cfg_scale,
                samples=len(images),
                agreement=float((classifier.predict(vectors) == wanted).mean()),
                spread=_spread(vectors, wanted) / real_spread,
                nearest=float(np.median(neighbours.query(vectors)[0])),
            )
        )
    held_out = neighbours.query(real[split.validation])[0] if len(split.validation) else None
    return PriorQuality(
        by_cfg_scale=tuple(found),
        classifier_accuracy=accuracy,
        validation_nearest=None if held_out is None else float(np.median(held_out)),
        steps=steps,
        seed=seed,
    )


def n_folds(labels: np.ndarray) -> int:
    """Five, or as many as the smallest class has images, and two at least."""
    return max(2, min(5, int(np.unique(labels, return_counts=True)[1].min())))


def _vectors(source: ImageSource) -> np.ndarray:
    """(N, H·W·C) float64 in [0, 1]."""
    return source.read(np.arange(len(source))).reshape(len(source), -1) / 255.0


def _spread(vectors: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([vectors[labels == label].var(0).sum() for label in np.unique(labels)]))


def quality_table(quality: PriorQuality) -> str:
    """The measurements as a Markdown table, with what they mean."""
    rows = [
        f"| {q.cfg_scale:g} | {100 * q.agreement:.1f} % | {q.spread:.2f} | {q.nearest:.2f} |"
        for q in quality.by_cfg_scale
    ]
    nearest = (
        ""
        if quality.validation_nearest is None
        else f"; for the real validation images it is {quality.validation_nearest:.2f}"
    )
    notes = [
        f"Label agreement: how often a classifier of real images, {CLASSIFIER}, gives a sample the label it was drawn "
        "for. It learnt from the real training split, where its own accuracy in cross-validation (at most five-fold) "
        f"is {100 * quality.classifier_accuracy:.1f} %.",
        "Spread: variance within a class over that of the real training images.",
        f"Nearest: median distance to the nearest real training image, pixels in [0, 1]{nearest}.",
    ]
    return "\n".join(
        [
            f"{quality.by_cfg_scale[0].samples} samples per row ({quality.steps} steps, seed {quality.seed}, no "
            "guidance but CFG).",
            "",
            "| CFG scale | label agreement | spread | nearest |",
            "|---|---|---|---|",
            *rows,
            "",
            *(_wrap(f"- {note}") for note in notes),
        ]
    )


def _wrap(paragraph: str) -> str:
    return textwrap.fill(
        paragraph, 120, subsequent_indent="  " if paragraph.startswith("- ") else "", break_on_hyphens=False
    )


def write_card(
    folder: Path,
    split: SplitData,
    class_ids: Sequence[str],
    report: PriorTrainingReport,
    *,
    title: str,
    hardware: str,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] = lambda note: None,
) -> PriorQuality:
    """Measure the prior that `train_prior` wrote to `folder` and put its card beside it, as `README.md`."""
    prior = Prior.load(find_prior(folder), device=device)
    quality = measure_prior(prior, split, class_ids, progress=progress)
    card = model_card(prior, report, quality, title=title, hardware=hardware)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return quality


def model_card(prior: Prior, report: PriorTrainingReport, quality: PriorQuality, *, title: str, hardware: str) -> str:
    """The card as Markdown: recipe, data hash, loss, cost and samples.

    Args:
        prior: as loaded from the folder that `train_prior` wrote.
        hardware: what the training ran on, in words.
    """
    metadata = prior.metadata
    recipe = [f"{name.replace('_', ' ')} {value}" for name, value in metadata.training.items() if "loss" not in name]
    held_out = "none was withheld" if report.held_out_loss is None else f"{report.held_out_loss:.4f}"
    channels, image_size, _ = prior.latent_shape
    shape = (
        f"{image_size}×{image_size} pixels, {channels} channel{'s' * (channels > 1)}, {len(metadata.class_ids)} classes"
    )
    body = _wrap(
        "A class-conditional diffusion model on pixels: a `diffusers` `DiTTransformer2DModel` of "
        f"{report.parameters:,} parameters (its one timestep and label embedder counted once; the file holds a copy "
        "for every block), float16 "
        f"weights to be computed with in float32. {shape}. ε is predicted, without a learned variance, in the original "
        "DiT's timestep convention; sampling clips x̂0 to [-1, 1]."
    )
    how = _wrap(
        "`ddbench.methods.diffusion.priors.training`: AdamW on the ε error with min-SNR weights, linear warm-up and "
        f"half a cosine down to zero, moving average of the weights. Settings: {', '.join(recipe)}."
    )
    loss = _wrap(
        f"- Mean squared ε error per pixel of the saved weights, over t = 25, 75 … 975: {report.loss:.4f} on training "
        f"images, {held_out} on held-out validation images."
    )
    return f"""# {title}

{body}

## Data
- {metadata.trained_on}. Test images were not read.
- Split hash `{metadata.train_split_hashes[0]}`.
- Hash of the images it was trained on `{metadata.train_hash}`.

## Recipe
{how}

## Loss and cost
{loss}
- Training took {report.seconds:.0f} seconds on {hardware}.

## Samples
{quality_table(quality)}
"""

"""What can be set of the methods that invert classifiers. Defaults are those of SRe2L's program."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ddbench.datasets.base import Dataset
from ddbench.methods.classifier import TIMM
from ddbench.methods.observer_params import COMES_TRAINED, ObserverParams
from ddbench.methods.pretrained import PRETRAINED

FOR_SMALL_IMAGES = (
    "resnet18_modified",
    "resnet101_modified",
    "resnet18_cifar",
    "resnet50_cifar",
    "resnet101_cifar",
    "shufflenet_v2_x0_5_cifar",
    "mobilenet_v2_cifar",
    "densenet121_cifar",
)
"""Networks with a 3×3 stem without pooling, in the two forms that programs for Tiny-ImageNet have."""
WITH_BATCH_NORM = (
    "resnet18_bn",
    "resnet50_bn",
    "resnet101_bn",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x0_5",
    *FOR_SMALL_IMAGES,
)
WITHOUT = {"alexnet": 63}
"""Networks that have convolutions alone to match, and the least side in pixels of their images."""
LEAST_SIDE = 4
"""In pixels, of the images of a stage: fewer hold nothing that a network could see."""
TRAINED_HERE = (*WITH_BATCH_NORM, *WITHOUT)


def _known_teachers(network: str) -> str:
    names = network.split("+")
    for name in names:
        if name in PRETRAINED and len(names) > 1:
            raise ValueError(f"{name} comes trained and is no part of a committee; name it alone")
        if name not in (*TRAINED_HERE, *PRETRAINED) and not name.startswith(TIMM):
            known = ", ".join((*TRAINED_HERE, *PRETRAINED))
            raise ValueError(f"unknown teacher {name!r}; expected {known}, or {TIMM}NAME of a network of timm")
    if len(set(names)) < len(names):
        raise ValueError(f"a teacher is named twice in {network}")
    return network


class InversionParams(ObserverParams):
    network: Annotated[
        str,
        AfterValidator(_known_teachers),
        Field(
            description="The teacher, a network with BatchNorm, at the run's side; several, joined by +, are a "
            f"committee. {', '.join(WITH_BATCH_NORM)}, or timm: and a name of timm's; with convolution_statistics "
            f"{', '.join(WITHOUT)} too. {COMES_TRAINED}"
        ),
    ] = "resnet18_bn"  # type: ignore[assignment]  # timm's names are too many for the base's Literal
    committee: Annotated[
        Literal["in-turn", "pairs"],
        Field(description="Several teachers: one a step, in turn; or two a round of images (CV-DD)."),
    ] = "in-turn"
    committee_scores: Annotated[
        str,
        Field(
            description="With pairs: a score of each teacher, joined by +; two weigh as the softmax of scores / 5, and "
            "at IPC 1 the best two are taken."
        ),
    ] = ""
    committee_at_ipc_1: Annotated[
        str, Field(description="With pairs: the two teachers at IPC 1, joined by +, if not those of the best scores.")
    ] = ""
    start: Annotated[
        Literal["noise", "collages", "collages-drawn", "median", "real"],
        Field(
            description="Images to start from: N(0, 1); RDED's collages; random ones of those, drawn with repeats and "
            "mirrored or not (EDC); real images of median probability under the teacher; or random real images."
        ),
    ] = "noise"
    order: Annotated[
        Literal["across", "within", "classes", "class"],
        Field(
            description="Images that are optimised together: one of each class, round after round; all of a class, "
            "then the next class, cut wherever a batch is full; the same without a cut, as many whole classes as fit "
            "(WMDD); or those of one class alone."
        ),
    ] = "across"
    batch: Annotated[
        int,
        Field(
            ge=1,
            description="Most images that are optimised together. Their statistics are matched as one, so it changes "
            "images; the run's batch size does not.",
        ),
    ] = 100
    steps: Annotated[int, Field(ge=1, description="Steps of Adam on the images of a batch.")] = 4000
    image_learning_rate: Annotated[
        float, Field(gt=0, description="Learning rate of Adam on normalised pixels; half a cosine to 0.")
    ] = 0.25
    min_scale: Annotated[
        float, Field(gt=0, le=1, description="Least area of the crop of a step's view, as a fraction of the image.")
    ] = 0.08
    curriculum: Annotated[
        bool,
        Field(description="Let the least area fall from the whole image to min_scale along half a cosine (CDA)."),
    ] = False
    flip: Annotated[bool, Field(description="Mirror every second view.")] = True
    jitter: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Most by which a view is rolled along both axes, as a fraction of the run's side (the "
            "programs': 32 pixels of 224).",
        ),
    ] = 1 / 7
    statistics_weight: Annotated[
        float,
        Field(ge=0, description="Weight of the distance to the statistics of the real images, beside cross-entropy."),
    ] = 0.01
    first_layer_weight: Annotated[
        float, Field(ge=0, description="Weight of the first layer in that distance; the others have 1.")
    ] = 10.0
    variance_weight: Annotated[
        float, Field(ge=0, description="Weight of variances in that distance; means have 1.")
    ] = 1.0
    convolution_statistics: Annotated[
        bool,
        Field(
            description="Match the inputs of convolutions too, by channel and by block of 16 × 16 places, to those of "
            "one pass over crops of the real images (G-VBSM).",
        ),
    ] = False
    statistics_momentum: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of a batch's earlier steps in the statistics that are matched (G-VBSM: 0.4; EDC: 0.8).",
        ),
    ] = 0.0
    class_statistics_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Weight of the distance to statistics of the batch's classes; that to those of all images has "
            "the rest (EDC: 0.5; LPLD: 1).",
        ),
    ] = 0.0
    class_statistics_momentum: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of each further real image in the statistics of its class, a running mean in random "
            "order (LPLD: 0.1); 0: all count alike.",
        ),
    ] = 0.0
    class_statistics_apart: Annotated[
        bool,
        Field(
            exclude_if=lambda value: not value,  # cells from before this parameter and the next two keep their ids
            description="Compare the images of each class in a batch with the statistics of the class, those of all "
            "its real images together, and average over the classes (WMDD); false: the batch as one with the mean over "
            "its classes.",
        ),
    ] = False
    class_statistics_view: Annotated[
        Literal["crops", "whole"],
        Field(
            exclude_if=lambda value: value == "crops",
            description="How the pass over real images sees them: one random crop of each, or each as it is (WMDD).",
        ),
    ] = "crops"
    barycentre_weight: Annotated[
        float,
        Field(
            ge=0,
            exclude_if=lambda value: value == 0,
            description="Weight of the distance (Frobenius norm, of the batch) between the features of its images and "
            "points of their classes' Wasserstein barycentres, beside cross-entropy (WMDD: 1).",
        ),
    ] = 0.0
    densification_weight: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of the term that flattens the Gram spectrum of a class's images in the batch (G-VBSM: "
            "1).",
        ),
    ] = 0.0
    admissions: Annotated[
        int,
        Field(
            ge=1,
            description="Equal parts of the steps; in each, a share of a class's images joins, and stays (DELT: 8).",
        ),
    ] = 1
    stages: Annotated[
        int, Field(ge=1, description="Equal parts of the steps, after all but the last of which the start is mixed in.")
    ] = 1
    stage_scale: Annotated[
        float,
        Field(
            gt=0, le=1, description="Side of the images in the first, third, … stage, as a fraction of the run's side."
        ),
    ] = 1.0
    residual: Annotated[
        float, Field(ge=0, le=1, description="Share of the start image in that mixture (FADRM: 0.5).")
    ] = 0.5
    ascent_steps: Annotated[
        int,
        Field(ge=0, description="Steps that a copy of the teacher goes up its loss on a batch's first view (DWA: 15)."),
    ] = 0
    ascent_size: Annotated[float, Field(gt=0, description="Length of each of those steps in weight space.")] = 0.001
    pool: Annotated[int, Field(ge=1, description="Collages: random images of a class that are looked at.")] = 300
    crops: Annotated[int, Field(ge=1, description="Collages: random crops of each of them; the best one counts.")] = 5
    jpeg: Annotated[
        bool,
        Field(
            description="Store the images with the losses of JPEG at quality 75 (most programs), which depend on the "
            "version of libjpeg; false: as they are."
        ),
    ] = False

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers."""
        return tuple(self.network.split("+"))

    @property
    def scores(self) -> tuple[float, ...]:
        """`committee_scores` as numbers."""
        return tuple(map(float, self.committee_scores.split("+"))) if self.committee_scores else ()

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of teachers in lexicographic order of their places."""
        return tuple(itertools.combinations(range(len(self.teachers)), 2))

    @property
    def starts_from_collages(self) -> bool:
        return self.start in ("collages", "collages-drawn")

    @property
    def looks_at_real_statistics(self) -> bool:
        """Whether the teachers pass over all real images once more after their training."""
        return self.convolution_statistics or self.class_statistics_share > 0

    @model_validator(mode="after")
    def _matches_what_there_is(self) -> InversionParams:
        bare = [name for name in self.teachers if name in WITHOUT]
        if bare and not self.convolution_statistics:
            raise ValueError(f"{bare[0]} has no BatchNorm to match; set convolution_statistics=true, or leave it out")
        if self.class_statistics_momentum and not self.class_statistics_share:
            raise ValueError("class_statistics_momentum is for statistics of classes; set class_statistics_share too")
        if self.class_statistics_apart and not self.class_statistics_share:
            raise ValueError("class_statistics_apart is for statistics of classes; set class_statistics_share too")
        if self.class_statistics_apart and (self.class_statistics_momentum or self.statistics_momentum):
            raise ValueError(
                "class_statistics_apart compares each class with all its real images; leave class_statistics_momentum "
                "and statistics_momentum at 0"
            )
        if self.class_statistics_view != "crops" and not self.looks_at_real_statistics:
            raise ValueError("class_statistics_view is of a pass over real images; set class_statistics_share too")
        if self.barycentre_weight and len(self.teachers) > 1:
            raise ValueError("barycentre_weight is for the features of a single teacher; name one in network")
        if self.stage_scale < 1 and self.convolution_statistics:
            raise ValueError(
                "convolution_statistics are of the run's side, and stage_scale below 1 changes the side; leave it at 1"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> InversionParams:
        for name, parts in (("admissions", self.admissions), ("stages", self.stages)):
            if self.steps % parts:
                raise ValueError(f"expected steps that {name}={parts} divides, got steps={self.steps}")
        if self.stages > 1 and self.admissions > 1:
            raise ValueError("stages and admissions exclude each other; leave one of them at 1")
        if self.stage_scale < 1 and self.stages % 2:
            raise ValueError(
                f"stage_scale={self.stage_scale} makes every other stage smaller, and the last is the run's side; "
                f"expected an even number of stages, got {self.stages}"
            )
        if self.checkpoint is not None and len(self.teachers) > 1:
            raise ValueError("checkpoint: a file holds one teacher; name one in network")
        if self.committee == "pairs":
            try:
                scores = self.scores
            except ValueError:
                scores = (math.nan,)
            if not all(map(math.isfinite, scores)):
                raise ValueError(f"committee_scores: expected numbers joined by +, got {self.committee_scores}")
            given = len(scores)
            if len(self.teachers) < 2 or given != len(self.teachers):
                raise ValueError(
                    f"committee=pairs needs two teachers or more and a score of each, got {len(self.teachers)} and "
                    f"{given} in committee_scores"
                )
            if self.ascent_steps:
                raise ValueError("ascent_steps is for a single teacher; leave it at 0 with committee=pairs")
            at_ipc_1 = self.committee_at_ipc_1.split("+") if self.committee_at_ipc_1 else []
            if at_ipc_1 and (len(at_ipc_1) != 2 or not set(at_ipc_1) <= set(self.teachers)):
                raise ValueError(f"committee_at_ipc_1: expected two of {self.network}, got {self.committee_at_ipc_1}")
        elif self.committee_scores or self.committee_at_ipc_1:
            raise ValueError("committee_scores and committee_at_ipc_1 are for committee=pairs; leave them out")
        if self.ascent_steps and len(self.teachers) > 1:
            raise ValueError("ascent_steps is for a single teacher; name one in network")
        return self

    def unsupported(self, dataset: type[Dataset]) -> str | None:
        """Why it cannot run on the dataset's images, or None."""
        if self.normalisation == "imagenet" and dataset.channels != 3:
            return f"normalisation=imagenet is for RGB images and these have {dataset.channels} channel(s)"
        if (side := round(self.stage_scale * dataset.resolution)) < LEAST_SIDE:
            return (
                f"stage_scale={self.stage_scale:g} makes images of {side} px of the dataset's {dataset.resolution}, "
                f"fewer than {LEAST_SIDE}; choose {LEAST_SIDE / dataset.resolution:g} or more"
            )
        for name in self.teachers:
            if dataset.resolution < WITHOUT.get(name, 0):
                return (
                    f"teacher {name} needs images of at least {WITHOUT[name]} px and these have {dataset.resolution}; "
                    "name the others alone in network"
                )
        return super().unsupported(dataset)

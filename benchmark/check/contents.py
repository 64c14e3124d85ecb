"""Checks of the images: their number and values, their labels, and which real images are in them or were looked at."""

from __future__ import annotations

import numpy as np

from ddbench.benchmark.check.canary import TRAIN_PER_CLASS
from ddbench.benchmark.check.runs import CLASSES, IPC
from ddbench.benchmark.check.subject import Broken, NotApplicable, Subject
from ddbench.datasets.digits import Digits
from ddbench.methods.base import CostClass, RealImages


def images(subject: Subject) -> str:
    made = subject.reference
    per_class = TRAIN_PER_CLASS if subject.method.whole_set else IPC
    expected = {(c, i) for c in CLASSES for i in range(per_class)}
    if made.keys() != expected:
        missing, extra = sorted(expected - made.keys()), sorted(made.keys() - expected)
        raise Broken(
            f"expected {per_class} images of each of {len(CLASSES)} classes (class index, image index); "
            f"missing {missing[:3]}, not asked for {extra[:3]}"
        )
    shapes = {image.pixels.shape for image in made.values()}
    if shapes != {(Digits.resolution, Digits.resolution, Digits.channels)}:
        raise Broken(f"expected images of {Digits.resolution}×{Digits.resolution} pixels, got shapes {sorted(shapes)}")
    flat = sorted(key for key, image in made.items() if np.ptp(image.pixels) == 0)
    if flat:
        raise Broken(f"image {flat[0]} has one value everywhere")
    values = np.concatenate([image.pixels.ravel() for image in made.values()])
    if values.max() <= 1:
        raise Broken("all values are 0 or 1: these look like fractions; expected 0 … 255")
    latents = [image.latent for image in made.values() if image.latent is not None]
    if len(latents) not in (0, len(made)):
        raise Broken(f"{len(latents)} of {len(made)} images have latents; expected all or none")
    if any(latent.dtype != np.float32 or not np.isfinite(latent).all() for latent in latents):
        raise Broken("expected finite float32 latents")
    expected_shape = subject.runs.latent_shape or (latents[0].shape if latents else None)
    if other := {latent.shape for latent in latents} - {expected_shape}:
        raise Broken(f"expected latents of shape {expected_shape}, got {sorted(other)}")
    if len({tuple(image.guidance_nats) for image in made.values()}) > 1:
        raise Broken("images report different guidance terms")
    if any(not np.isfinite(n) or n < 0 for image in made.values() for n in image.guidance_nats.values()):
        raise Broken("a path KL is negative or not finite")
    return f"{len(made)} images, values {values.min()} … {values.max()}"


def labels(subject: Subject) -> str:
    made, train = subject.reference, subject.planted.split.train
    if subject.method.cost_class is CostClass.SELECTION:
        for c in CLASSES:
            offered = [pixels.tobytes() for pixels in train.read(train.of_class(c))]
            chosen = [image.pixels.tobytes() for (k, _), image in sorted(made.items()) if k == c]
            if any(chosen.count(one) > offered.count(one) for one in chosen):
                raise Broken(f"class {Digits.class_ids[c]}: not training images of the class, each at most once")
        return "training images of their classes, none twice"
    if any(image.pixels.size != Digits.resolution**2 for image in made.values()):
        raise NotApplicable("the images are not of the size that a judge knows")
    from sklearn.svm import SVC

    real = subject.planted.real
    judge = SVC(random_state=0).fit(real.read(range(len(real))).reshape(len(real), -1) / 255, real.labels)
    keys = sorted(made)
    judged = judge.predict(np.stack([made[key].pixels.ravel() for key in keys]) / 255)
    taken = {c: [int(j) for j, key in zip(judged, keys, strict=True) if key[0] == c] for c in CLASSES}
    right = sum(j == c for c, some in taken.items() for j in some)
    # Each class always taken for another one of its own is a mix-up of labels; poor images scatter or look alike.
    if not right and sum(len(set(some)) for some in taken.values()) == len(
        {j for some in taken.values() for j in some}
    ):
        told = ", ".join(f"{Digits.class_ids[c]} for {Digits.class_ids[some[0]]}" for c, some in taken.items())
        raise Broken(f"labels are mixed up: a judge takes images of class {told}")
    if right * 2 < len(keys):
        raise NotApplicable(f"a judge recognises {right} of {len(keys)} images, too few to tell")
    return f"a judge recognises {right} of {len(keys)}"


def unseen(subject: Subject) -> str:
    made, planted = subject.reference, subject.planted
    if planted.canary.reads:
        raise Broken(f"test images were read {len(planted.canary.reads)} times, first by {planted.canary.reads[0]}")
    marked = sorted(key for key, image in made.items() if planted.canary.resembled_by(image.pixels))
    if marked:
        raise Broken(f"image {marked[0]} carries the pattern planted in the test images")
    copied = sorted(key for key, image in made.items() if image.pixels.tobytes() in planted.held_out)
    if copied:
        raise Broken(f"image {copied[0]} is a real digit that was not among its training images")
    return "none read, none in the images"


def real_images(subject: Subject) -> str:
    made, declared = subject.reference, subject.method(subject.params).reads_real_images()
    found = f"{subject.real_images_seen} of {len(subject.planted.train)} training images looked at"
    if declared is None:
        raise NotApplicable(f"reads_real_images does not say; {found}")
    if subject.entry.prior_tuned_by is not None:
        raise NotApplicable(f"its prior is tuned on all of them; {found}")
    most = {RealImages.NONE: 0, RealImages.CHOSEN: len(made)}.get(declared, len(subject.planted.train))
    if subject.real_images_seen > most:
        raise Broken(f"reads_real_images says {declared}, and it made {len(made)} images: {found}")
    return f"{declared}: {found}"

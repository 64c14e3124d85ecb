"""Results of students that were looked at on shifted test sets, with numbers that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.result import ShiftedLook, ShiftedRecord
from ddbench.benchmark.core.spec import ShiftedSpec

FOG = ShiftedSpec(name="imagenet-c-made", corruptions=("frost", "fog"), severities=(1, 5), sha256="f0" * 32)
V2 = ShiftedSpec(name="imagenet-v2", sha256="02" * 32)


def record(spec: ShiftedSpec, clean: float, looks: Mapping[str, float], content: str = "cc" * 32) -> ShiftedRecord:
    return ShiftedRecord(
        name=spec.name,
        accuracy=sum(looks.values()) / len(looks),
        clean_accuracy=clean,
        looks=[ShiftedLook(condition=condition, accuracy=accuracy) for condition, accuracy in looks.items()],
        n_images=500,
        n_classes=10,
        sha256=spec.sha256,
        content_sha256=content,
        folder=None if spec.corruptions else "imagenet-v2",
        made_by={"imagecorruptions-imaug": "1.1.5"} if spec.corruptions else {},
        image_size=8,
        seconds=1.0,
    )


def look(
    folder: Any,
    label: str,
    seed: int,
    clean: float,
    shifted: Mapping[ShiftedSpec, ShiftedRecord],
    repeat: int = 0,
    **spec: Any,
) -> None:
    """A student of a method's set, looked at; the student without comes first where there is one already.

    Args:
        folder: the builder of `tests/reports/conftest.py`.
        spec: what else its `distill_spec` is given.
    """
    made_by = folder.distill_spec(label, seed=seed, **spec)
    images = folder.distill(made_by, label)
    looked = folder.evaluate_spec(made_by, seed=1000 * seed + repeat).model_copy(update={"test_on": tuple(shifted)})
    result = folder.student(looked, label, clean, images=images, made_by=made_by)
    changed = result.model_copy(update={"shifted": list(shifted.values())})
    write_json(folder.store.cell(result.cell).path / "result.json", changed.model_dump(mode="json"))


def with_looks(folder: Any) -> Any:
    """The folder with two sets of `random` and of `herding`, a student of each looked at in fog and frost."""
    look(folder, "random", 0, 60, foggy(60, (50, 30), (40, 20)))  # mean 35, drop 25
    look(folder, "random", 1, 70, foggy(70, (60, 40), (50, 30)))  # mean 45, drop 25
    look(folder, "herding", 0, 80, foggy(80, (60, 40), (50, 30)))  # mean 45, drop 35
    look(folder, "herding", 1, 82, foggy(82, (62, 42), (52, 28)))  # mean 46, drop 36
    return folder


def foggy(clean: float, frost: tuple[float, float], fog: tuple[float, float], **more: Any) -> dict[ShiftedSpec, Any]:
    looks = {"frost/1": frost[0], "frost/5": frost[1], "fog/1": fog[0], "fog/5": fog[1]}
    return {FOG: record(FOG, clean, looks, **more)}

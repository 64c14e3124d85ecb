"""`result.json`, key by key. Numbers are numbers, units are in the names, accuracies are percent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ddbench.benchmark.core.reading import Reading
from ddbench.benchmark.core.spec import DatasetSpec, MethodSpec, ProtocolSpec
from ddbench.benchmark.core.subsets import SubsetOf

SCHEMA_VERSION: Literal[2] = 2
"""Raised when the meaning or the name of a key changes: results of another schema are not read.

2: `distill` is spelled so in keys, kinds and cell ids; `image_size` is what protocols and recipes called `side`.
"""

Status = Literal["ok", "failed", "oom", "timeout", "killed"]
RETRIED = ("oom", "timeout", "killed")
"""Statuses that `--reuse missing` runs again; a `failed` cell would fail the same way and stays unless asked for."""


TIME = "%Y-%m-%dT%H:%M:%SZ"
"""How times are written: UTC, ISO 8601."""


def utc_now() -> str:
    return datetime.now(UTC).strftime(TIME)


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Phase(Record):
    """Wall-clock of one part of a cell."""

    name: str
    seconds: float
    """Seconds that this cell spent on it."""
    cached_from: str | None = None
    """The artefact that this phase was served from; None if it was computed here."""
    cold_seconds: float | None = None
    """Seconds that computing it took where it was computed; present only with `cached_from`."""


class Cost(Record):
    phases: list[Phase]
    seconds: float
    """Wall-clock of the cell from the first to the last phase, summed over attempts and, for a set that shards made,
    over them (`shards` has each one's own: side by side, the longest bounds the wall-clock)."""
    cold_seconds: float
    """`seconds` with every cached phase at its original cost and without waiting for other cells: what a first user
    pays."""
    gpu_peak_allocated_mib: float | None
    """The most GPU memory that tensors took, over all attempts, without batches that did not fit; None on a CPU."""
    gpu_peak_reserved_mib: float | None
    """The most GPU memory that a process reserved for tensors, likewise; None on a CPU."""
    host_peak_mib: float
    """Peak resident memory of the cell's process (VmHWM), over all attempts; if forked, less its resident memory at the
    start."""
    gpu_seconds: float | None
    """Wall-clock of a cell on a GPU, which it occupies all that time; None on a CPU."""
    energy_joules: float | None
    """GPU energy by NVML, of all attempts; None on a CPU or where NVML does not tell of one of them."""
    batch_size: int
    """Batch size at the end; of several shards, the smallest; a student's is its protocol's."""
    oom_batch_sizes: list[int] = []
    """Batch sizes at which GPU memory ran out; the cell went on with half. A student then passed its batch through the
    network in parts of that size, whose gradients it summed."""
    threads: int
    """CPU threads that the cell computed with."""
    cells_at_once: int = 1
    """Cells that the run may have had side by side on this one's CPU, each with its own threads, or on its GPU, the
    most of any attempt; this one is counted."""
    exclusive_gpu: bool | None
    """Whether the run had no other cell on the GPU, and nobody else a process when the cell began and when it ended, in
    each attempt; None on a CPU, or where NVML does not tell."""
    attempts: int
    """Starts of this cell until it finished; the times include those of earlier attempts."""
    measured: dict[str, float] = {}
    """Largest of each measure over the artefacts that it used: `latents_float16_error_max` and `_rms`, what keeping the
    real images' latents in float16 changed in them."""


WAITING = "wait"
"""The phase in which a cell waits for an artefact that another one is making."""


def cold_seconds(phases: Iterable[Phase]) -> float:
    """Seconds of phases with what was cached at its original cost, and without waiting."""
    return sum((p.seconds + (p.cold_seconds or 0.0) for p in phases if p.name != WAITING), 0.0)


class DatasetRecord(DatasetSpec):
    split_hash: str
    """Hash of the split's class ids and file names, in their order."""
    content_hash: str
    """Hash of the split's images."""
    n_train: int
    """Training images."""
    n_test: int
    """Test images."""
    warning: str | None
    """What a reader of its numbers must know."""


class PriorRecord(Record):
    name: str
    sha256: str
    trained_on: str
    """The prior's training data as its metadata has it; "unknown" where it says nothing."""
    timing_only: bool = False
    """Whether its weights are random: the result says what making it cost, and nothing else; no leaderboard has it."""
    base_sha256: str | None = None
    """Hash of the files that were tuned, of a tuned prior such as `minimax(digits)`."""
    tuned_by: list[MethodSpec] = []
    """What tuned a tuned prior on the set's training images, with the parameters that its weights depend on."""


class OneTeacherRecord(Record):
    """One network whose outputs were the labels, or a part of them."""

    network: str
    sha256: str
    """SHA-256 of the teacher's weights; of torchvision's, of the file."""
    accuracy: float | None
    """The teacher's top-1, percent."""
    accuracy_of: str
    """What that accuracy was measured on."""
    recipe: dict[str, Any]
    """How the teacher was trained."""


class MemberRecord(OneTeacherRecord):
    """One of several teachers."""

    share: float
    """Of its outputs in the mean."""


class TeacherRecord(OneTeacherRecord):
    """The network whose outputs were the labels; of several together, their names joined by `+`, a hash over theirs,
    and how their outputs became one."""

    members: list[MemberRecord] = Field(default_factory=list, exclude_if=lambda members: not members)
    """Several teachers, each by itself; empty where there was one."""

    @property
    def networks(self) -> int:
        """How many label an image."""
        return max(1, len(self.members))


class SetSource(Record):
    """Where a set made elsewhere came from, and what was said of it."""

    address: str
    """What the user gave: a file, or an address on the hub."""
    revision: str | None = None
    """Commit of the hub's repository."""
    files: dict[str, str] = {}
    """File name -> SHA-256 of the files of tensors that it was decoded from."""
    layout: str | None = None
    """How images and labels lay in them."""
    normalisation: str | None = None
    """What was taken back from the values of floats."""
    class_order: str | None = None
    """Which class a number was said to be."""
    learned_learning_rate: float | None = None
    """A learning rate that came with the set; no protocol uses it."""


class SoftLabelsRecord(Record):
    """Soft labels that came with a set made elsewhere, used or not."""

    source: str
    """Where they lay."""
    used: bool
    """Whether students were trained with them; else with hard labels, or a teacher's."""
    sha256: str
    """Hash of what they are and of their values; where they were not used and cannot be read as they lie, of their
    files."""
    kind: Literal["probabilities", "logits"] | None = None
    """None, as the next, where they cannot be read."""
    label_bytes: int | None = None
    """What their values take as they are stored."""


class Look(Record):
    """One look at the test set."""

    epoch: int
    accuracy: float
    train_loss: float


class Metrics(Record):
    acc_last: float
    """Top-1 after the last epoch, percent: what leaderboards rank."""
    acc_best: float
    """The best of the looks, percent: what papers report."""
    top5_last: float | None
    """Top-5 after the last epoch, percent; None for five classes or fewer."""
    curve: list[Look]


class ShiftedLook(Record):
    """One condition of a shifted test set."""

    condition: str
    """`fog/3`: corruption and severity; empty for a set of photographs."""
    accuracy: float
    """Top-1, percent."""


class ShiftedRecord(Record):
    """What a trained student did on one shifted test set."""

    name: str
    accuracy: float
    """Mean of `looks`, percent: each condition counts alike."""
    clean_accuracy: float
    """Top-1 on the dataset's own test images, percent: those of the same classes and, of a corrupted set, of the same
    photographs, chosen among the same classes. `acc_last` where that is all of them."""
    looks: list[ShiftedLook]
    n_images: int
    """Images of each condition."""
    n_classes: Annotated[int, Field(gt=0)]
    """The dataset's classes that the set has images of. The student chooses among these alone."""
    sha256: str
    """As in the cell's specification."""
    content_sha256: str
    """Hash of the pixels and labels that were looked at."""
    folder: str | None
    """Name of the folder that its files lie in; None: made here."""
    made_by: dict[str, str]
    """Package -> version, of those that made its pixels; empty for a set from files."""
    image_size: int
    """Side in pixels at which its images were kept."""
    seconds: float
    """Wall-clock of the looks; no part of the cell's cost."""


class OtherEnvironment(Record):
    """An environment besides the result's own that had a hand in its numbers: those that are alike stand together."""

    attempts: list[int] = []
    """Attempts at the cell that ran in it, counted from 1: the cell went on with what they left, and its cost has
    theirs."""
    shards: list[str] = []
    """Cells of shards that ran in it, or went on from one that had."""
    artefacts: list[str] = []
    """Artefacts that were made in it; the cell found them."""
    environment: dict[str, Any]


class Result(Record):
    """Common to both kinds of cell, finished or failed."""

    schema_version: Literal[2] = SCHEMA_VERSION
    kind: Literal["distill", "evaluate"]
    cell: str
    status: Status
    reason: str | None = None
    """Why the status is not ok, in one message."""
    retriable: bool = False
    """Whether the cause lies outside the cell (a full disk, say); `--reuse missing` runs it again."""
    label: str
    """The method's registered name where its parameters equal one, else `name[param=value]`; for foreign images the
    name that the user gave them."""
    method: MethodSpec | None
    """The method and its parameters; None for images made elsewhere."""
    dataset: DatasetRecord | None
    prior: PriorRecord | None = None
    ipc: int | None
    """Images per class; None for the whole training set."""
    distill_seed: int | None
    image_set_sha256: str | None = None
    """SHA-256 of the distilled set, over decoded pixels, class id and index."""
    cost: Cost | None = None
    environment: dict[str, Any] | None = None
    """In which the cell ended."""
    other_environments: list[OtherEnvironment] = Field(default_factory=list, exclude_if=lambda others: not others)
    """Those that it differs from and that had a hand as well; empty where there was one, and in results of before this
    was noted."""
    finished_at: str | None = None
    """When the cell ended, UTC, ISO 8601: `2026-11-29T12:00:00Z`."""
    plugins: dict[str, str] = {}
    """File name -> SHA-256 of the plugin files that were loaded."""
    own_code: dict[str, str] = Field(default_factory=dict, exclude_if=lambda code: not code)
    """Module -> SHA-256 of its file, of what else of authors' own code had been loaded when the cell ended."""

    @property
    def environments(self) -> list[dict[str, Any]]:
        """All that had a hand in it, its own first."""
        own = [] if self.environment is None else [self.environment]
        return [*own, *(other.environment for other in self.other_environments)]


class ShardRecord(Record):
    """A shard of a merged set; its own result says more."""

    cell: str
    first_class: int
    n_classes: int
    n_images: int
    seconds: float
    batch_size: int
    attempts: int


class DistillResult(Result):
    kind: Literal["distill"] = "distill"
    n_images: int | None = None
    image_bytes: int | None = None
    """What its image files take as the cell wrote them, without labels; None: not recorded."""
    shards: list[ShardRecord] = []
    """The shards that made this set; empty where it was made in one piece."""
    guidance: dict[str, list[float]] = {}
    """Guidance term -> path KL in nats by image index, averaged over classes."""
    recorded: dict[str, Any] = {}
    """What the method recorded of its run (`task.record`); its documentation says what the keys mean. From several
    shards: one value where they agree, else the list of theirs."""
    precision: str = "fp32"
    device_type: str = "cpu"
    cost_class: str | None = None


class EvaluateResult(Result):
    kind: Literal["evaluate"] = "evaluate"
    distill_cell: str | None
    protocol: ProtocolSpec
    protocol_label: str
    """`name@version`, or `name[epochs=60]@version` for a modified protocol."""
    modified_protocol: bool
    student: str
    teacher: TeacherRecord | None = None
    """The network that gave the labels; None under a protocol with hard labels."""
    evaluate_seed: int
    device_type: str = "cpu"
    metrics: Metrics | None = None
    subset: SubsetOf | None = None
    """Which images of a folder made elsewhere counted; None: all, or a set that was distilled here."""
    source: SetSource | None = None
    """Where the set came from; None for a folder on the machine that ran it, or a set that was distilled here."""
    soft_labels: SoftLabelsRecord | None = None
    """Soft labels that came with the set; None: it has none."""
    reading: Reading | None = None
    """How the folder of a set made elsewhere was read; None: as it stands."""
    test_images: int | None = None
    """Test images among a set's images that was taken with them (`with_test_images`); None: not looked for."""
    n_images: int | None = None
    """Images in the set."""
    image_bytes: int | None = None
    """What the image files of a set made elsewhere take as they lie there, without labels; None: not recorded, or a set
    that was distilled here, whose own result says it."""
    images_per_class: tuple[int, int] | None = None
    """The fewest and the most images of a class."""
    images_seen: int | None = None
    """Images that the student was trained on, each as often as it passed: each teacher labelled as many."""
    stored_label_bytes: int | None = None
    """What the labels of these passes take where the protocol's program stores them; None: it stores none."""
    shifted: list[ShiftedRecord] = []
    """What it did on shifted test sets (`--test-on`)."""
    predictions: str | None = None
    """Name of the array beside the result: (n_test,) uint16 predicted class indices after the last epoch."""


MOST = 2**63
"""Beyond what any count of bytes or images can be, and columns of 64 bits can hold."""


def impossible(result: DistillResult | EvaluateResult) -> str | None:
    """What a finished cell cannot have, in numbers that tables and charts rely on; None where all is possible."""
    cost = result.cost
    if cost is not None and not (0 <= cost.seconds < math.inf and 0 <= cost.cold_seconds < math.inf):
        return "expected costs of zero or more seconds"
    if not all(0 <= count < MOST for count in _counts(result)):
        return f"expected bytes and images between 0 and {MOST - 1}"
    if isinstance(result, DistillResult):
        return None
    if result.metrics is None or result.dataset is None:
        return "it says ok, but has no metrics or no dataset"
    metrics = result.metrics
    accuracies = [metrics.acc_last, metrics.acc_best, *(look.accuracy for look in metrics.curve)]
    accuracies += [] if metrics.top5_last is None else [metrics.top5_last]
    accuracies += [look.accuracy for shifted in result.shifted for look in shifted.looks]
    accuracies += [accuracy for one in result.shifted for accuracy in (one.accuracy, one.clean_accuracy)]
    if not all(0 <= accuracy <= 100 for accuracy in accuracies):
        return "expected accuracies between 0 and 100 percent"
    return None


def _counts(result: DistillResult | EvaluateResult) -> list[int]:
    """The bytes and images that it names."""
    named = [result.n_images, result.image_bytes]
    if isinstance(result, EvaluateResult):
        labels = None if result.soft_labels is None else result.soft_labels.label_bytes
        named += [result.images_seen, result.stored_label_bytes, labels]
    return [count for count in named if count is not None]


def mean_guidance(images: Iterable[tuple[tuple[int, int], Mapping[str, float]]]) -> dict[str, list[float]]:
    """Path KL averaged over classes: ((class index, image index), term -> nats) of the images, by class, becomes
    term -> nats by image index."""
    sums: dict[str, dict[int, tuple[float, int]]] = {}
    for (_, image_index), terms in images:
        for term, nats in terms.items():
            by_image = sums.setdefault(term, {})
            total, count = by_image.get(image_index, (0.0, 0))
            by_image[image_index] = total + nats, count + 1
    return {
        term: [total / count for _, (total, count) in sorted(by_image.items())]
        for term, by_image in sorted(sums.items())
    }

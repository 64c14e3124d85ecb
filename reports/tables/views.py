"""A leaderboard as data: `bench leaderboard --json`, key by key. Numbers are unrounded, units are in the names."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import field_serializer, field_validator

from ddbench.benchmark.core.result import PriorRecord, Record, TeacherRecord
from ddbench.benchmark.core.spec import MethodSpec
from ddbench.reports.results.origins import Origin
from ddbench.reports.results.paper_numbers import PaperNumber
from ddbench.reports.results.rows import Problem
from ddbench.reports.statistics.crossed import Comparison, Summary


class Guidance(Record):
    """Path KL of one guidance term, nats per image, averaged over classes and sets."""

    mean_nats: float
    first_image_nats: float
    last_image_nats: float


class SetRecord(Record):
    image_set_sha256: str
    seeds: list[int]
    acc_last: list[float]
    """One per student, percent."""
    evaluate_seeds: list[int]
    """One per student."""
    cells: tuple[str, ...] = ()
    """The distill cells that made it; several where a method's images do not depend on the seed; none for images made
    elsewhere."""


class CostRecord(Record):
    """What a row's sets and students cost; None where nothing was measured, or only on a shared GPU."""

    distill_cold_seconds: float | None
    """Mean wall-clock of making a set, with what came from a cache at its original cost."""
    distill_spent_seconds: float | None
    """Mean wall-clock of making a set as it was here: what came from a cache cost nothing."""
    evaluate_seconds_per_student: float | None
    """Mean wall-clock of training and testing one student."""
    distill_gpu_peak_allocated_mib: float | None
    """The most GPU memory that tensors of a set's cell took, the highest over sets."""
    distill_gpu_peak_reserved_mib: float | None
    """The most GPU memory that a set's cell reserved, the highest over sets."""
    distill_host_peak_mib: float | None
    """The most resident memory of a set's process, the highest over sets."""
    distill_gpu_seconds: float | None
    """Mean seconds of a set's cell on GPUs."""
    distill_energy_joules: float | None
    """Mean energy that the GPU took for a set."""
    distill_threads: tuple[int, ...] = ()
    """The distinct numbers of CPU threads that its sets' cells computed with."""
    evaluate_threads: tuple[int, ...] = ()
    """The distinct numbers of CPU threads that its students' cells computed with."""
    distill_batch_sizes: list[int]
    """The distinct batch sizes of its sets."""
    cells_at_once: list[int]
    """How many cells may have run side by side on the CPU of its sets and students."""
    distill_hardware: list[str]
    """Models of the devices that made the sets."""
    evaluate_hardware: list[str]
    """Models of the devices that trained the students."""
    shared_gpu: bool
    """Some cells shared their GPU with other processes; their costs are left out."""


class RowView(Record):
    id: str
    """`RowKey.id`: the method as run has the same in every table."""
    rank: int | None
    """The best rank that the method can have: 1 plus the number of those that the test finds better. None for
    references, and for rows without a finished student."""
    last_rank: int | None
    """The worst rank that it can have; None likewise. Rows whose ranges meet may be separated all the same: `pairs`."""
    reference: bool
    """It takes no rank: the whole training set, shown beside every IPC, or a set with test images in it."""
    with_test_images: bool = False
    """Test images are or may be in its set: its accuracy says nothing, and it takes no rank."""
    test_images: int | None = None
    """How many of its images are test images; None where they were not looked for, as in sets that were made here."""
    n_images: tuple[int, ...] = ()
    """The distinct numbers of images of its sets."""
    images_per_class: tuple[int, int] | None = None
    """The fewest and the most images of a class; None where no student says it."""
    method: str
    """The method as leaderboards call it: its registered name, or with the parameters that differ."""
    qualifiers: list[str]
    """What tells this row from others where the name does not: prior, precision, device, version."""
    spec: MethodSpec | None
    cost_class: str | None
    """What kind of work the method does: selection, training-free, needs-classifier, fine-tunes."""
    prior: PriorRecord | None
    prior_sha256: str | None
    precision: str | None
    distill_device: str | None
    evaluate_device: str
    done: int
    """Finished students."""
    expected: int
    """Students that were asked for."""
    states: dict[str, int]
    """Standing -> students."""
    reasons: list[str]
    """Why students are not done; each reason once."""
    image_bytes: float | None = None
    """What the image files of a set take, mean over sets; None where no result says it."""
    label_bytes: int | None = None
    """What the soft labels take that came with its images, used or not; None where none did."""
    own_labels_used: bool | None = None
    """Whether its students were trained with those labels; None where none came."""
    teacher_passes: float | None = None
    """Images that a teacher labelled while one student was trained, each as often as it passed, of several teachers
    each one's; mean over students."""
    stored_label_bytes: float | None = None
    """What these labels take where the protocol's program stores them, for one student; None: it stores none."""
    students_per_set: list[int]
    """The distinct numbers of students of its sets."""
    acc_last: Summary | None
    acc_best: Summary | None
    top5_last: Summary | None
    gap_closed_percent: float | None
    """100 (acc_last - random) / (full - random); None where full is not separated from random."""
    gap_closed_low_percent: float | None
    """Lower end of its 95 % interval (Fieller); None where it has none."""
    gap_closed_high_percent: float | None
    """Upper end of that interval."""
    papers: tuple[PaperNumber, ...] = ()
    """Published numbers for this cell: beside our number, never ranked with it. Empty for a modified protocol."""
    cost: CostRecord
    origin: Origin
    """Who ran its cells, when and with what."""
    guidance: dict[str, Guidance]
    sets: list[SetRecord]
    has_predictions: bool
    """The per-image predictions of all finished students are there and agree with the recorded accuracies."""

    @property
    def whole_set(self) -> bool:
        return self.reference and not self.with_test_images

    @property
    def name(self) -> str:
        """The method with its qualifiers: no other row of the table has it."""
        return " · ".join([self.method, *self.qualifiers])


class Pair(Record):
    """Two rows (indices into the table's rows) and the difference of their `acc_last`, a minus b."""

    a: int
    b: int
    comparison: Comparison

    @field_serializer("comparison")
    def _with_p_value(self, comparison: Comparison) -> dict[str, object]:
        """It follows from the rest, and is what most readers look for."""
        return {**asdict(comparison), "p_value": comparison.p_value}

    @field_validator("comparison", mode="before")
    @classmethod
    def _without_p_value(cls, value: object) -> object:
        return {k: v for k, v in value.items() if k != "p_value"} if isinstance(value, dict) else value


class TableView(Record):
    title: str
    dataset: str
    split: str
    split_hash: str | None
    content_hash: str | None
    resolution: int
    student_image_size: int | None
    """Side in pixels at which students saw the images; None for a protocol that is not installed."""
    ipc: int | None
    protocol: str
    protocol_hash: str
    modified_protocol: bool
    """The protocol has overrides: compare within this table only."""
    student: str
    teacher: TeacherRecord | None = None
    """The network whose outputs were the labels; None under a protocol with hard labels."""
    n_train: int | None
    """Training images of the split; none, as the next, where nothing has finished."""
    n_test: int | None
    """Test images of the split."""
    settings: list[str]
    """Prior, precision and device, as far as all rows share them."""
    rows: list[RowView]
    pairs: list[Pair]
    pooled_methods: int
    """Methods whose variances between sets are pooled; 0 where each has its own."""
    legend: list[str]
    """How to read the columns and marks that this table has."""
    notes: list[str]
    """What a reader must know before believing its numbers."""


class Leaderboard(Record):
    schema_version: int = 1
    tables: list[TableView]
    problems: list[Problem]
    """Files that could not be used, and stale evaluations."""

"""What stands under a leaderboard: what a reader must know before believing a number."""

from __future__ import annotations

from collections import Counter
from statistics import median

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import PROTOCOLS
from ddbench.benchmark.core.store import State
from ddbench.reports.results.origins import PACKAGES, several_versions
from ddbench.reports.results.words import counted, extent
from ddbench.reports.statistics.equivalence import visible_in
from ddbench.reports.tables.views import RowView, TableView

MIXED_HARDWARE = "Mixed hardware, do not compare times across it."
MOST_PARTS = 4
"""Parts of a row's cells from another environment that are told one by one."""
FEW = 3
"""Sets below which a method is seldom seen to be noisier than its table."""


def notes(table: TableView, protocol: str, warnings: list[str]) -> list[str]:
    """All notes, the gravest first.

    Args:
        protocol: the registered name of the table's protocol.
        warnings: what the dataset says of this split.
    """
    return [
        *_protocol_notes(table, protocol),
        *warnings,
        *_row_notes(table),
        *_label_cost_note(table),
        *_few_sets_note(table),
        *_power_note(table),
        *_origin_notes(table),
        *_cost_notes(table),
    ]


def _protocol_notes(table: TableView, protocol: str) -> list[str]:
    found = []
    try:
        notice = PROTOCOLS.load(protocol).notice
    except (UsageError, ImportError):
        # Results outlive protocols: those of an uninstalled plugin are shown all the same.
        notice = ""
    if notice:
        found.append(notice)
    if table.modified_protocol:
        found.append(f"Modified protocol: {table.protocol} is not {protocol}; compare within this table only.")
    return found


def legend(table: TableView) -> list[str]:
    """How to read the columns and marks that this table has."""
    found = []
    if sum(row.rank is not None for row in table.rows) > 1:
        found.append(
            "Rows stand by their means; # is the range of ranks that a two-sided 5 % test (per pair; over sets and "
            "test images) leaves a row."
        )
    if any(row.acc_last and row.acc_last.n > 1 for row in table.rows):
        found.append("± sample std over distilled sets; the interval (Student-t) is for these test images.")
    if table.pooled_methods:
        found.append(
            f"Intervals and tests rest on the variance between sets of {table.pooled_methods} methods together"
            + ("; ~ noisier than the others by an F test, so on its own." if any(map(_noisier, table.rows)) else ".")
        )
    if any(row.acc_last and row.acc_last.cut for row in table.rows):
        found.append("<0 and >100: the interval is cut where no accuracy can lie.")
    if any(single_set(row) for row in table.rows):
        found.append("† one set: ± over its students; the rank holds for this set, not for the method.")
    if any(no_predictions(row) for row in table.rows):
        found.append("‡ no per-image predictions: tested with the largest variance that the accuracies allow.")
    if any(row.gap_closed_percent is not None for row in table.rows):
        found.append("gap % is the share of the way from random to full.")
    if any(row.papers for row in table.rows):
        found.append(
            "paper: its best look at the test set, and ours minus it; never ranked. i: the paper does not say (all of) "
            "its evaluator; s: read at second hand; o: printed by another paper than the method's own; +n: n further "
            "published numbers (--format json)."
        )
    if any(row.whole_set for row in table.rows):
        found.append("ref: trained on the whole training set, not ranked.")
    if any(row.with_test_images for row in table.rows):
        found.append("test: trained on test images, not ranked.")
    return found


def _noisier(row: RowView) -> bool:
    return row.acc_last is not None and row.acc_last.basis == "noisier"


def marks(row: RowView) -> str:
    """The signs beside a row's name, which the legend explains."""
    return ("†" if single_set(row) else "") + ("‡" if no_predictions(row) else "")


def single_set(row: RowView) -> bool:
    return row.acc_last is not None and row.acc_last.n == 1


def no_predictions(row: RowView) -> bool:
    return row.rank is not None and not row.has_predictions


def _row_notes(table: TableView) -> list[str]:
    found = []
    for row in table.rows:
        if row.with_test_images:
            count = "an unknown number" if row.test_images is None else f"{row.test_images}"
            found.append(
                f"{row.name}: {count} of its images are test images; what students trained on them score says nothing."
            )
        if row.images_per_class is not None and row.images_per_class[0] < row.images_per_class[1]:
            few, most = row.images_per_class
            found.append(f"{row.name}: its classes have {few} to {most} images.")
        if shared := sorted(_shared_seeds(row)):
            found.append(
                f"{row.name}: several of its sets have students of the same seeds ({extent(shared)}), whose luck they "
                "share: its interval is too narrow."
            )
        if row.label_bytes is not None:
            found.append(f"{row.name}: {row.label_bytes:,} bytes of soft labels come with its images.")
        if row.done < row.expected:
            states = ", ".join(f"{count} {state}" for state, count in row.states.items() if state != State.OK)
            reasons = "; ".join(reason.partition("\n")[0] for reason in row.reasons)
            why = f" ({reasons})" if reasons else ""
            found.append(f"{row.name}: {row.done} of {row.expected} students done; {states}{why}.")
    return found


def _shared_seeds(row: RowView) -> set[int]:
    """Students' seeds that more than one of a row's sets has; results of several folders may have been merged."""
    counts = Counter(seed for made in row.sets for seed in set(made.evaluate_seeds))
    return {seed for seed, count in counts.items() if count > 1}


def _label_cost_note(table: TableView) -> list[str]:
    """What the labels of a student cost besides the images."""
    passes = sorted({row.teacher_passes for row in table.rows if row.teacher_passes is not None})
    if not passes:
        return []
    stored = sorted({row.stored_label_bytes for row in table.rows if row.stored_label_bytes is not None})
    where = f"; stored, as the protocol's program has them, they take {_span(stored)} bytes" if stored else ""
    networks = 1 if table.teacher is None else table.teacher.networks
    who, together = ("the teacher", "") if networks == 1 else (f"{networks} teachers", " together")
    what = f"{_span(passes)} images{together} for each student, each as often as it passed"
    return [f"Labels: {who} labelled {what}{where}."]


def _span(values: list[float]) -> str:
    """`1,000`, or `1,000 to 2,000`."""
    return " to ".join(f"{value:,.0f}" for value in dict.fromkeys((values[0], values[-1])))


def _few_sets_note(table: TableView) -> list[str]:
    """What pooled variances cannot see."""
    fewest = min((row.acc_last.n for row in table.rows if _borrows(row) and row.acc_last), default=FEW)
    if fewest >= FEW:
        return []
    return [
        f"{fewest} sets seldom show that a method varies more than the others: the interval of one that varies five "
        "times as much holds its mean four times in five (docs/statistics.md)."
    ]


def _borrows(row: RowView) -> bool:
    return row.acc_last is not None and row.acc_last.basis == "table"


def _power_note(table: TableView) -> list[str]:
    """What this many sets and test images can show at all; nothing where no pair could be tested."""
    visible = [points for pair in table.pairs if (points := visible_in(pair.comparison)) is not None]
    if not visible or table.n_test is None:
        return []
    compared = [table.rows[index] for pair in table.pairs for index in (pair.a, pair.b)]
    sets = extent(sorted({row.acc_last.n for row in compared if row.acc_last is not None}))
    return [
        f"Power: with {table.n_test:,} test images and {counted(sets, 'set')} a method, a true "
        f"difference below {median(visible):.1f} points is missed more than one time in five (median over the pairs)."
    ]


def _origin_notes(table: TableView) -> list[str]:
    """Cells of several versions, and what was taken from others as they say it."""
    found = []
    origins = [(row.name, row.origin) for row in table.rows]
    for package in PACKAGES:
        if names_of := several_versions(origins, package):
            which = "; ".join(f"{', '.join(names)} with {version}" for version, names in names_of.items())
            found.append(f"Mixed versions of {package}, which may round or do a step otherwise: {which}.")
    for name, origin in origins:
        if origin.mixed:
            more = f"; and {len(origin.mixed) - MOST_PARTS} more" if len(origin.mixed) > MOST_PARTS else ""
            found.append(
                f"{name}: not made in one environment, so no run can make it again bit for bit: "
                f"{'; '.join(origin.mixed[:MOST_PARTS])}{more}."
            )
        if origin.unverified:
            by = f" by {', '.join(origin.by)}" if origin.by else ""
            found.append(f"{name}: from others{by}, not all of it recomputed here: {'; '.join(origin.unverified)}.")
    return found


def _cost_notes(table: TableView) -> list[str]:
    found = []
    distilled = [(row.name, row.cost.distill_hardware) for row in table.rows]
    trained = [(row.name, row.cost.evaluate_hardware) for row in table.rows]
    for stage, models_of in (("distilled", distilled), ("students trained", trained)):
        methods_of: dict[str, list[str]] = {}
        for method, models in models_of:
            for model in models:
                methods_of.setdefault(model, []).append(method)
        if len(methods_of) > 1:
            where = "; ".join(f"{', '.join(methods)} on {model}" for model, methods in sorted(methods_of.items()))
            found.append(f"{MIXED_HARDWARE} {stage.capitalize()}: {where}.")
    shared = [row.name for row in table.rows if row.cost.shared_gpu]
    if shared:
        found.append(f"Costs measured on a GPU that others were using are left out: {', '.join(shared)}.")
    beside = sorted({count for row in table.rows for count in row.cost.cells_at_once})
    if len(beside) > 1:
        found.append(
            f"Times were measured with {' or '.join(map(str, beside))} cells side by side, which share a CPU's clock "
            "and memory: compare them with care (`--jobs 1` measures alone)."
        )
    batches = [
        (row.name, row.cost.distill_batch_sizes)
        for row in table.rows
        if row.prior_sha256 is not None and row.cost.distill_gpu_peak_allocated_mib is not None
    ]
    if len({size for _, sizes in batches for size in sizes}) > 1:
        said = ", ".join(f"{method} {'/'.join(map(str, sizes))}" for method, sizes in batches)
        found.append(f"Peak memory is at different batch sizes: {said}.")
    return found

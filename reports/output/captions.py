"""What captions must say of the tables behind a figure or a LaTeX table, and how their files and labels are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddbench.reports.results.words import counted, extent
from ddbench.reports.tables.views import TableView


def families(tables: Sequence[TableView]) -> list[list[TableView]]:
    """Those that differ in IPC only, together."""
    found: dict[tuple[object, ...], list[TableView]] = {}
    for table in tables:
        teacher = None if table.teacher is None else table.teacher.sha256
        where = (table.dataset, table.split, table.split_hash, table.content_hash, table.resolution)
        found.setdefault((*where, table.protocol, table.protocol_hash, table.student, teacher), []).append(table)
    return list(found.values())


def setting(tables: Sequence[TableView]) -> str:
    """What was run, in sentences: dataset, IPC, protocol, student, replication, prior, hardware.

    Args:
        tables: of one family (`families`).
    """
    first, rows = tables[0], [row for table in tables for row in table.rows]
    ipcs = [str(table.ipc) for table in tables if table.ipc is not None]
    ipc = f"{counted(', '.join(ipcs), 'image')} per class" if ipcs else "the whole training set"
    how = [
        f"protocol {first.protocol}",
        f"student {first.student} at {first.student_image_size or first.resolution} px",
    ]
    how += [] if first.n_test is None else [f"{first.n_test:,} test images"]
    how += [replication(tables), *(item for item in first.settings if all(item in table.settings for table in tables))]
    sentences = [f"{first.dataset} ({first.split} split), {ipc}", ", ".join(how)]
    distilled = "; ".join(sorted({model for row in rows for model in row.cost.distill_hardware}))
    trained = "; ".join(sorted({model for row in rows for model in row.cost.evaluate_hardware}))
    if distilled == trained and distilled:
        sentences.append(f"hardware: {distilled}")
    else:
        sentences += [f"distilled on {distilled}"] if distilled else []
        sentences += [f"students on {trained}"] if trained else []
    return " ".join(f"{text[:1].upper() if place else text[:1]}{text[1:]}." for place, text in enumerate(sentences))


def replication(tables: Sequence[TableView]) -> str:
    """`2–3 distilled sets × 1 student`, of the rows that are ranked."""
    finished = [row for table in tables for row in table.rows if row.acc_last is not None and not row.reference]
    sets = sorted({row.acc_last.n for row in finished if row.acc_last is not None})
    students = sorted({count for row in finished for count in row.students_per_set})
    return f"{counted(extent(sets), 'distilled set')} × {counted(extent(students), 'student')}"


def slug(table: TableView, *, ipc: bool, kind: str = "") -> str:
    """A name for a file or a label; others can have the same (`numbered`)."""
    words = [table.dataset, *([f"ipc{table.ipc or 'all'}"] if ipc else []), table.protocol, table.student, kind]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[-120:]

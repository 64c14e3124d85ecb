"""The engine's own commands that are imported only when used, as data."""

from __future__ import annotations

from ddbench.benchmark.registry import Entry

ENTRIES: list[Entry] = [
    Entry("prepare", "ddbench.benchmark.dataset_commands:prepare_app", "Find a dataset's files; decode them once."),
    Entry(
        "verify", "ddbench.benchmark.dataset_commands:verify_app", "Count a dataset's images against the whole split."
    ),
    Entry("new-method", "ddbench.benchmark.method_commands:new_method_app", "Write the files of a new method."),
    Entry(
        "check", "ddbench.benchmark.method_commands:check_app", "Does a method keep its contract? A table of checks."
    ),
    Entry(
        "train-teacher",
        "ddbench.benchmark.teacher_commands:train_teacher_app",
        "Train the teacher of a dataset for protocols with soft labels.",
    ),
    Entry("tune", "ddbench.benchmark.tune_commands:tune_app", "Try parameters on the validation part of a dataset."),
]

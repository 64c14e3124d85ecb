"""A plan: the cells that one command asks for. Kept in the results folder, so that completed/expected is known."""

from __future__ import annotations

from collections.abc import Iterator

from ddbench.benchmark.spec import DistillSpec, EvaluateSpec, Model, cell_id, digest
from ddbench.benchmark.store import Launch, Store, write_json


class PlannedSet(Model):
    """A distilled set and the students to train on it."""

    label: str
    """The method's display name, as in results."""
    spec: DistillSpec | None
    """None for images made elsewhere."""
    launch: Launch
    students: tuple[EvaluateSpec, ...]
    protocol_label: str | None
    """As in results; None when only the first stage was asked for."""

    @property
    def id(self) -> str | None:
        return None if self.spec is None else cell_id(self.spec)


class Plan(Model):
    """The cells of one command, in the order in which they start."""

    sets: tuple[PlannedSet, ...]

    def cells(self) -> Iterator[tuple[PlannedSet, DistillSpec | EvaluateSpec]]:
        """Each set's distil cell, then its students."""
        for planned in self.sets:
            if planned.spec is not None:
                yield planned, planned.spec
            for student in planned.students:
                yield planned, student

    def save(self, store: Store) -> None:
        """Keep the plan under its own hash: asking twice for the same thing leaves one file."""
        plan = self.model_dump(mode="json")
        write_json(store.plans / f"{digest(plan)[:16]}.json", plan)

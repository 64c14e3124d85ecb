"""A plan: the cells that one command asks for. Kept in the results folder, so that completed/expected is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec, Model, cell_id, digest
from ddbench.benchmark.core.store import Launch, Store


class PlannedSet(Model):
    """A distilled set and the students to train on it."""

    label: str
    """The method's display name, as in results."""
    spec: DistillSpec | None
    """The distill cell that makes the set; None for images made elsewhere."""
    shards: int = Field(default=1, ge=1, exclude_if=lambda value: value == 1)
    """Parts of the classes that are distilled apart and then merged; 1: the set is made in one piece."""
    launch: Launch
    students: tuple[EvaluateSpec, ...]
    protocol_label: str | None
    """The protocol's display name, as in results; None when only the first stage was asked for."""

    @property
    def id(self) -> str | None:
        return None if self.spec is None else cell_id(self.spec)


class Plan(Model):
    """The cells of one command, in the order in which they start."""

    sets: tuple[PlannedSet, ...]

    @property
    def has_students(self) -> bool:
        """False: only the first stage was asked for."""
        return any(planned.students for planned in self.sets)

    def cells(self) -> Iterator[tuple[PlannedSet, DistillSpec | EvaluateSpec]]:
        """Each set's shards, the distill cell that makes or merges the set, then its students."""
        for planned in self.sets:
            if planned.spec is not None:
                for shard in planned.spec.shards(planned.shards):
                    yield planned, shard
                yield planned, planned.spec
            for student in planned.students:
                yield planned, student

    @classmethod
    def joined(cls, plans: Sequence[Plan]) -> Plan:
        """One plan of several; a set that more than one asks for is made once and gets the students of all."""
        sets: dict[str, PlannedSet] = {}
        for number, planned in enumerate(planned for plan in plans for planned in plan.sets):
            name = planned.id or f"foreign {number}"
            other = sets.setdefault(name, planned)
            students = {cell_id(student): student for student in (*other.students, *planned.students)}
            sets[name] = other.model_copy(
                update={
                    "students": tuple(students.values()),
                    "protocol_label": other.protocol_label or planned.protocol_label,
                }
            )
        return cls(sets=tuple(sets.values()))

    def save(self, store: Store) -> None:
        """Keep the plan under its own hash: asking twice for the same thing leaves one file."""
        plan = self.model_dump(mode="json")
        write_json(store.plans / f"{digest(plan)[:16]}.json", plan)

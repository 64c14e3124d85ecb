"""Which environments had a hand in a cell: of its attempts, its set's shards, the artefacts that it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ddbench.benchmark.core.environment import deciding, differences
from ddbench.benchmark.core.result import OtherEnvironment
from ddbench.benchmark.core.spec import digest

Part = Literal["attempts", "shards", "artefacts"]


class Environments:
    """What is known of them; those that are alike count as one.

    Args:
        noted: of earlier attempts, as `noted` gave them.
    """

    def __init__(self, noted: Iterable[Mapping[str, Any]] = ()) -> None:
        found = map(OtherEnvironment.model_validate, noted)
        self._found = {_key(one.environment): one for one in found}
        self.present: dict[str, Any] | None = None
        """That of this attempt."""

    def begin(self, attempt: int, environment: dict[str, Any]) -> list[str]:
        """Note where this attempt runs; returns in what the last one's environment was another."""
        last = max((one for one in self._found.values() if one.attempts), key=lambda o: o.attempts[-1], default=None)
        self.present = environment
        self.add("attempts", attempt, [environment])
        return [] if last is None else differences(environment, last.environment)

    def add(self, part: Part, name: Any, environments: Iterable[dict[str, Any]]) -> None:
        """Note in which environments a part of the work was done."""
        for environment in environments:
            one = self._found.setdefault(_key(environment), OtherEnvironment(environment=environment))
            if name not in (names := getattr(one, part)):
                names.append(name)

    def of_artefact(self, *, resumed: bool) -> list[dict[str, Any]]:
        """In which an artefact is made now: in this attempt's, from artefacts of others perhaps.

        Args:
            resumed: an earlier attempt had begun it.
        """
        found = [one.environment for one in self._found.values() if one.artefacts or (resumed and one.attempts)]
        present = [] if self.present is None else [self.present]
        return present + [one for one in found if not present or _key(one) != _key(present[0])]

    def others(self) -> list[OtherEnvironment]:
        """All but this attempt's."""
        own = None if self.present is None else _key(self.present)
        return [one for key, one in self._found.items() if key != own]

    def noted(self) -> list[dict[str, Any]]:
        """For the next attempt."""
        return [one.model_dump(mode="json") for one in self._found.values()]


def _key(environment: Mapping[str, Any]) -> str:
    return digest(deciding(environment))

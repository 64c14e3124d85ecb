"""What every registered protocol promises (`benchmark/protocols/base.py`), on every dataset that it can run on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from itertools import pairwise

import pytest
from pydantic import ValidationError

from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import DATASETS, PROTOCOLS
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.lengths import Updates

NAMES = [entry.name for entry in PROTOCOLS]
every_protocol = pytest.mark.parametrize("name", NAMES)


def trainable() -> list[tuple[str, str, str]]:
    """(protocol, dataset, student) wherever the protocol takes that student on that dataset."""
    found = []
    for name in NAMES:
        protocol: Protocol = PROTOCOLS.load(name)
        for dataset in (entry.name for entry in DATASETS if "published" not in entry.tags):
            for student in protocol.students:
                try:
                    protocol.check_student(student, DATASETS.load(dataset).resolution)
                except UsageError:
                    continue
                found.append((name, dataset, student))
    return found


@cache
def hashes_elsewhere() -> dict[str, str]:
    """Name -> hash, as another process with another hash seed computes them."""
    program = (
        "import json; from ddbench.benchmark.core.registry import PROTOCOLS; "
        "print(json.dumps({entry.name: PROTOCOLS.load(entry.name).hash for entry in PROTOCOLS}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    output = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, check=True)
    return json.loads(output.stdout)


def test_protocols_for_papers_and_for_a_first_run_are_registered() -> None:
    protocols: list[Protocol] = [PROTOCOLS.load(name) for name in NAMES]
    assert {protocol.comparable_with_papers for protocol in protocols} == {True, False}
    assert not PROTOCOLS.broken


@every_protocol
def test_declaration(name: str) -> None:
    protocol: Protocol = PROTOCOLS.load(name)
    assert protocol.name == name
    assert protocol.label == protocol.id == f"{name}@{protocol.version}"
    assert not protocol.modified
    assert protocol.summary
    assert PROTOCOLS.entry(name).summary
    assert protocol.comparable_with_papers or protocol.notice, "what is not comparable says so beside its numbers"
    assert len(set(protocol.students)) == len(protocol.students)
    with pytest.raises(ValidationError):
        protocol.version = 99


@every_protocol
def test_hash_is_the_same_in_every_process_and_another_for_every_protocol(name: str) -> None:
    protocol: Protocol = PROTOCOLS.load(name)
    assert hashes_elsewhere()[name] == protocol.hash
    assert Protocol.model_validate_json(protocol.model_dump_json()).hash == protocol.hash
    assert [other for other in NAMES if PROTOCOLS.load(other).hash == protocol.hash] == [name]


@every_protocol
def test_epochs_and_looks(name: str) -> None:
    protocol: Protocol = PROTOCOLS.load(name)
    for classes in (10, 100, 1000):
        by_ipc = [protocol.epochs_for(ipc, classes) for ipc in (1, 10, 50, 100, 1000)]
        assert all(few >= many for few, many in pairwise(by_ipc)), "fewer images, more epochs"
        for full, epochs in [*((False, epochs) for epochs in by_ipc), (True, protocol.epochs_for(None, classes))]:
            looks = protocol.look_epochs(epochs, full=full)
            assert looks == sorted(set(looks))
            assert looks[0] >= 1
            assert looks[-1] == epochs, "the last epoch is what counts"
            rates = protocol.schedule.learning_rates(protocol.optimiser_for(classes).learning_rate, epochs)
            assert len(rates) == epochs
            assert all(before >= after >= 0 for before, after in pairwise(rates))
            assert min(rates[:-1], default=1) > 0, "a cosine may end at 0, and is there in no epoch before"
        assert protocol.batch_size_for(classes) >= 1
    with pytest.raises(UsageError, match="at least 1"):
        protocol.epochs_for(0, 10)


@every_protocol
def test_a_changed_copy_says_so_and_unknown_changes_are_told_at_once(name: str) -> None:
    protocol: Protocol = PROTOCOLS.load(name)
    length = "updates" if isinstance(protocol.epochs, Updates) else "epochs"
    changed = protocol.with_overrides({length: 7})
    assert changed.modified
    assert changed.label == f"{name}[{length}=7]@{protocol.version}"
    assert changed.hash != protocol.hash
    passed = {changed.images_seen(n, ipc, 10) / 7 for n, ipc in ((100, 10), (100, None))}
    assert passed == {changed.batch_size if length == "updates" else 100}
    assert not protocol.modified, "the published one is untouched"
    with pytest.raises(Problems) as refused:
        protocol.with_overrides({length: 0, "epoch": 3, "learning_rate": "fast"})
    assert len(refused.value.problems) == 3


@every_protocol
def test_it_runs_on_some_dataset(name: str) -> None:
    assert [dataset for protocol, dataset, _ in trainable() if protocol == name]


def students() -> dict[str, tuple[str, int, int, int, int | None]]:
    """Arguments of `networks.build` for all that can be trained, under the first name that has them; what differs in
    the number of classes alone is built once."""
    found: dict[tuple[str, int, int, int | None], tuple[str, int]] = {}
    for name, dataset, student in trainable():
        protocol, declared = PROTOCOLS.load(name), DATASETS.load(dataset)
        image_size, channels = protocol.image_size_for(declared.resolution), protocol.channels or declared.channels
        arguments = (student, image_size, channels, protocol.width)
        found.setdefault(arguments, (f"{student}-{name}-{dataset}", len(declared.class_ids)))
    return {
        name: (student, classes, image_size, channels, width)
        for (student, image_size, channels, width), (name, classes) in found.items()
    }


@pytest.mark.parametrize("arguments", students().values(), ids=students())
def test_students_build_at_the_datasets_side(arguments: tuple[str, int, int, int, int | None]) -> None:
    import torch

    from ddbench.benchmark.protocols.networks import build

    _, classes, image_size, channels, _ = arguments

    def built(seed: int) -> torch.nn.Module:
        network = build(*arguments, generator=torch.Generator().manual_seed(seed))
        assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
        return network.eval()

    images = torch.rand(2, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
    network = built(0)
    with torch.inference_mode():
        logits = network(images)
        assert logits.shape == (2, classes)
        assert logits.isfinite().all()
        assert not torch.equal(logits[0], logits[1]), "it looks at the image"
        assert torch.equal(built(0)(images), logits), "its start is the seed's"
        assert not torch.equal(built(1)(images), logits)
    assert all(parameter.isfinite().all() for parameter in network.parameters())

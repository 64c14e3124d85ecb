"""What the registry says of the names in a result: the protocol's hash, and whose name a label is."""

from __future__ import annotations

from collections.abc import Iterator

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS, PROTOCOLS
from ddbench.benchmark.core.spec import EvaluateSpec, MethodSpec
from ddbench.benchmark.planning.run_spec import parse_selector
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.transfer import texts


class Unknown(Exception):
    """What something would be recomputed from is not here."""


def protocol_problems(spec: EvaluateSpec) -> Iterator[str]:
    """A hash that is not that of the registered protocol with these overrides.

    Raises:
        Unknown: there is none of this name and version here.
    """
    said = spec.protocol
    try:
        protocol: Protocol = PROTOCOLS.load(said.name)
        if protocol.version != said.version:
            raise Unknown(f"version {said.version} of {said.name} is not known here, which has {protocol.version}")
        known = protocol.with_overrides(said.overrides) if said.overrides else protocol
    except UsageError as error:
        raise Unknown(str(error).partition("\n")[0]) from error
    if known.hash != said.hash:
        yield f"{said.label} has the hash {known.hash[:12]}, and the specification says {texts.shown(said.hash[:12])}"


def label_problems(label: str, method: MethodSpec) -> Iterator[str]:
    """A name that belongs to another method, or whose brackets say what its parameters do not.

    Raises:
        Unknown: there is no method of this name here.
    """
    name, _, given = label.partition("[")
    entries = METHODS.entries()
    base = method.name if name == method.name else None
    if base is None and name in entries:
        base = entries[name].variant_of or name
        try:
            base = METHODS.load(name).name
        except UsageError:  # a plugin that is broken here
            return
    if base is None:
        raise Unknown(f"no method is called {texts.shown(name)} here")
    if base != method.name:
        yield f"it calls itself {texts.shown(label)}, and its method is {texts.shown(method.name)}"
        return
    try:
        _, values = parse_selector(label) if given else (name, {})
    except UsageError:
        return
    for key, (value, *_) in values.items():
        if key in method.params and method.params[key] != value:
            yield f"it calls itself {texts.shown(label)}, and {key} is {texts.shown(str(method.params[key]))}"

"""Registries of methods, datasets, protocols, engines and commands: names to lazily imported objects.

Entries come from three places, in this order: built-ins (a module-level `ENTRIES` list of plain data), installed
packages (entry-point groups such as `ddbench.methods`), and plugin files given on the command line. Listing imports
none of them; only `load` imports a target. What cannot be imported is shown as unavailable and breaks nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.near_names import did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One registered name.

    A *variant* (`variant_of` set) is data, not code: the base's target with other parameters.
    """

    name: str
    target: str = ""
    """`module:attribute`, imported when used; empty for a variant."""
    summary: str = ""
    tags: tuple[str, ...] = ()
    variant_of: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    prior_tuned_by: str | None = None
    """The method that tunes the run's prior before this one gets it (`minimax`); not inherited by variants."""
    origin: str = "built-in"
    module: str = ""
    """Of what a plugin file defines, the module that it was imported as."""

    def __str__(self) -> str:
        what = f"variant of {self.variant_of} with {dict(self.overrides)}" if self.variant_of else self.target
        return f"{self.name} = {what} ({self.origin})"


class Registry(Generic[T]):
    """Names of one kind of thing.

    Args:
        kind: what messages call it ("method").
        base: `module:attribute` of the class that a loaded target must subclass or be an instance of.
        builtins: module with the built-in `ENTRIES`, and names that cannot be had in `UNAVAILABLE` (name -> why).

    Installed packages use the entry-point group `ddbench.<kind>s`; a point's value is a target or a list of `Entry`.
    """

    def __init__(self, kind: str, *, base: str, builtins: str) -> None:
        self.kind, self.base, self.builtins = kind, base, builtins
        self._entries: dict[str, Entry] | None = None
        self._loaded: dict[str, T] = {}
        """Target -> what it is, of those that were asked for."""
        self.broken: dict[str, str] = {}
        """Name of a plugin -> why it could not be taken."""
        self._unavailable: dict[str, str] = {}

    def entries(self) -> dict[str, Entry]:
        """All names in the order they were registered."""
        if self._entries is None:
            self._entries = {}
            builtins = importlib.import_module(self.builtins)
            for entry in builtins.ENTRIES:
                self.register(entry)
            self._unavailable = dict(getattr(builtins, "UNAVAILABLE", {}))
            for point in metadata.entry_points(group=f"ddbench.{self.kind}s"):
                self._adopt_entry_point(point)
        return self._entries

    @property
    def unavailable(self) -> dict[str, str]:
        """Names that people know and that are not here -> why."""
        self.entries()
        return self._unavailable

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries().values())

    def __contains__(self, name: object) -> bool:
        """Whether there is something of that name."""
        return isinstance(name, str) and name in self.entries()

    def register(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            UsageError: the name is taken; the message shows both entries.
        """
        taken = self.entries().get(entry.name)
        if taken is not None:
            raise UsageError(f"two {self.kind}s are called {entry.name!r}:\n  {taken}\n  {entry}\nRename one of them.")
        self.entries()[entry.name] = entry
        self._loaded.pop(entry.target, None)  # what a plugin's file that is loaded again defines is new

    def entry(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            UsageError: unknown name, with the nearest known ones; or a plugin that failed to import.
        """
        known = self.entries()
        if name in known:
            return known[name]
        if (reason := self.broken.get(name) or self.unavailable.get(name)) is not None:
            raise UsageError(f"{self.kind} {name!r} is unavailable: {reason}")
        near = did_you_mean(name, sorted(known))
        raise UsageError(f"unknown {self.kind} {name!r}; {near} See `bench list {self.kind}s`.")

    def load(self, name: str) -> T:
        """Import what a name stands for (for a variant: its base).

        Raises:
            UsageError: unknown name, failing import, or a target of the wrong type.
        """
        entry = self.entry(name)
        if entry.variant_of is not None:
            return self.load(entry.variant_of)
        if entry.target not in self._loaded:
            self._loaded[entry.target] = self._checked(entry.target, f"{self.kind} {name!r} ({entry.origin})")
        return self._loaded[entry.target]

    def _checked(self, target: str, what: str) -> T:
        base = _import_target(self.base)
        try:
            loaded = _import_target(target)
        except Exception as error:
            raise UsageError(f"{what} is unavailable: importing {target} failed: {_one_line(error)}") from error
        fits = issubclass(loaded, base) if isinstance(loaded, type) else isinstance(loaded, base)
        if not fits:
            raise UsageError(f"{what}: {target} is {loaded!r}; expected a {base.__name__} ({self.base})")
        if isinstance(loaded, type):
            _check_complete(loaded, base, what)
        return loaded

    def _adopt_entry_point(self, point: metadata.EntryPoint) -> None:
        origin = f"package {point.dist.name} {point.dist.version}" if point.dist else "package"
        # A broken or clashing package must not take the command line down with it.
        try:
            if point.name.startswith("entries"):
                for entry in point.load():
                    self.register(replace(entry, origin=origin))
            else:
                self.register(Entry(point.name, point.value, f"from {origin}", origin=origin))
        except Exception as error:
            self.broken[point.name] = f"{origin}: {_one_line(error)}"

    def adopt(self, module: ModuleType, origin: str) -> int:
        """Register every subclass (or instance) of the base, and every variant, that a plugin module defines."""
        base = _import_target(self.base)
        found = 0
        for attribute, value in vars(module).items():
            if isinstance(value, type):
                mine = issubclass(value, base) and value.__module__ == module.__name__ and hasattr(value, "name")
                if mine:
                    _check_complete(value, base, f"{origin}: {self.kind} class {attribute}")
            else:
                mine = isinstance(value, base)
            if mine:
                summary = getattr(value, "summary", "") or (value.__doc__ or "").strip().partition("\n")[0]
                tags = (str(value.cost_class),) if hasattr(value, "cost_class") else ()
                target = f"{module.__name__}:{attribute}"
                self.register(Entry(value.name, target, summary, tags=tags, origin=origin, module=module.__name__))
                found += 1
        for entry in getattr(module, "ENTRIES", []):
            if entry.variant_of in self.entries():
                self.register(replace(entry, origin=origin, module=module.__name__))
                found += 1
        return found

    def drop(self, module: str | None) -> None:
        """Forget what a plugin's module has registered."""
        if module is not None:
            self.restore({name: entry for name, entry in self.entries().items() if entry.module != module})

    def restore(self, entries: dict[str, Entry]) -> None:
        """Have these entries and no others."""
        self._entries = entries


def _check_complete(found: type, base: type, what: str) -> None:
    """Raises UsageError if a class lacks what its base declares without a default, or leaves methods abstract."""
    undeclared = [name for name in inspect.get_annotations(base) if not hasattr(found, name)]
    if undeclared:
        raise UsageError(f"{what} does not declare {', '.join(undeclared)}; see {base.__module__}.{base.__name__}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise UsageError(f"{what} does not define {missing}; see {base.__module__}.{base.__name__}")


def _import_target(target: str) -> Any:
    module, _, attribute = target.partition(":")
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part)
    return value


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


class _Datasets(Registry[Any]):
    """Datasets; of each its validation part, `<name>:validation`; and any classes of ImageNet-1K, `subset:…`."""

    validation = "ddbench.datasets.validation:validation_of"
    subset = "ddbench.datasets.imagenet.published:subset"

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        whole, _part = _validation_part(name)
        if not whole.startswith("subset:"):
            return self._alias(whole) in self.entries()
        try:
            self._subset(whole)
        except UsageError:
            return False
        return True

    def entry(self, name: str) -> Entry:
        whole, _part = _validation_part(name)
        if whole.startswith("subset:"):
            return Entry(name, self.subset, self._subset(whole).__doc__ or "", tags=("files",))
        return replace(super().entry(self._alias(whole)), name=name)

    def load(self, name: str) -> Any:
        whole, part = _validation_part(name)
        found = self._subset(whole) if whole.startswith("subset:") else super().load(self._alias(whole))
        return _import_target(self.validation)(found) if part else found

    def canonical(self, name: str) -> str:
        """The name under which results lie: of an alias what it stands for, of `subset:FILE` its classes; an unknown
        name stays as it is.

        Raises:
            UsageError: a file that lists no subset of ImageNet-1K.
        """
        whole, part = _validation_part(name)
        named = _import_target(f"{self.subset}_name")(whole) if whole.startswith("subset:") else self._alias(whole)
        return str(named) + part

    def _alias(self, name: str) -> str:
        return importlib.import_module(self.builtins).ALIASES.get(name, name)

    def _subset(self, name: str) -> Any:
        return _import_target(self.subset)(name)


def whole_of(dataset: str | None) -> str | None:
    """The dataset whose validation part that is (`woof` of `woof:validation`); any other name, and none, as it is."""
    return None if dataset is None else _validation_part(dataset)[0]


def _validation_part(name: str) -> tuple[str, str]:
    """`woof:validation` -> ("woof", ":validation"); any other name -> (name, "")."""
    whole, colon, part = name.rpartition(":")
    once = part == "validation" and not whole.endswith(":validation")
    return (whole, colon + part) if once else (name, "")


METHODS: Registry[Any] = Registry("method", base="ddbench.methods.base:Method", builtins="ddbench.methods.builtin")
DATASETS = _Datasets("dataset", base="ddbench.datasets.base:Dataset", builtins="ddbench.datasets.builtin")
PROTOCOLS: Registry[Any] = Registry(
    "protocol", base="ddbench.benchmark.protocols.base:Protocol", builtins="ddbench.benchmark.protocols.builtin"
)
ENGINES: Registry[Any] = Registry(
    "engine", base="ddbench.benchmark.engines.base:Engine", builtins="ddbench.benchmark.engines.builtin"
)
COMMANDS: Registry[Any] = Registry("command", base="typer:Typer", builtins="ddbench.benchmark.commands.builtin")


PLUGIN_MODULE = "ddbench_plugin_"


def plugin_module(file: Path, sha256: str) -> str:
    """The name under which a plugin file's module is imported."""
    return f"{PLUGIN_MODULE}{file.stem}_{sha256[:8]}"


_PLUGIN_TEXTS: dict[str, str] = {}
"""Module of a plugin file -> SHA-256 of the text that was run, whatever the file says by now."""
_PLUGINS_IN_FORCE: dict[Path, str] = {}
"""Plugin file -> the module of it whose names are registered."""


def source_sha256(module: str) -> str | None:
    """SHA-256 of the file that a module outside ddbench was loaded from; None for ddbench's own, and without a file."""
    if module in _PLUGIN_TEXTS:
        return _PLUGIN_TEXTS[module]
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] == "ddbench" or file is None or not Path(file).is_file():
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def plugin_sha256(method: type) -> str | None:
    """SHA-256 of the plugin file that a class comes from, as it was loaded; None for an installed one."""
    return _PLUGIN_TEXTS.get(method.__module__)


def load_plugin(file: Path) -> str:
    """Import a plugin file and register the methods, datasets and protocols it defines.

    Nothing is loaded that the user did not name. A file that was edited since this process loaded it takes the place
    of what it was. Returns the SHA-256 of the file's text, which goes into results.

    Raises:
        UsageError: no such file, an error while importing it, nothing in it to register, or a name already taken.
    """
    file = file.expanduser()
    if not file.is_file():
        raise UsageError(f"--plugin {file}: no such file")
    text, place = file.read_bytes(), file.resolve()
    digest = hashlib.sha256(text).hexdigest()
    module_name = plugin_module(file, digest)
    if module_name in _PLUGINS_IN_FORCE.values():
        return digest
    module = sys.modules.get(module_name) or _plugin(file, module_name, text)
    _PLUGIN_TEXTS[module_name] = digest
    registries = (METHODS, DATASETS, PROTOCOLS)
    before = [dict(registry.entries()) for registry in registries]
    try:
        for registry in registries:
            registry.drop(_PLUGINS_IN_FORCE.get(place))
        found = sum(registry.adopt(module, origin=f"plugin {file.name}") for registry in registries)
        if not found:
            raise UsageError(
                f"--plugin {file}: expected a subclass of ddbench.methods.base.Method (or a Dataset or a Protocol) "
                "with a `name` in it, found none"
            )
    except Exception as error:  # names that a plugin's own classes compute may raise anything; nothing of it stays
        for registry, entries in zip(registries, before, strict=True):
            registry.restore(entries)
        raise error if isinstance(error, UsageError) else _not_imported(file, error) from error
    _PLUGINS_IN_FORCE[place] = module_name
    return digest


def _plugin(file: Path, module_name: str, text: bytes) -> ModuleType:
    """The module that a plugin's text makes."""
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--plugin {file}: expected a Python file ending in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        # The text that was hashed: the file may be edited just now, and compiled files go by its seconds and size.
        exec(compile(text, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise error if isinstance(error, UsageError) else _not_imported(file, error) from error
    return module


def _not_imported(file: Path, error: BaseException) -> UsageError:
    return UsageError(f"--plugin {file}: importing it failed: {_one_line(error)}")

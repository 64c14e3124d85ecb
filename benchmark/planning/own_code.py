"""Authors' own code that cells ran, and whether it is another by now.

The text of a plugin file is part of a cell's id; that of what it imports, and of a method in a package, is not:
`version` alone says that those have changed, and authors forget it. So cells note what they had loaded.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Collection, Iterable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from ddbench.benchmark.core.registry import PLUGIN_MODULE
from ddbench.benchmark.core.result import Result

NOT_THEIRS = ("ddbench", "__main__", "__mp_main__")
"""Top names of what is ddbench's, and of the program that runs."""


def own_code(method: type | None, loaded_before: Collection[str]) -> dict[str, str]:
    """Module -> SHA-256 of its file, of what a cell has loaded and authors may edit: what lies neither in the standard
    library nor among installed packages, and the package that a method is in.

    Args:
        method: None for a student.
        loaded_before: modules that the process had before the cell began, such as those of a script that calls ddbench;
            of them the method's package alone counts.
    """
    methods_own = None if method is None else method.__module__.partition(".")[0]
    theirs = dict[str, bool]()
    found = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in theirs:
            in_id = top in NOT_THEIRS or top.startswith(PLUGIN_MODULE)
            theirs[top] = not in_id and (top == methods_own or not _installed(top))
        file = getattr(module, "__file__", None)
        counts = theirs[top] and (top == methods_own or name not in loaded_before)
        if counts and file is not None and (sha256 := _sha256(Path(file))) is not None:
            found[name] = sha256
    return dict(sorted(found.items()))


def changed_since(results: Iterable[Result]) -> dict[str, int]:
    """Module -> of how many of these cells it is another by now. No module is imported, since results may be another's;
    what is not found here says nothing."""
    now, changed = dict[str, str | None](), dict[str, int]()
    for result in results:
        for name, sha256 in result.own_code.items():
            if name not in now:
                file = _file_of(name)
                now[name] = None if file is None else _sha256(file)
            if now[name] not in (None, sha256):
                changed[name] = changed.get(name, 0) + 1
    return changed


def reused_with_other_code(changed: Mapping[str, int]) -> str:
    """What is to be said before cells are reused, of what `changed_since` found."""
    names, cells = ", ".join(changed), max(changed.values())
    which = "1 cell that is reused was" if cells == 1 else f"{cells} cells that are reused were"
    return (
        f"{which} run with other code than is here now ({names}): they count as the same, since the method's version "
        "and parameters are. If the change can change a result, raise `version`, or run them again with --reuse never"
    )


def _installed(top: str) -> bool:
    module = sys.modules.get(top)
    places = [*getattr(module, "__path__", ()), *filter(None, [getattr(module, "__file__", None)])]
    library = [Path(place).resolve() for key, place in sysconfig.get_paths().items() if key in ("stdlib", "platstdlib")]
    return all(
        {"site-packages", "dist-packages"} & set(path.parts) or any(path.is_relative_to(root) for root in library)
        for path in (Path(place).resolve() for place in places)
    )


def _file_of(name: str) -> Path | None:
    """The file of a module, found as an import would, without one."""
    if (file := getattr(sys.modules.get(name), "__file__", None)) is not None:
        return Path(file)
    top, *parts = name.split(".")
    try:
        spec = find_spec(top)  # of a top name it imports nothing
    except ValueError:
        return None
    for part in parts:
        spec = None if spec is None else PathFinder.find_spec(part, list(spec.submodule_search_locations or ()))
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _sha256(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.suffix == ".py" and file.is_file() else None

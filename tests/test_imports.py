"""Who may import whom, and how full a folder may be. The table below is the architecture; the code is held against it.

Every import counts: at the top of a module, inside a function, under `TYPE_CHECKING`. Only what the registry names as
`"module:attribute"` does not, since it is imported when it is asked for and breaks nothing when it cannot be.
"""

from __future__ import annotations

import ast
import graphlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CONTRACTS = ("methods.base", "methods.classifier", "methods.pretrained")
"""All that the engine knows of methods; which methods there are, the registry says."""
PRIORS = "methods.diffusion.priors"
"""Plans name priors by the hash of their files."""
SPECIFICATIONS = ("benchmark.planning.parameters", "benchmark.planning.plan", "benchmark.planning.run_spec")

MAY_IMPORT: dict[str, Sequence[str]] = {
    # The ground floor.
    "benchmark.core": (),
    "datasets": ("benchmark.core",),
    # The contestants and the referee, who do not know each other.
    "methods": ("benchmark.core", "datasets"),
    "benchmark.protocols": ("benchmark.core", "datasets"),
    # From what was asked for to a plan; a cell; where cells run; the run as a whole.
    "benchmark.planning": ("benchmark.core", "benchmark.protocols", "datasets", *CONTRACTS, PRIORS),
    "benchmark.cells": (
        *("benchmark.core", "benchmark.protocols", "benchmark.planning"),
        *("datasets", *CONTRACTS, "methods.diffusion"),
    ),
    "benchmark.engines": ("benchmark.core", "benchmark.cells"),
    "benchmark.running": (
        *("benchmark.core", "benchmark.protocols", "benchmark.planning", "benchmark.cells", "benchmark.engines"),
        *("datasets", *CONTRACTS, PRIORS),
    ),
    "benchmark.cluster": (*("benchmark.core", "benchmark.planning", "benchmark.engines", "benchmark.running"),),
    "benchmark.check": (
        *("benchmark.core", "benchmark.planning", "benchmark.cells"),
        *("datasets", *CONTRACTS),
    ),
    # Results of other machines: checked, merged, and trained again.
    "benchmark.transfer": (
        *("benchmark.core", "benchmark.protocols", "benchmark.planning", "benchmark.cells", "benchmark.engines"),
        *("datasets", "reports.results.paths"),
    ),
    # What people read. Measuring a set trains the classifier that cells train, on the images that methods see.
    "reports.results": ("benchmark.core", *SPECIFICATIONS, "datasets", *CONTRACTS, PRIORS),
    "reports.statistics": (),
    "reports.tables": ("benchmark.core", "reports.results", "reports.statistics"),
    "reports.analyses": ("benchmark.core", "reports.results", "reports.statistics", "reports.tables"),
    "reports.output": (
        *("benchmark.core", "benchmark.cluster.jobs"),  # what is queued for a results folder, from its files
        *("reports.results", "reports.statistics", "reports.tables"),
    ),
    "reports.quality": (
        *("benchmark.core", *SPECIFICATIONS, "benchmark.protocols", "benchmark.cells", "datasets"),
        *(*CONTRACTS, "methods.normalisation", "methods.observer", "methods.observer_params"),
        *("reports.results", "reports.statistics", "reports.tables", "reports.output"),
    ),
    "reports.robustness": (
        *("benchmark.core", "datasets", "reports.results", "reports.statistics", "reports.tables", "reports.output"),
    ),
    "reports.site": (
        *("benchmark.core", "datasets"),
        *("reports.results", "reports.statistics", "reports.tables", "reports.analyses"),
        *("reports.output", "reports.quality", "reports.robustness"),
    ),
    # The doors: the command line, and `import ddbench`. Nobody comes in through them.
    "benchmark.commands": ("benchmark", "datasets", "methods", "reports"),
    "api.__main__": ("benchmark.commands",),  # `python -m ddbench` is the command line
    "api": ("benchmark", "datasets", "methods", "reports"),
}
NOT_FROM = {"api": "benchmark.commands"}
"""Python and the command line stand side by side."""
BY_NAME = {"datasets.digits": ("benchmark.check",)}
"""The concrete datasets that a room outside `datasets` imports: the checks' canary hides its marks in digits."""
MOST_FILES = 16
ONE_FILE_PER_VERB = "benchmark/commands"
"""The folder that grows with what the command line can do, and in which nobody has to look for anything."""


def folders(root: Path) -> dict[str, Path]:
    """Package -> folder, as pyproject maps them; `ddbench` itself is called `api` in the table."""
    setup = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapped = setup["package-dir"].items()
    return {package.removeprefix("ddbench").lstrip(".") or "api": root / folder for package, folder in mapped}


def modules(root: Path) -> dict[str, Path]:
    """Name without `ddbench.` -> file, of every module of the product."""
    found = {}
    for package, folder in folders(root).items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of the product that it imports, wherever in it."""
    known, tops = modules(root), folders(root).keys()

    def named(name: str, members: Sequence[str] = ()) -> Iterator[str]:
        inner = name.removeprefix("ddbench").lstrip(".")
        inside = inner if inner.split(".")[0] in tops else f"api.{inner}".rstrip(".")
        for member in members or ("",):
            deeper = member if inside == "api" and member in tops else f"{inside}.{member}"
            yield deeper if deeper in known else inside

    found: dict[str, set[str]] = {}
    for module, path in known.items():
        into = found.setdefault(module, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    into.update(named(alias.name) if alias.name.split(".")[0] == "ddbench" else ())
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: line {node.lineno}: write imports in full"
                if str(node.module).split(".")[0] == "ddbench":
                    into.update(named(str(node.module), [alias.name for alias in node.names]))
        into.discard(module)
    return found


def lies_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def room_of(module: str) -> str | None:
    return next((room for room in MAY_IMPORT if lies_in(module, room)), None)


def arrows_up(root: Path) -> list[str]:
    """Imports that the table does not have, and modules that have no row in it."""
    wrong = []
    for module, targets in imports(root).items():
        room = room_of(module)
        for target in sorted(targets):
            if room is None:
                wrong.append(f"{module} lies in no room of the table, and imports {target}")
            elif not lies_in(target, room) and (
                not any(lies_in(target, place) for place in MAY_IMPORT[room])
                or target.startswith(NOT_FROM.get(room, "-"))
            ):
                wrong.append(
                    f"{module} imports {target}, but {room} may import {', '.join(MAY_IMPORT[room]) or 'nothing'}"
                )
    return wrong


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of imports, its first module repeated at the end; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def concrete_datasets(root: Path) -> set[str]:
    """The modules that `datasets/builtin.py` names."""
    tree = ast.parse((root / "datasets" / "builtin.py").read_text(encoding="utf-8"))
    words = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {word.partition(":")[0].removeprefix("ddbench.") for word in words if word.startswith("ddbench.")}


def unkept_folders(root: Path) -> list[str]:
    """Folders that hold too much, are not explained, or would not be installed."""
    packages = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    wrong = []
    for package, top in folders(root).items():
        for folder in sorted({path.parent for path in top.rglob("*.py")}):
            parts = ("ddbench", *package.split("."), *folder.relative_to(top).parts)
            name, files = ".".join(part for part in parts if part != "api"), sorted(folder.glob("*.py"))
            init = folder / "__init__.py"
            if init not in files or ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) is None:
                wrong.append(f"{init.relative_to(root)} does not say in a docstring what the folder holds")
            if len(files) > MOST_FILES + 1 and folder != root / ONE_FILE_PER_VERB:
                wrong.append(f"{folder.relative_to(root)} holds {len(files) - 1} modules, more than {MOST_FILES}")
            if name not in packages:
                wrong.append(f"{name} is missing from pyproject's packages")
    return wrong


def test_no_import_leads_up() -> None:
    assert arrows_up(ROOT) == []


def test_no_circle_of_imports() -> None:
    assert circle(imports(ROOT)) == []


def test_the_table_has_no_circle_and_no_empty_room() -> None:
    rooms = {room: {other for other in MAY_IMPORT if other != room and any(
        lies_in(place, other) or lies_in(other, place) for place in places
    )} for room, places in MAY_IMPORT.items() if room not in ("benchmark.commands", "api")}  # fmt: skip
    assert circle(rooms) == []
    there = {room for room in MAY_IMPORT if room.split(".")[0] in folders(ROOT)}
    assert {room_of(module) for module in modules(ROOT)} - {None} == there


def test_concrete_datasets_are_named_by_the_registry_alone() -> None:
    concrete = concrete_datasets(ROOT)
    assert "datasets.digits" in concrete
    for module, targets in imports(ROOT).items():
        for target in targets & concrete:
            allowed = ("datasets", *BY_NAME.get(target, ()))
            assert any(lies_in(module, place) for place in allowed), f"{module} imports {target}"


def test_folders_are_small_explained_and_installed() -> None:
    assert unkept_folders(ROOT) == []


# The test of the test: a house that keeps the rules, and one change each ---------------------------------------------

HOUSE = {
    "pyproject.toml": """
[tool.setuptools]
packages = ["ddbench", "ddbench.benchmark", "ddbench.benchmark.core", "ddbench.benchmark.cells", "ddbench.datasets"]
package-dir = {"ddbench" = "api", "ddbench.benchmark" = "benchmark", "ddbench.datasets" = "datasets"}
""",
    "api/__init__.py": '"""The Python entry."""\nfrom ddbench.benchmark.cells import cell\n',
    "benchmark/__init__.py": '"""The engine."""\n',
    "benchmark/core/__init__.py": '"""The ground floor."""\n',
    "benchmark/core/errors.py": "",
    "benchmark/core/store.py": "import json\nfrom ddbench.benchmark.core.errors import RunError\n",
    "benchmark/cells/__init__.py": '"""What happens in one process."""\n',
    "benchmark/cells/cell.py": "from ddbench.benchmark.core import errors, store\nimport ddbench.datasets.base\n",
    "datasets/__init__.py": '"""Datasets."""\n',
    "datasets/base.py": "import ddbench.benchmark.core.store\n",
}


def build(root: Path, changes: Mapping[str, str] = {}) -> Path:
    for name, text in (HOUSE | {name: HOUSE.get(name, "") + text for name, text in changes.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_house_that_keeps_the_rules(tmp_path: Path) -> None:
    assert imports(build(tmp_path)) == {
        "api": {"benchmark.cells.cell"},
        "benchmark": set(),
        "benchmark.core": set(),
        "benchmark.core.errors": set(),
        "benchmark.core.store": {"benchmark.core.errors"},
        "benchmark.cells": set(),
        "benchmark.cells.cell": {"benchmark.core.errors", "benchmark.core.store", "datasets.base"},
        "datasets": set(),
        "datasets.base": {"benchmark.core.store"},
    }
    assert (arrows_up(tmp_path), circle(imports(tmp_path)), unkept_folders(tmp_path)) == ([], [], [])


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("from ddbench.benchmark.cells.cell import run", "benchmark.cells.cell"),
        ("from ddbench.benchmark.cells import cell", "benchmark.cells.cell"),
        ("import ddbench.benchmark.cells.cell", "benchmark.cells.cell"),
        ("def late():\n    from ddbench.benchmark.cells.cell import run", "benchmark.cells.cell"),
        ("if TYPE_CHECKING:\n    from ddbench.benchmark.cells.cell import Cell", "benchmark.cells.cell"),
        ("import ddbench", "api"),
        ("from ddbench import run", "api"),
        ("import ddbench.frames", "api.frames"),
        ("from ddbench.frames import sets", "api.frames"),
    ],
)
def test_an_arrow_up_is_seen_wherever_it_stands(tmp_path: Path, line: str, target: str) -> None:
    found = arrows_up(build(tmp_path, {"datasets/base.py": line, "api/frames.py": ""}))
    assert found == [f"datasets.base imports {target}, but datasets may import benchmark.core"]


def test_what_the_registry_names_is_no_import(tmp_path: Path) -> None:
    assert arrows_up(build(tmp_path, {"benchmark/core/store.py": 'BASE = "ddbench.datasets.base:Dataset"\n'})) == []


def test_doors_are_not_walked_through(tmp_path: Path) -> None:
    new = {"benchmark/commands/cli.py": "", "api/__init__.py": "from ddbench.benchmark.commands import cli\n"}
    (found,) = arrows_up(build(tmp_path, new))
    assert found.startswith("api imports benchmark.commands.cli")


def test_a_module_without_a_room_is_seen(tmp_path: Path) -> None:
    (found,) = arrows_up(build(tmp_path, {"benchmark/helpers.py": "from ddbench.benchmark.core import store\n"}))
    assert found == "benchmark.helpers lies in no room of the table, and imports benchmark.core.store"


def test_a_circle_is_reported_as_it_runs(tmp_path: Path) -> None:
    change = {"benchmark/core/errors.py": "if TYPE_CHECKING:\n    from ddbench.benchmark.core.store import Store\n"}
    found = circle(imports(build(tmp_path, change)))
    assert found[0] == found[-1]
    assert set(found) == {"benchmark.core.errors", "benchmark.core.store"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"datasets/d{i}.py": "" for i in range(16)}, "datasets holds 17 modules, more than 16"),
        (
            {"datasets/deep/x.py": "", "datasets/deep/__init__.py": '"""X."""'},
            "ddbench.datasets.deep is missing from pyproject's packages",
        ),
    ],
)
def test_a_folder_that_is_too_full_or_would_not_be_installed(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    assert unkept_folders(build(tmp_path, changes)) == [said]


def test_a_folder_that_says_nothing_of_itself(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "datasets" / "__init__.py").write_text("")
    assert unkept_folders(tmp_path) == ["datasets/__init__.py does not say in a docstring what the folder holds"]
    (tmp_path / "datasets" / "__init__.py").unlink()
    assert len(unkept_folders(tmp_path)) == 1

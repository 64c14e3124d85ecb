"""The registry: lazy targets, duplicates, suggestions, broken plugins."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import (
    DATASETS,
    ENGINES,
    METHODS,
    PROTOCOLS,
    Entry,
    Registry,
    load_plugin,
    plugin_sha256,
)

PLUGIN = '''
from ddbench.benchmark.core.registry import Entry
from ddbench.methods.base import CostClass, DistilledImage, Method

class {name}(Method):
    """A method in a plugin file."""
    name = "{registered}"
    version = 1
    cost_class = CostClass.SELECTION

    def distill(self, task):
        yield from ()

ENTRIES = [Entry("{registered}-variant", variant_of="{registered}", overrides={{}})]
'''


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The method registry, with what a test adds taken away afterwards."""
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))
    monkeypatch.setattr(METHODS, "broken", {})
    return METHODS


@pytest.mark.parametrize("registry", [METHODS, DATASETS, PROTOCOLS, ENGINES], ids=lambda r: r.kind)
def test_every_built_in_loads_and_is_what_it_says(registry: Registry) -> None:
    names = list(registry.entries())
    assert names
    for name in names:
        registry.load(name)


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'dmdg'.*'dmgd'"):
        METHODS.entry("dmdg")


def test_a_duplicate_shows_both(methods: Registry) -> None:
    with pytest.raises(UsageError) as error:
        methods.register(Entry("dmgd", "elsewhere:Thing", origin="package other 1.0"))
    assert "elsewhere:Thing (package other 1.0)" in str(error.value)
    assert "(built-in)" in str(error.value)


def test_a_target_of_the_wrong_type_is_refused(methods: Registry) -> None:
    methods.register(Entry("path", "pathlib:Path"))
    with pytest.raises(UsageError, match=r"expected a Method"):
        methods.load("path")


def test_a_target_that_fails_to_import_is_unavailable_and_breaks_nothing(methods: Registry) -> None:
    methods.register(Entry("broken", "no_such_module:Thing"))
    with pytest.raises(UsageError, match=r"'broken'.*unavailable.*no_such_module"):
        methods.load("broken")
    assert methods.load("random").name == "random"


def test_a_plugin_file_registers_its_methods_and_variants(methods: Registry, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="Mine", registered="mine"))
    digest = load_plugin(file)
    assert len(digest) == 64
    assert methods.load("mine").name == "mine"
    assert methods.load("mine-variant") is methods.load("mine")
    assert methods.entry("mine").origin == "plugin mine.py"
    assert load_plugin(file) == digest, "loading it again registers nothing twice"


def test_an_edited_plugin_file_takes_the_place_of_what_it_was(methods: Registry, tmp_path: Path) -> None:
    """In a notebook one process sees the file before and after; so it does when the edit is taken back, or is broken.
    The texts are of one length and written within a second, which is all that compiled files go by."""
    file = tmp_path / "edited.py"
    before, after = (PLUGIN.format(name="Mine", registered="edited") + f"VALUE = {value}\n" for value in (1, 2))

    def loaded(text: str) -> int:
        file.write_text(text)
        digest = load_plugin(file)
        method = methods.load("edited")
        assert digest == hashlib.sha256(text.encode()).hexdigest() == plugin_sha256(method)
        assert methods.load("edited-variant") is method
        return int(vars(sys.modules[method.__module__])["VALUE"])

    assert [loaded(text) for text in (before, after, before, after)] == [1, 2, 1, 2]
    for broken in ("1 +", PLUGIN.format(name="Mine", registered="dmgd"), "x = 1"):
        file.write_text(broken)
        with pytest.raises(UsageError):
            load_plugin(file)
        assert vars(sys.modules[methods.load("edited").__module__])["VALUE"] == 2, "what was loaded stays"
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise ValueError('no luck')", "importing it failed: ValueError: no luck"),
        ("x = 1", "found none"),
        (PLUGIN.format(name="Mine", registered="dmgd"), "two methods are called 'dmgd'"),
    ],
)
def test_a_bad_plugin_file_says_what_is_wrong(methods: Registry, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_plugin(file)


def test_a_missing_plugin_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_plugin(tmp_path / "absent.py")


def test_an_installed_package_adds_a_method_by_entry_point(tmp_path: Path) -> None:
    """With a real installed distribution: metadata on the path, as pip lays it out. A second, broken one is listed."""
    (tmp_path / "stranger.py").write_text(PLUGIN.format(name="Stranger", registered="stranger"))
    for name, points in {"stranger": "stranger = stranger:Stranger", "clash": "dmgd = stranger:Stranger"}.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ddbench.methods]\n{points}\n")
    code = (
        "from ddbench.benchmark.core.registry import METHODS as m;"
        "print(m.load('stranger').name, m.entry('stranger').origin, m.broken)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("stranger package stranger 1.0")
    assert "two methods are called 'dmgd'" in done.stdout


def test_listing_imports_no_target() -> None:
    code = (
        "import sys; from ddbench.benchmark.core.registry import *; "
        "[list(r) for r in (METHODS, DATASETS, PROTOCOLS, ENGINES, COMMANDS)]; "
        "print([m for m in ('torch', 'numpy', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""What people type: selectors, values, numbers, runs and studies. Each is understood, or refused line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from fuzzing import SCALARS, VALUES, changed_value, fuzzed, held
from hypothesis import example, given
from hypothesis import strategies as st

from ddbench.benchmark.core.spec import brackets
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import (
    RunSpec,
    assignments,
    integers,
    parse_selector,
    run_spec,
    scalar,
    split_outside_brackets,
)
from ddbench.benchmark.planning.study import BUNDLED, read_study, run_specs

LETTERS = "a01:-_ .[]{}&*!?|>'\"\n#%@,<xe+=\\\x1b\u202e\u0663~"
TEXTS = st.text(alphabet=LETTERS, max_size=40) | st.text(max_size=20)
NAMES = ("dmgd", "random", "full", "dit", "herding", "minimax(digits)", "dmgd-minimax", "all", "nothing", "k-center")
KEYS = ("ot_scale", "steps", "cfg_scale", "semantic_matching", "checkpoint", "x", "")
VALUES_TYPED = ("0.5", "1,2", "true", "null", "-1", "1e400", "nan", "9" * 5000, "low..high", "1_0", "0x_", "~nobody/x")
SELECTORS = st.one_of(
    TEXTS,
    st.sampled_from(NAMES),
    st.builds(
        lambda name, pairs: f"{name}[{','.join(f'{key}={value}' for key, value in pairs)}]",
        st.sampled_from(NAMES),
        st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES_TYPED) | TEXTS), max_size=3),
    ),
)


@fuzzed(150)
@given(TEXTS | st.sampled_from(VALUES_TYPED))
def test_words(text: str) -> None:
    for read in (scalar, parse_selector, split_outside_brackets, lambda text: assignments([text, f"a={text}"])):
        with held("a word"):
            read(text)  # type: ignore[operator]


@fuzzed(50)
@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True),
        st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.booleans() | st.none(),
        max_size=3,
    ),
)
def test_a_selector_that_is_written_is_read(name: str, values: dict[str, Any]) -> None:
    selector = f"{name}{brackets(values)}"
    with held("a selector"):
        assert parse_selector(selector) == (name, {key: [value] for key, value in values.items()}), selector


@fuzzed(80)
@given(st.text(alphabet="0123456789,- ", max_size=12) | TEXTS)
def test_numbers(text: str) -> None:
    with held("numbers"):
        try:
            found = integers(text)
        except ValueError as error:  # the run that it is for says it in its line
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert all(number >= 0 for number in found)


FIELDS = st.sampled_from(sorted(RunSpec.model_fields.keys() - {"plugins", "data", "out", "track"}))
LIKELY = st.one_of(SELECTORS, st.sampled_from(["digits", "woof", "quick", "cpu", "cuda:7", "bf16", "1-3", "0"]), VALUES)
TINY = {"methods": ["random", "herding"], "datasets": ["digits"], "ipc": 1, "seeds": 0, "repeats": 1}


@fuzzed(60)
@given(st.dictionaries(FIELDS, LIKELY, min_size=1, max_size=3))
@example({"prior": "\ud800"})
@example({"protocol": "quick[epochs=1e400]"})
@example({"set": {"": 10**400}})
def test_runs(tmp_path_factory: Any, fields: dict[str, Any]) -> None:
    with held("a run"):
        spec = run_spec({}, {**TINY, "out": Path("nowhere"), **fields})
        if len(spec.ipc or ()) * len(spec.seeds or ()) * (spec.repeats or 1) * spec.shards < 100:
            plan_run(spec)


STUDIES = [yaml.safe_load(path.read_text()) for path in sorted(BUNDLED.glob("*.yaml"))]


@fuzzed(60)
@given(
    content=st.sampled_from(STUDIES).flatmap(changed_value)
    | st.dictionaries(FIELDS | st.sampled_from(["title", "runs", "x"]), LIKELY, max_size=4)
)
@example({"methods": {"a": ["x" * 10**6]}, "datasets": "digits"})
def test_studies(tmp_path_factory: Any, content: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "study.yaml"
    file.write_bytes(yaml.safe_dump(content, allow_unicode=False).encode(errors="replace"))
    with held("a study"):
        run_specs(read_study(file), {})


@fuzzed(60)
@given(st.binary(max_size=60) | TEXTS.map(lambda text: text.encode(errors="replace")))
def test_any_bytes_as_a_study(tmp_path_factory: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "study.yaml"
    file.write_bytes(content)
    with held("bytes as a study"):
        run_specs(read_study(file), {})


@fuzzed(40)
@given(st.dictionaries(st.sampled_from(KEYS), SCALARS, max_size=2))
def test_parameters(values: dict[str, Any]) -> None:
    with held("parameters"):
        plan_run(run_spec({}, {**TINY, "methods": ["dmgd", "random"], "set": values, "out": Path("nowhere")}))

"""A prior's JSON files with values of any type in any place: it loads, or one message says what is wrong."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.catalogue import TINY
from ddbench.methods.diffusion.priors.configs import AutoencoderConfig, TransformerConfig
from ddbench.methods.diffusion.priors.files import find_prior, read_metadata
from ddbench.methods.diffusion.priors.metadata import PriorMetadata
from ddbench.methods.diffusion.priors.random_prior import random_networks

FILES = ("prior.json", "transformer/config.json", "vae/config.json")
ABSENT = object()
SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2, 3, 8, 16, 1000, 10**9, 10**30, 0.5, -0.5, 1e-300, 1e300]),
    st.sampled_from(["", "epsilon", "all", "pixels", "latents", "silu", "3", "\ud800", "../../etc/passwd", "\x1b[2J"]),
    st.integers(-5, 40),
    st.floats(allow_nan=True, allow_infinity=True),
    st.just(ABSENT),
)
VALUES = st.recursive(
    SCALARS.filter(lambda value: value is not ABSENT),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "steps", "n1"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small latent prior of three classes, all its settings written out."""
    metadata = TINY.metadata.model_copy(update={"class_ids": ("n1", "n2", "n3"), "null_label": 3})
    transformer, autoencoder = random_networks(replace(TINY, network={**TINY.network, "num_embeds_ada_norm": 3}))
    place: Path = tmp_path_factory.mktemp("prior")
    DenoisingNetwork(transformer, 0).save(place / "transformer", metadata)
    (place / "transformer" / "prior.json").rename(place / "prior.json")
    autoencoder.save_pretrained(place / "vae")
    return place


def places(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    models = dict(zip(FILES, (PriorMetadata, TransformerConfig, AutoencoderConfig), strict=True))
    for file in FILES:
        content = json.loads((folder / file).read_text())
        yield from ((file, (key,)) for key in sorted(content.keys() | models[file].model_fields.keys()))
        yield from ((file, ("schedule", key)) for key in content.get("schedule", ()))


@contextlib.contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    before = path.read_bytes()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_bytes(before)


def check(folder: Path, file: str, text: str) -> None:
    with changed(folder / file, text), contextlib.suppress(UsageError):
        files = find_prior(folder)
        if file != "prior.json":
            Prior.load(files)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_in_any_place(folder: Path, data: st.DataObject) -> None:
    file, keys = data.draw(st.sampled_from(list(places(folder))))
    value = data.draw(st.one_of(SCALARS, VALUES))
    content: dict[str, Any] = json.loads((folder / file).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is ABSENT:
        place.pop(keys[-1], None)
    else:
        place[keys[-1]] = value
    check(folder, file, json.dumps(content))


@settings(max_examples=60, deadline=None)
@given(file=st.sampled_from(FILES), content=VALUES)
@example(file="prior.json", content=[])
@example(file="vae/config.json", content=None)
def test_any_value_as_a_file(folder: Path, file: str, content: Any) -> None:
    with changed(folder / file, json.dumps(content)), pytest.raises(UsageError):
        find_prior(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"resolution": 16, "resolution": 32}', "the key 'resolution' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 20_000, "nested too deeply"),
        ('{"resolution": NaN}', "NaN is no finite number"),
        ('{"latent_scale": 1e999}', "1e999 is no finite number"),
        ('{"resolution": ' + "9" * 5000 + "}", "is not JSON"),
        ("", r"is empty \(0 bytes\)"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git-LFS pointer"),
        ("<!doctype html><title>Sign in</title>", "is a web page"),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("file", FILES)
def test_texts_that_are_no_json_of_a_prior(folder: Path, file: str, text: str, message: str) -> None:
    with changed(folder / file, text), pytest.raises(UsageError, match=message) as caught:
        find_prior(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"resolution": "16"}, ["resolution: Input should be a valid integer"]),
        ({"resolution": True}, ["resolution: Input should be a valid integer"]),
        ({"learned_variance": 1, "clip_denoised": "no"}, ["learned_variance: Input", "clip_denoised: Input"]),
        ({"schedule": []}, ["schedule: Input should be an object"]),
        ({"class_ids": "n1"}, ["class_ids: Input should be a valid array"]),
        ({"trained_on": "\x1b]0;owned\x07"}, ["is not JSON of a prior: a text with control characters, "]),
        ({"class_ids": ["n1", "n2", "n\x9b3"]}, ["a text with control characters, 'n.x9b3'"]),
        ({"checksums": ["x"]}, ["checksums: Input should be an object"]),
        ({"checksums": {"../x": "0"}}, ["checksums.*is not below the prior's folder"]),
        ({"class_ids": [None, None, None]}, ["expected the id of at least one class"]),
    ],
)
def test_each_wrong_type_is_a_line(folder: Path, changes: dict[str, Any], lines: list[str]) -> None:
    content = json.loads((folder / "prior.json").read_text()) | changes
    with changed(folder / "prior.json", json.dumps(content)), pytest.raises(UsageError) as caught:
        find_prior(folder)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert re.search(expected, line)
        assert str(folder / "prior.json") in line


def test_integers_are_numbers(folder: Path) -> None:
    """JSON writers leave out a fraction of zero."""
    content = json.loads((folder / "prior.json").read_text()) | {"latent_scale": 1, "freq_shift": 0}
    path = folder / "again.json"
    path.write_text(json.dumps(content))
    assert read_metadata(path).latent_scale == 1

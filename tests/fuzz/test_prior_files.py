"""A prior's files with bytes changed, of its networks and of its descriptions: it loads, or is refused in a line."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fuzzing import changed_bytes, fuzzed, held
from hypothesis import given
from hypothesis import strategies as st

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.catalogue import TINY
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.random_prior import random_networks
from ddbench.methods.diffusion.priors.weight_files import read_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small latent prior of three classes."""
    metadata = TINY.metadata.model_copy(update={"class_ids": ("n1", "n2", "n3"), "null_label": 3})
    transformer, autoencoder = random_networks(replace(TINY, network={**TINY.network, "num_embeds_ada_norm": 3}))
    place: Path = tmp_path_factory.mktemp("prior")
    DenoisingNetwork(transformer, 0).save(place / "transformer", metadata)
    (place / "transformer" / "prior.json").rename(place / "prior.json")
    autoencoder.save_pretrained(place / "vae")
    return place


@fuzzed(60)
@given(data=st.data())
def test_any_bytes_in_a_priors_files(folder: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    before = file.read_bytes()
    try:
        file.write_bytes(data.draw(changed_bytes(before)))
        with held("a prior"):
            Prior.load(find_prior(folder))
    finally:
        file.write_bytes(before)


def _checkpoints() -> list[bytes]:
    state = {"blocks.0.attn.qkv.weight": torch.randn(6, 2), "x_embedder.proj.weight": torch.randn(2, 1, 2, 2)}
    made = []
    for content in (
        state,
        {"ema": state, "opt": {"step": 3}},
        {"state_dict": {"module." + k: v for k, v in state.items()}},
    ):
        for zipped in (True, False):
            torch.save(content, file := io.BytesIO(), _use_new_zipfile_serialization=zipped)
            made.append(file.getvalue())
    return made


CHECKPOINTS = _checkpoints()


@fuzzed(80)
@given(data=st.data())
def test_any_bytes_as_a_checkpoint(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "checkpoint.pt"
    file.write_bytes(data.draw(changed_bytes(data.draw(st.sampled_from(CHECKPOINTS)))))
    with held("a checkpoint"):
        try:
            read_weights([file])
        except ValueError as error:
            raise UsageError(str(error)) from error

"""The released prior as it lies on the hub, at tiny sizes: installed offline from its cache, and a run made from it.

A DiTPipeline of 2023, whose network is a Transformer2DModel with pickled weights, and autoencoders of 2022, whose
attention had other names; one of them has safetensors, the other pickled weights.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from narrow_priors import narrow
from PIL import Image
from safetensors.torch import save_file

from ddbench.benchmark.cells.cell import EXIT_OK, run_cell
from ddbench.benchmark.commands.prepare import prepare_app
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.imagenet.splits import IMAGENET, Expected
from ddbench.datasets.imagenet.subsets import Woof
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.catalogue import KNOWN, HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.diffusion.priors.random_prior import random_networks

NAME = "dit-xl-2-256"
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Of the attention in an autoencoder: today's, and those of 2022."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> KnownPrior:
    known = narrow(NAME)
    monkeypatch.setitem(KNOWN, NAME, known)
    return known


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Own folders, no way to the hub, and a process that a cell may change."""
    from huggingface_hub import constants

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def snapshot(tmp_path: Path, hub: HubFolder) -> Path:
    """The folder of a repository's pinned commit in the hub's cache."""
    assert hub.revision is not None
    folder = tmp_path / "hub" / f"models--{hub.repo.replace('/', '--')}" / "snapshots" / hub.revision
    folder.mkdir(parents=True)
    return folder


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def of_2022(autoencoder: Any) -> dict[str, torch.Tensor]:
    weights = {}
    for name, tensor in autoencoder.state_dict().items():
        for new, old in OLD_NAMES.items():
            if ".attentions." in name:
                name = name.replace(f".{new}.", f".{old}.")
        weights[name] = tensor.clone()
    return weights


def lay_out(tmp_path: Path, known: KnownPrior) -> tuple[Any, Any, Any]:
    """Fill the hub's cache. Returns the network and the two autoencoders."""
    transformer, mse = random_networks(known)
    _, ema = random_networks(replace(known, name="another"))
    assert known.transformer is not None
    assert known.vae is not None
    assert known.vae_ema is not None

    pipeline = snapshot(tmp_path, known.transformer)
    index = {
        "_class_name": "DiTPipeline", "_diffusers_version": "0.12.0.dev0",
        "id2label": {str(i): f"class {i}" for i in range(1000)},
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "transformer": ["diffusers", "Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    write(pipeline / "model_index.json", index)
    write(pipeline / "scheduler" / "scheduler_config.json", {"_class_name": "DPMSolverMultistepScheduler"})
    config = {
        "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0.dev0", "activation_fn": "gelu-approximate",
        "attention_bias": True, "cross_attention_dim": None, "dropout": 0.0, "norm_elementwise_affine": False,
        "norm_num_groups": 32, "norm_type": "ada_norm_zero", "num_vector_embeds": None, "only_cross_attention": False,
        "upcast_attention": False, "use_linear_projection": False, **known.network,
    }  # fmt: skip
    write(pipeline / "transformer" / "config.json", config)
    torch.save(
        {name: tensor.clone() for name, tensor in transformer.state_dict().items()},
        pipeline / "transformer" / "diffusion_pytorch_model.bin",
    )

    old = {"_class_name": "AutoencoderKL", "_diffusers_version": "0.4.2", "act_fn": "silu", **known.autoencoder}
    for hub, autoencoder in ((known.vae, mse), (known.vae_ema, ema)):
        folder = snapshot(tmp_path, hub)
        write(folder / "config.json", old)
        weights = of_2022(autoencoder)
        assert any(".query." in name for name in weights)
        if hub is known.vae:
            save_file(weights, folder / "diffusion_pytorch_model.safetensors")
        else:
            torch.save(weights, folder / "diffusion_pytorch_model.bin")
    return transformer, mse, ema


def woof(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Woof's ten classes in ImageNet's layout, two training and two validation images each."""
    two = dict.fromkeys(Woof.class_ids, 2)
    monkeypatch.setattr(Woof, "expected", {IMAGENET: Expected(test=two, train=two, n_train=20)})
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for number, wnid in enumerate(Woof.class_ids):
            for i in range(2):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(buffer, "JPEG")
                name = f"{wnid}_{i + 1}.JPEG" if part == "train" else f"ILSVRC2012_val_{2 * number + i + 1:08d}.JPEG"
                (root / part / wnid).mkdir(parents=True, exist_ok=True)
                (root / part / wnid / name).write_bytes(buffer.getvalue())
    return root


def test_installed_from_the_hubs_cache_and_run_at_256_px(
    small: KnownPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, mse, ema = lay_out(tmp_path, small)
    typer.main.get_command(prepare_app)(["prior", NAME], standalone_mode=False)

    prior = Prior.load(find_prior(NAME))
    assert prior.image_shape == (256, 256, 3)
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        for encoder, network in (("vae", mse), ("vae_ema", ema)):
            expected = network.eval().encode(pixels).latent_dist.mean * 0.18215
            torch.testing.assert_close(prior.encode(images, encoder)[0], expected)  # type: ignore[arg-type]
        torch.testing.assert_close(prior.to_images(x), mse.decode(x / 0.18215).sample)
        own = Prior(DenoisingNetwork(transformer, small.metadata.freq_shift), small.metadata)
        said, expected = (p.predict(x, 500, p.embed_labels(torch.tensor([193]))) for p in (prior, own))
        torch.testing.assert_close(said, expected)

    images_of_woof = woof(tmp_path / "imagenet", monkeypatch)
    options = {
        "methods": "dmgd[steps=3,support=mean]", "datasets": "woof", "prior": NAME, "resolution": 256, "ipc": 1,
        "seeds": 0, "repeats": 1, "device": "cpu", "split": IMAGENET, "data": str(images_of_woof),
        "protocol": "quick[epochs=1]", "student": "convnet3",
    }  # fmt: skip
    plan, _, _ = plan_run(run_spec({}, options))
    store = Store(tmp_path / "runs")
    store.create()
    for planned, spec in plan.cells():
        cell = store.add(spec, planned.launch)
        assert run_cell(cell.path) == EXIT_OK, cell.result()
    (folder,) = store.sets.iterdir()
    made = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*/*.png"))]
    assert [image.shape for image in made] == [(256, 256, 3)] * 10

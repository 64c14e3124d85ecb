"""The prior adapter against diffusers' own networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior

MakePrior = Callable[..., Path]


def inputs(prior: Prior) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, *prior.latent_shape, generator=generator), torch.tensor([0, 2, 1, prior.null_label])


@pytest.mark.parametrize("t", [0, 417, 999])
def test_with_diffusers_frequencies_it_is_diffusers_network(make_prior: MakePrior, t: int) -> None:
    folder = make_prior(freq_shift=1)
    prior = Prior.load(find_prior(folder))
    x, labels = inputs(prior)
    plain = DiTTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    with torch.no_grad():
        expected = plain(x, torch.full((4,), t), labels).sample
        epsilon, v = prior.predict(x, t, prior.embed_labels(labels))
    assert v is None
    torch.testing.assert_close(epsilon, expected, rtol=0, atol=1e-6)


def test_original_frequencies(make_prior: MakePrior) -> None:
    network = Prior.load(find_prior(make_prior())).network
    i = torch.arange(128, dtype=torch.float64)
    angles = 417 * torch.exp(-math.log(10000) * i / 128)
    expected = torch.cat([angles.cos(), angles.sin()])
    torch.testing.assert_close(network.frequencies(torch.tensor([417]))[0].double(), expected, rtol=0, atol=1e-4)


def test_v_follows_epsilon(make_prior: MakePrior) -> None:
    folder = make_prior(channels=2, learned_variance=True)
    prior = Prior.load(find_prior(folder))
    x, labels = inputs(prior)
    with torch.no_grad():
        both = prior.network(x, prior.embed_time(5) + prior.embed_labels(labels))
        epsilon, v = prior.predict(x, 5, prior.embed_labels(labels))
    assert torch.equal(epsilon, both[:, :2])
    assert torch.equal(v, both[:, 2:])


def test_norm_eps_of_the_metadata_counts(make_prior: MakePrior) -> None:
    network = Prior.load(find_prior(make_prior(norm_eps=0.25))).network
    assert {block.norm3.eps for block in network.transformer.transformer_blocks} == {0.25}


def test_saving_gives_back_a_plain_transformer_with_equal_copies(make_prior: MakePrior, tmp_path: Path) -> None:
    files = find_prior(make_prior())
    prior = Prior.load(files)
    prior.network.save(tmp_path / "again", files.metadata)
    assert find_prior(tmp_path / "again").sha256 == files.sha256
    tensors = load_file(tmp_path / "again" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    again = Prior.load(find_prior(tmp_path / "again"))
    x, labels = inputs(prior)
    with torch.no_grad():
        first, second = (p.predict(x, 300, p.embed_labels(labels))[0] for p in (prior, again))
    assert torch.equal(first, second)


def test_blocks_with_different_embedders_are_refused(make_prior: MakePrior) -> None:
    folder = make_prior()
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias"][3] += 1
    save_file(tensors, weights)
    with pytest.raises(UsageError, match=r"timestep_embedder\.linear_2\.bias of block 1 is not that of block 0"):
        Prior.load(find_prior(folder))


@pytest.mark.parametrize("change", ["missing", "unexpected", "reshaped"])
def test_weights_that_are_not_the_networks_are_refused(make_prior: MakePrior, change: str) -> None:
    folder = make_prior()
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    if change == "missing":
        del tensors["proj_out_2.bias"]
    elif change == "unexpected":
        tensors["proj_out_3.bias"] = torch.zeros(1)
    else:
        tensors["proj_out_2.bias"] = torch.zeros(3)
    save_file(tensors, weights)
    with pytest.raises(UsageError, match=r"proj_out_[23]\.bias"):
        Prior.load(find_prior(folder))


def test_every_pixel_level_survives_the_round_trip(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    latents, std = prior.encode(levels)
    assert std is None
    assert latents.shape == (4, 1, 8, 8)
    assert (latents.min(), latents.max()) == (-1, 1)
    np.testing.assert_array_equal(prior.decode(latents), levels)
    np.testing.assert_array_equal(prior.decode(latents * 3)[0, 0, 0], 0)  # out of range: clamped, not wrapped


def test_images_of_another_shape_are_refused(make_prior: MakePrior) -> None:
    prior = Prior.load(find_prior(make_prior()))
    with pytest.raises(UsageError, match=r"takes images of shape \(8, 8, 1\), got \(32, 32, 3\); use --resolution 8"):
        prior.encode(np.zeros((2, 32, 32, 3), np.uint8))


def test_bf16_is_close_and_returns_float32(make_prior: MakePrior) -> None:
    files = find_prior(make_prior())
    exact, fast = Prior.load(files), Prior.load(files, precision="bf16")
    x, labels = inputs(exact)
    with torch.no_grad():
        expected = exact.predict(x, 500, exact.embed_labels(labels))[0]
        epsilon = fast.predict(x, 500, fast.embed_labels(labels))[0]
    assert epsilon.dtype == torch.float32
    assert not torch.equal(epsilon, expected)
    torch.testing.assert_close(epsilon, expected, rtol=0.05, atol=0.05)


class Casts(TorchDispatchMode):
    """Counts the numbers that are cast from float32 to bf16."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and made.dtype == torch.bfloat16:
            self.count += made.numel()
        return made


def test_weights_held_in_bf16_give_what_autocast_gives_and_are_cast_once(make_prior: MakePrior) -> None:
    files = find_prior(make_prior())
    exact, fast = Prior.load(files), Prior.load(files, precision="bf16")
    x, labels = inputs(exact)
    weights = sum(p.numel() for p in exact.network.transformer.parameters())
    with torch.no_grad():
        conditioning = exact.embed_time(500) + exact.embed_labels(labels)
        with Casts() as by_autocast, torch.autocast("cpu", torch.bfloat16):
            expected = exact.network(x, conditioning).float()
        assert by_autocast.count > 0.9 * weights
        assert fast.network.transformer.dtype == torch.float32  # until then, to be tuned
        fast.predict(x, 500, fast.embed_labels(labels))
        with Casts() as held:
            epsilon, v = fast.predict(x, 500, fast.embed_labels(labels))
    assert held.count < by_autocast.count - 0.9 * weights
    torch.testing.assert_close(epsilon if v is None else torch.cat([epsilon, v], 1), expected, rtol=0, atol=0)
    assert torch.equal(fast.embed_labels(labels), exact.embed_labels(labels))
    with pytest.raises(RuntimeError, match="holds its weights in bf16 now"):
        _ = fast.network


@pytest.fixture
def latent_prior(make_prior: MakePrior, tmp_path: Path) -> Path:
    """A prior of 3×8×8 latents of 32-pixel images, in the layout of a diffusers pipeline."""
    inner = make_prior(channels=3, name="inner", space="latents", resolution=32, latent_scale=0.5, clip_denoised=False)
    folder = tmp_path / "pipeline"
    inner.rename(folder)
    (folder / "transformer").mkdir()
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        (folder / file).rename(folder / "transformer" / file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=3,
            norm_num_groups=4,
            sample_size=32,
        )
    autoencoder.save_pretrained(folder / "vae")
    return folder


def test_autoencoder(latent_prior: Path) -> None:
    files = find_prior(latent_prior)
    prior = Prior.load(files)
    assert files.network == latent_prior / "transformer"
    assert prior.image_shape == (32, 32, 3)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    plain = AutoencoderKL.from_pretrained(latent_prior / "vae", low_cpu_mem_usage=False)
    with torch.no_grad():
        posterior = plain.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
        pixels = plain.decode(posterior.mean).sample
    mean, std = prior.encode(images)
    torch.testing.assert_close(mean, posterior.mean * 0.5)
    torch.testing.assert_close(std, posterior.std * 0.5)
    expected = ((pixels.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(prior.decode(mean).astype(float) - expected).max() <= 0.51
    np.testing.assert_array_equal(prior.decode(mean)[1:2], prior.decode(mean[1:2]))


def test_the_autoencoder_is_part_of_the_hash_and_checked(latent_prior: Path) -> None:
    before = find_prior(latent_prior).sha256
    weights = latent_prior / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["post_quant_conv.bias"] += 1
    save_file(tensors, weights)
    assert find_prior(latent_prior).sha256 != before
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UsageError, match="damaged"):
        find_prior(latent_prior)
    metadata = latent_prior / "prior.json"
    metadata.write_text(metadata.read_text().replace('"resolution": 32', '"resolution": 64'))
    with pytest.raises(UsageError, match="resolution is 64, but the network's images have side 32"):
        find_prior(latent_prior)


def test_shared_embedders_count_as_equal() -> None:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8, num_embeds_ada_norm=3
    )
    blocks = transformer.transformer_blocks
    blocks[1].norm1.emb = blocks[0].norm1.emb
    network = DenoisingNetwork(transformer, 0)
    names = [name for name, _ in network.named_parameters()]
    assert sum("embedding_table" in name for name in names) == 1
    copies = [block.norm1.emb for block in network.to_diffusers().transformer_blocks]
    tables = [copy.class_embedder.embedding_table.weight for copy in copies]
    assert torch.equal(*tables)
    assert len({table.data_ptr() for table in tables}) == 2

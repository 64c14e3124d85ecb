"""Installing priors: original checkpoints, `diffusers` folders old and new, the hub's cache, and what is refused."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from diffusers import AutoencoderKL, DiTTransformer2DModel
from safetensors.torch import load_file

from ddbench.benchmark.commands.prepare import prepare_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors import install as prior_install
from ddbench.methods.diffusion.priors.catalogue import KNOWN, TINY, HubFolder, KnownPrior
from ddbench.methods.diffusion.priors.files import find_prior, installed_folder, installed_priors
from ddbench.methods.diffusion.priors.hashes import file_sha256
from ddbench.methods.diffusion.priors.install import install
from ddbench.methods.diffusion.priors.random_prior import random_networks

MakePrior = Callable[..., Path]
METADATA: dict[str, Any] = {
    "space": "latents of a small autoencoder",
    "resolution": 16,
    "prediction": "epsilon",
    "learned_variance": True,
    "schedule": {"kind": "linear", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
    "freq_shift": 0,
    "norm_eps": 1e-6,
    "guided_channels": 3,
    "clip_denoised": False,
    "latent_scale": 0.18215,
    "class_ids": [f"n{i}" for i in range(10)],
    "null_label": 10,
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def bench_prepare(*words: str | Path) -> None:
    typer.main.get_command(prepare_app)([str(word) for word in words], standalone_mode=False)


def quietly(line: str) -> None:
    pass


@pytest.fixture
def tiny_networks() -> tuple[Any, Any]:
    """A network with a copy of the embedder in each block, as files hold it, and an autoencoder."""
    transformer, autoencoder = random_networks(TINY)
    for block in transformer.transformer_blocks:
        block.norm1.emb = copy.deepcopy(block.norm1.emb)
    return transformer, autoencoder


@pytest.fixture
def known_tiny(monkeypatch: pytest.MonkeyPatch) -> KnownPrior:
    """A small network that the catalogue knows, with pinned revisions of places that do not exist."""
    from dataclasses import replace

    known = replace(
        TINY,
        name="known-tiny",
        transformer=HubFolder("nobody/tiny-dit", "a" * 40, "transformer"),
        vae=HubFolder("nobody/tiny-mse", "b" * 40),
        vae_ema=HubFolder("nobody/tiny-ema", None),
    )
    monkeypatch.setitem(KNOWN, known.name, known)
    return known


def checkpoint_folder(golden: Path, tmp_path: Path, file: str = "original.pt", **changes: Any) -> Path:
    """An original checkpoint with a `prior.json` beside it; what its tensors do not say is there."""
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copyfile(golden / "dit-checkpoint" / file, folder / file)
    heads = json.loads((golden / "dit-checkpoint" / "config.json").read_text())["num_heads"]
    content = METADATA | {"num_heads": heads} | changes
    (folder / "prior.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    random_networks(TINY)[1].save_pretrained(folder / "vae")
    return folder


@pytest.mark.parametrize("file", ["original.pt", "training-format.pt"])
def test_an_original_checkpoint_by_the_command(
    golden: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint_folder(golden, tmp_path, file)
    bench_prepare("prior", "mine", "--from", folder / file)
    said = capsys.readouterr().out
    assert "mine: 16 px, 10 classes" in said
    found = find_prior("mine")
    assert found.sha256 in said

    case = load_file(golden / "dit-checkpoint" / "forward.safetensors")
    network = Prior.load(found).network
    with torch.no_grad():
        output = network(case["x"], network.embed_time(case["t"]) + network.embed_labels(case["y"]))
    torch.testing.assert_close(output, case["output"], rtol=0, atol=1e-5)

    noted = json.loads((installed_folder() / "mine" / "prior.json").read_text())
    assert noted["source"] == {"transformer": str(folder / file), "vae": str(folder / "vae")}
    assert set(noted["checksums"]) == {
        f"{part}/{name}" for part in ("transformer", "vae") for name in ("config.json", prior_install.WEIGHTS)
    }
    assert "num_heads" not in noted


def test_what_a_checkpoint_cannot_say_is_asked_for(golden: Path, tmp_path: Path) -> None:
    folder = checkpoint_folder(golden, tmp_path, num_heads=None)
    with pytest.raises(UsageError, match='"num_heads": 16'):
        install("mine", folder, None, None, say=quietly)
    (folder / "prior.json").unlink()
    with pytest.raises(UsageError, match=r"has no prior\.json, which says what weights do not"):
        install("mine", folder, None, None, say=quietly)
    assert installed_priors() == []


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_weights_that_are_not_the_networks_are_refused(golden: Path, tmp_path: Path, change: str) -> None:
    folder = checkpoint_folder(golden, tmp_path)
    weights = torch.load(folder / "original.pt", weights_only=True)
    name = "blocks.1.attn.proj.bias" if change == "missing" else "blocks.1.attn.gate"
    weights = {k: v for k, v in weights.items() if k != name} | ({} if change == "missing" else {name: torch.ones(1)})
    torch.save(weights, folder / "original.pt")
    expected = "transformer_blocks.1.attn1.to_out.0.bias" if change == "missing" else name
    with pytest.raises(UsageError, match=re.escape(expected)):
        install("mine", folder, None, None, say=quietly)
    assert installed_priors() == []
    assert [path.name for path in installed_folder().iterdir()] == [".mine.lease"]


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize(
    ("class_ids", "null_label"),
    [(METADATA["class_ids"][1:], 10), (METADATA["class_ids"][:9], 9), ([*METADATA["class_ids"], "n10"], 11)],
)
def test_a_class_list_that_is_not_the_networks_is_refused(
    golden: Path, tmp_path: Path, make_prior: MakePrior, original: bool, class_ids: list[str], null_label: int
) -> None:
    """Without its first class, say, every picture of a class would stand under the name of the next."""
    changes: dict[str, Any] = {"class_ids": class_ids, "null_label": null_label}
    if original:
        source = checkpoint_folder(golden, tmp_path, **changes) / "original.pt"
        noted = source.parent / "prior.json"
    else:
        source = make_prior(tuple(METADATA["class_ids"]))
        noted = source / "prior.json"
        noted.write_text(json.dumps(json.loads(noted.read_text()) | changes))
    expected = (
        rf"prior mine, from {re.escape(str(source))}: expected class_ids of all 10 classes .* null_label 10 .*"
        rf"found {len(class_ids)} class_ids and null_label {null_label}\. Correct prior\.json"
    )
    with pytest.raises(UsageError, match=expected):
        bench_prepare("prior", "mine", "--from", source)
    assert installed_priors() == []


def test_repeated_classes_are_refused(golden: Path, tmp_path: Path) -> None:
    folder = checkpoint_folder(golden, tmp_path, class_ids=[*METADATA["class_ids"][:9], "n0"])
    with pytest.raises(UsageError, match="expected distinct class ids, got n0 more than once"):
        install("mine", folder, None, None, say=quietly)


def test_a_known_priors_own_class_list_is_not_dropped_in_silence(
    known_tiny: KnownPrior, tiny_networks: tuple[Any, Any], tmp_path: Path
) -> None:
    transformer, autoencoder = tiny_networks
    given = tmp_path / "given"
    transformer.save_pretrained(given / "transformer")
    autoencoder.save_pretrained(given / "vae")
    metadata = known_tiny.metadata.model_copy(update={"class_ids": tuple(sorted(known_tiny.metadata.class_ids)[::-1])})
    (given / "prior.json").write_text(metadata.model_dump_json())
    with pytest.raises(UsageError, match=r"prior\.json lists other classes than known-tiny's"):
        install(known_tiny.name, given, None, None, say=quietly)
    (given / "prior.json").write_text(known_tiny.metadata.model_dump_json())
    assert install(known_tiny.name, given, None, None, say=quietly).metadata.class_ids == known_tiny.metadata.class_ids


def test_a_tampered_file_is_found(make_prior: MakePrior) -> None:
    installed = install("mine", make_prior(), None, None, say=quietly)
    assert installed.sha256 == find_prior("mine").sha256
    assert installed.folder is not None
    weights = installed.folder / "transformer" / prior_install.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not as it was installed: transformer/.*bench prepare prior mine"):
        find_prior("mine")


def test_a_folder_gets_the_hash_that_it_had(make_prior: MakePrior, tmp_path: Path) -> None:
    folder = make_prior()
    sha256 = find_prior(folder).sha256
    assert install("mine", folder, None, None, say=quietly).sha256 == sha256
    assert installed_priors() == ["mine"]
    copied = tmp_path / "from another machine"
    shutil.copytree(installed_folder() / "mine", copied)
    again = install("copied", copied, None, None, say=quietly)
    assert again.sha256 == sha256
    noted = json.loads((installed_folder() / "copied" / "prior.json").read_text())
    assert noted["source"]["transformer, before"] == str(folder)
    weights = copied / "transformer" / prior_install.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UsageError, match="is not as it was installed: transformer/"):
        install("changed", copied, None, None, say=quietly)


def test_names_are_checked(make_prior: MakePrior) -> None:
    folder = make_prior()
    for name, message in {
        "digits": "is a bundled prior",
        "../mine": "cannot name a prior",
        "random:mine": "cannot name a prior",
    }.items():
        with pytest.raises(UsageError, match=message):
            install(name, folder, None, None, say=quietly)
    install("mine", folder, None, None, say=quietly)
    with pytest.raises(UsageError, match="already installed"):
        install("mine", folder, None, None, say=quietly)
    with pytest.raises(UsageError, match="is not a prior that can be downloaded"):
        install("unknown", None, None, None, say=quietly)
    with pytest.raises(UsageError, match="are for priors: bench prepare prior mine"):
        bench_prepare("digits", "mine")
    with pytest.raises(UsageError, match="give the name of a prior"):
        bench_prepare("prior")


def test_a_known_prior_that_is_absent_says_how_to_get_it() -> None:
    with pytest.raises(
        UsageError, match=r"dit-xl-2-256 is not installed.*bench prepare prior dit-xl-2-256.*\$DDBENCH_"
    ):
        find_prior("dit-xl-2-256")


def test_a_known_prior_that_lies_on_no_hub_is_not_said_to_be_downloaded() -> None:
    with pytest.raises(UsageError, match=r"prior sit-xl-2-256 --from FILE --vae DIR` takes SiT-XL-2-256.pt") as caught:
        find_prior("sit-xl-2-256")
    assert "download" not in str(caught.value)


def test_a_folder_without_a_pipeline_is_no_text_to_image_prior(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"a folder with model_index.json, unet/, vae/ and its text encoder"):
        install("sd-1.5", tmp_path, None, None, say=quietly)


def test_without_the_hub_one_message_says_what_to_copy(known_tiny: KnownPrior) -> None:
    said: list[str] = []
    with pytest.raises(UsageError) as caught:
        install(known_tiny.name, None, None, None, say=said.append)
    message = str(caught.value)
    for part in (
        f"hf download nobody/tiny-dit --include 'transformer/*' --revision {'a' * 40} --local-dir DIR\n",
        f"hf download nobody/tiny-mse config.json {prior_install.WEIGHTS} --revision {'b' * 40} --local-dir DIR/vae\n",
        f"hf download nobody/tiny-ema config.json {prior_install.WEIGHTS} --local-dir DIR/vae_ema\n",
        f"bench prepare prior {known_tiny.name} --from DIR\n",
    ):
        assert part in message
    assert sum("Licence" in line for line in said) == 1
    assert installed_priors() == []


def in_hub_cache(tmp_path: Path, hub: HubFolder, commit: str) -> Path:
    """The folder of a repository's snapshot in the hub's cache, laid out as the hub's own program does."""
    repository = tmp_path / "hub" / f"models--{hub.repo.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit / hub.folder


def test_the_hubs_cache_with_files_of_an_old_diffusers(
    known_tiny: KnownPrior, tiny_networks: tuple[Any, Any], tmp_path: Path
) -> None:
    """As the released DiT-XL/2 lies on the hub: a Transformer2DModel with further settings, weights pickled."""
    transformer, autoencoder = tiny_networks
    assert known_tiny.transformer is not None
    assert known_tiny.vae is not None
    assert known_tiny.vae_ema is not None
    folder = in_hub_cache(tmp_path, known_tiny.transformer, "a" * 40)
    folder.mkdir(parents=True)
    weights = transformer.state_dict() | {"pos_embed.pos_embed": transformer.pos_embed.pos_embed}
    torch.save({k: v.clone() for k, v in weights.items()}, folder / prior_install.PICKLED)
    old = {"_class_name": "Transformer2DModel", "cross_attention_dim": None, "only_cross_attention": False}
    old |= {"num_vector_embeds": None, "use_linear_projection": False, "norm_type": "ada_norm_zero"}
    (folder / "config.json").write_text(json.dumps(dict(known_tiny.network) | old))
    autoencoder.save_pretrained(in_hub_cache(tmp_path, known_tiny.vae, "b" * 40))
    autoencoder.save_pretrained(in_hub_cache(tmp_path, known_tiny.vae_ema, "c" * 40))

    said: list[str] = []
    files = install(known_tiny.name, None, None, None, say=said.append)
    assert files.metadata.class_ids == known_tiny.metadata.class_ids
    assert files.autoencoder_ema is not None
    prior, expected = Prior.load(files), Prior.load(find_prior("random:tiny"))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    label = prior.embed_labels(torch.tensor([3, 1000]))
    for one, other in zip(prior.predict(x, 500, label), expected.predict(x, 500, label), strict=True):
        torch.testing.assert_close(one, other)
    noted = json.loads((installed_folder() / known_tiny.name / "prior.json").read_text())
    assert noted["source"] == {
        "transformer": f"nobody/tiny-dit@{'a' * 40}, transformer/",
        "vae": f"nobody/tiny-mse@{'b' * 40}",
        "vae_ema": f"nobody/tiny-ema@{'c' * 40}",
    }
    assert noted["checksums"]["vae/config.json"] == file_sha256(files.autoencoder / "config.json")
    assert "CC" in KNOWN["dit-xl-2-256"].licence
    assert noted["licence"] == known_tiny.licence

    # A method may ask for the further encoder; a prior without one says so.
    images = torch.randint(256, (1, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    torch.testing.assert_close(prior.encode(images, "vae_ema")[0], prior.encode(images)[0])
    with pytest.raises(UsageError, match="no second autoencoder"):
        expected.encode(images, "vae_ema")


def test_local_files_for_a_known_prior(
    known_tiny: KnownPrior, tiny_networks: tuple[Any, Any], tmp_path: Path, make_prior: MakePrior
) -> None:
    transformer, autoencoder = tiny_networks
    given = tmp_path / "pipeline"
    transformer.save_pretrained(given / "transformer")
    with pytest.raises(UsageError, match=r"has no vae/; name its autoencoder with --vae DIR.*nobody/tiny-mse"):
        install(known_tiny.name, given, None, None, say=quietly)
    autoencoder.save_pretrained(given / "vae")
    (given / "model_index.json").write_text("{}")
    with pytest.raises(UsageError, match=r"a pipeline with an autoencoder of its own.*--vae"):
        install(known_tiny.name, given, None, None, say=quietly)
    assert install(known_tiny.name, given, given / "vae", None, say=quietly).metadata.null_label == 1000

    shutil.rmtree(installed_folder())
    with pytest.raises(UsageError, match=r"are not known-tiny's: in_channels is 1, expected 4"):
        install(known_tiny.name, make_prior(known_tiny.metadata.class_ids), given / "vae", None, say=quietly)


def test_another_transformer_is_not_taken_for_a_dit(tmp_path: Path) -> None:
    from ddbench.methods.diffusion.priors.dit_checkpoint import load_diffusers_dit

    config = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm_single", "caption_channels": 4096}
    with pytest.raises(UsageError, match="another transformer than a DiT.*caption_channels"):
        load_diffusers_dit(config, tmp_path / "x.bin")
    with pytest.raises(UsageError, match="expected the config of a DiT, got 'UNet2DModel'"):
        load_diffusers_dit({"_class_name": "UNet2DModel"}, tmp_path / "x.bin")


def test_full_size_networks_are_those_of_the_papers() -> None:
    """Widths and numbers of weights without making them: DiT-XL/2 has 675 million, the autoencoder 84 million."""
    known = KNOWN["dit-xl-2-256"]
    with torch.device("meta"):
        transformer, autoencoder = DiTTransformer2DModel(**known.network), AutoencoderKL(**known.autoencoder)
    per_embedder = sum(p.numel() for p in transformer.transformer_blocks[0].norm1.emb.parameters())
    once = sum(p.numel() for p in transformer.parameters()) - 27 * per_embedder
    assert transformer.inner_dim == 1152
    assert len(transformer.transformer_blocks) == 28
    assert once == pytest.approx(675e6, rel=0.002)
    assert sum(p.numel() for p in autoencoder.parameters()) == pytest.approx(83.65e6, rel=0.001)
    assert known.metadata.class_ids[193] == "n02096294"  # Australian terrier, Woof's first
    assert KNOWN["dit-xl-2-512"].network["sample_size"] == 64


def test_random_weights_are_the_same_everywhere_and_named_by_the_name() -> None:
    before = torch.random.get_rng_state()
    first, second = (random_networks(TINY)[0].state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    files = find_prior("random:tiny")
    assert files.timing_only
    assert files.sha256 != find_prior("random:dit-xl-2-256").sha256
    assert not find_prior("digits").timing_only
    with pytest.raises(UsageError, match="for timing only, there are random:dit-xl-2-256"):
        find_prior("random:nothing")

"""Priors that are known by name: where their files come from, and what their weights do not say. Imports no torch.

Facts on DiT-XL/2 (Peebles & Xie, arXiv 2212.09748): its released programs and checkpoints. Revisions are commits of the
hub's repositories; checksums are not written here but taken when a prior is installed, and compared ever after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata, TextConditioning


@dataclass(frozen=True)
class HubFolder:
    """A folder of a repository on the Hugging Face hub, with a `config.json` and weights in it."""

    repo: str
    revision: str | None
    """Full commit hash of the repository; None: not known, so what the main branch is when it is downloaded."""
    folder: str = ""
    """Folder inside the repository; empty: its root."""


@dataclass(frozen=True)
class KnownPrior:
    """A prior known by name."""

    name: str
    summary: str
    licence: str
    metadata: PriorMetadata
    network: Mapping[str, Any]
    """Arguments of DiTTransformer2DModel, or of UNet2DConditionModel, that make it this network."""
    autoencoder: Mapping[str, Any]
    """Arguments of AutoencoderKL; read only to build one with random weights, which no text-to-image prior has."""
    transformer: HubFolder | None = None
    """Where the network's weights come from; None: from a file that `released` names, or it has random weights only."""
    released: str = ""
    """Where weights that lie on no hub can be had, in words."""
    vae: HubFolder | None = None
    """Where the autoencoder comes from that encodes and decodes."""
    vae_ema: HubFolder | None = None
    """Where the further autoencoder comes from, which encodes where a method asks for it."""

    size_gb: int = 4
    """What is downloaded, about."""

    @property
    def of_text(self) -> bool:
        """Whether it is a text-to-image pipeline; its network's folder and its autoencoder's then lie in one."""
        return self.metadata.conditioning is not None


SD_VAE_MSE = HubFolder("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")
SD_VAE_EMA = HubFolder("stabilityai/sd-vae-ft-ema", "f04b2c4b98319346dad8c65879f680b1997b204a")
SD_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 256,
}
DIT_XL_2 = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}
DIT_LICENCE = (
    "DiT's weights: CC-BY-NC-4.0, no commercial use (https://creativecommons.org/licenses/by-nc/4.0/); "
    "the sd-vae-ft autoencoders: MIT"
)


def _latents_of_imagenet(resolution: int, trained_on: str) -> PriorMetadata:
    return PriorMetadata(
        space="latents of Stable Diffusion's autoencoder, sd-vae-ft-mse",
        resolution=resolution,
        prediction="epsilon",
        learned_variance=True,
        schedule=NoiseScheduleMetadata(),
        freq_shift=0,
        norm_eps=1e-6,
        guided_channels=3,
        clip_denoised=False,
        latent_scale=0.18215,
        class_ids=IMAGENET_1K,
        null_label=len(IMAGENET_1K),
        trained_on=trained_on,
    )


_SIT = _latents_of_imagenet(256, "ImageNet-1K, training part: 1,281,167 images of 1,000 classes")
SIT_XL_2 = KnownPrior(
    name="sit-xl-2-256",
    summary="SiT-XL/2 at 256 px: DiT's network trained for velocities, in the latents of sd-vae-ft-mse",
    licence="SiT's program and weights: MIT (https://github.com/willisma/SiT); the sd-vae-ft autoencoders: MIT",
    metadata=_SIT.model_copy(update={"prediction": "velocity", "learned_variance": False, "dropped_channels": 4}),
    network=DIT_XL_2 | {"sample_size": 32},
    autoencoder=SD_VAE,
    released="SiT-XL-2-256.pt, which https://github.com/willisma/SiT links",
    vae=SD_VAE_MSE,
    vae_ema=SD_VAE_EMA,
)
"""SiT (Ma et al., arXiv 2401.08740); its time enters the embedding unscaled, and half of its output is dropped."""


def _dit_xl_2(image_size: int, revision: str | None) -> KnownPrior:
    return KnownPrior(
        name=f"dit-xl-2-{image_size}",
        summary=f"DiT-XL/2 at {image_size} px: class-conditional ImageNet-1K, in the latents of sd-vae-ft-mse",
        licence=DIT_LICENCE,
        metadata=_latents_of_imagenet(image_size, "ImageNet-1K, training part: 1,281,167 images of 1,000 classes"),
        network=DIT_XL_2 | {"sample_size": image_size // 8},
        autoencoder=SD_VAE,
        transformer=HubFolder(f"facebook/DiT-XL-2-{image_size}", revision, "transformer"),
        vae=SD_VAE_MSE,
        vae_ema=SD_VAE_EMA,
    )


def _text_to_image(
    name: str, summary: str, licence: str, hub: HubFolder, network: Mapping[str, Any], latent_scale: float, size_gb: int
) -> KnownPrior:
    """A pipeline whose noise schedule is Stable Diffusion's."""
    sample_size = network["sample_size"]
    return KnownPrior(
        name=name,
        summary=summary,
        licence=licence,
        metadata=PriorMetadata(
            space="latents of its own autoencoder",
            resolution=8 * sample_size,
            prediction="epsilon",
            learned_variance=False,
            schedule=NoiseScheduleMetadata(kind="scaled_linear", beta_start=0.00085, beta_end=0.012),
            freq_shift=0,
            norm_eps=1e-5,
            guided_channels="all",
            clip_denoised=False,
            latent_scale=latent_scale,
            class_ids=IMAGENET_1K,
            null_label=len(IMAGENET_1K),
            trained_on="images and captions of the web (LAION); whether test images are among them is not known",
            conditioning=TextConditioning(prompts=tuple(CLASS_NAMES.values())),
        ),
        network={"in_channels": 4, "out_channels": 4, **network},
        autoencoder={},
        transformer=hub,
        vae=HubFolder(hub.repo, hub.revision, "vae"),
        size_gb=size_gb,
    )


SD_1_5 = _text_to_image(
    "sd-1.5",
    "Stable Diffusion 1.5 at 512 px: text-to-image, told the names of ImageNet's classes",
    "Stable Diffusion 1.5: CreativeML Open RAIL-M, with restrictions of use",
    HubFolder("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", "unet"),
    {"sample_size": 64, "cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]},
    0.18215,
    4,
)
SDXL = _text_to_image(
    "sdxl",
    "Stable Diffusion XL base at 1024 px: text-to-image, told the names of ImageNet's classes",
    "SDXL base 1.0: CreativeML Open RAIL++-M, with restrictions of use",
    HubFolder("stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b", "unet"),
    {"sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280]},
    0.13025,
    14,
)

KNOWN: dict[str, KnownPrior] = {
    prior.name: prior
    for prior in (
        _dit_xl_2(256, "eab87f77abd5aef071a632f08807fbaab0b704d0"),
        _dit_xl_2(512, None),  # of its last commit, 101a3d4 (2023-03-15), the full hash is not known
        SIT_XL_2,
        SD_1_5,
        SDXL,
    )
}
"""Priors that `bench prepare prior NAME` installs."""

TINY = KnownPrior(
    name="tiny",
    summary="a small network of DiT-XL/2's kind, for trying the road of latent priors on a CPU",
    licence="none: it has random weights only",
    metadata=_latents_of_imagenet(16, "nothing"),
    network=DIT_XL_2 | {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8},
    autoencoder=SD_VAE
    | {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 16,
    },
)
WITH_RANDOM_WEIGHTS: dict[str, KnownPrior] = {
    prior.name: prior for prior in (*KNOWN.values(), TINY) if not prior.of_text
}
"""Priors that `random:NAME` builds, with random weights."""

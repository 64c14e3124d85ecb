"""The prior: a pretrained class-conditional diffusion model as every diffusion method sees it.

Transformer, autoencoder (or none), noise schedule and label map behind one interface. What is easy to get wrong
(timestep frequencies, norm ε, guided channels, labels by wnid) is read from the prior's metadata, never assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from torch import Tensor

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.transfers import send
from ddbench.methods.diffusion.linear_path import alpha_bar_at, chain_position, path_time, scale_at
from ddbench.methods.diffusion.loading import load_strictly
from ddbench.methods.diffusion.network import Denoiser, DenoisingNetwork
from ddbench.methods.diffusion.priors.files import PriorFiles
from ddbench.methods.diffusion.priors.metadata import PriorMetadata
from ddbench.methods.diffusion.priors.random_prior import random_networks
from ddbench.methods.diffusion.schedule import Respaced, alpha_bar, respace
from ddbench.methods.diffusion.text.network import load_text_network

Forward = Callable[[Tensor, Tensor], Tensor]
"""(N, C, h, w) and (N, E), what `Denoiser.conditioning` gives -> (N, C or more, h, w)."""
Encoder = Literal["vae", "vae_ema"]
"""The autoencoder that encodes: the one that decodes (`vae/`), or the further one (`vae_ema/`)."""


class Prior:
    """A frozen prior on one device.

    Legend: N batch, C latent channels, h = w latent side, D embedding width, H = W image side.

    Args:
        network: the denoiser; moved to `device`, put in evaluation mode, its gradients switched off.
        metadata: what the weights do not say.
        autoencoder: an AutoencoderKL, or None for a pixel prior.
        precision: `fp32`, or `bf16`: autocast of network and autoencoder; what they return is float32 either way. The
            network's weights are held in bf16 from the first `predict` on.
        sha256: names the prior in artefact keys; None for one that was never saved.
        latents_of: names its latents in artefact keys, where another prior has the same autoencoder; else `sha256`.
        load_ema: loads the further autoencoder that can encode; None where there is none.
        compiler: takes the network and what it is first asked about several images at once, and gives what answers
            from then on where no gradients are wanted; None: the network itself.
        tf32: whether its networks multiply matrices in TF32 where a GPU can, as the samplers of the papers do.
    """

    def __init__(
        self,
        network: Denoiser,
        metadata: PriorMetadata,
        *,
        autoencoder: Any = None,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        sha256: str | None = None,
        latents_of: str | None = None,
        load_ema: Callable[[], Any] | None = None,
        compiler: Callable[[Denoiser, Tensor, Tensor], Forward] | None = None,
        tf32: bool = True,
    ) -> None:
        self.metadata, self.sha256, self.precision, self.tf32 = metadata, sha256, precision, tf32
        self.latents_of = latents_of or sha256
        self.device = torch.device(device)
        self._network = network.to(self.device).eval().requires_grad_(False)
        self._in_bf16 = False
        self.autoencoder = None if autoencoder is None else autoencoder.to(self.device).eval().requires_grad_(False)
        self._load_ema, self.compiler = load_ema, compiler
        self._compiled: Forward | None = None
        self.latent_shape = network.latent_shape
        self.guided_channels = self.latent_shape[0] if metadata.guided_channels == "all" else metadata.guided_channels
        self._time: dict[int, Tensor] = {}

    @classmethod
    def load(cls, files: PriorFiles, *, device: torch.device | str = "cpu", precision: str = "fp32") -> Prior:
        """Load a prior that `find_prior` found; weights on disk in any float type, here float32.

        Raises:
            UsageError: weights that are not exactly the network's, or blocks with different embedders.
        """
        ema = files.autoencoder_ema
        network, autoencoder = _networks(files)
        return cls(
            network,
            files.metadata,
            autoencoder=autoencoder,
            device=device,
            precision=precision,
            sha256=files.sha256,
            load_ema=None if ema is None else lambda: load_strictly(AutoencoderKL, ema),
        )

    def with_network(self, network: Denoiser, sha256: str) -> Prior:
        """This prior with another network of the same shape, a tuned one; the autoencoders and their latents stay."""
        return Prior(
            network,
            self.metadata,
            autoencoder=self.autoencoder,
            device=self.device,
            precision=self.precision,
            sha256=sha256,
            latents_of=self.latents_of,
            load_ema=self._load_ema,
            compiler=self.compiler,
            tf32=self.tf32,
        )

    @property
    def network(self) -> Denoiser:
        """The denoiser in float32, to tune it or to save it.

        Raises:
            RuntimeError: it has predicted in bf16, so its float32 weights are gone: load it anew.
        """
        if self._in_bf16:
            raise RuntimeError("expected a prior that has not predicted yet: this one holds its weights in bf16 now")
        return self._network

    def schedule(self, steps: int) -> Respaced:
        """The chain of `steps` steps as float64 tables."""
        return respace(self.metadata.schedule, steps)

    def label_of(self, class_id: str) -> int:
        """The prior's label of a class by its id (wnid); UsageError if it does not know the class."""
        return self.metadata.label_of(class_id)

    @property
    def rounding(self) -> dict[str, bool]:
        """For the key of an artefact that the denoiser makes without gradients: compiled code rounds in other places,
        and cells with and without it share a folder."""
        return {} if self.compiler is None else {"compiled": True}

    @property
    def null_label(self) -> int:
        return self.metadata.null_label

    def embed_labels(self, labels: Tensor) -> Tensor:
        """Labels of any shape (…) -> (…, D)."""
        return self._network.embed_labels(send(labels, self.device))

    def embed_time(self, t: int) -> Tensor:
        """An original timestep -> (1, D); computed once."""
        if t not in self._time:
            self._time[t] = self._network.embed_time(torch.full((1,), t, device=self.device))
        return self._time[t]

    def predict(self, x: Tensor, t: int | Tensor, label_embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """One evaluation of the network; differentiable with respect to `x`.

        Args:
            x: (N, C, h, w).
            t: the original timestep; or (N,) int64, one for each.
            label_embedding: (N, D), of `embed_labels` or made from it; the time joins it here.

        Returns:
            ε (N, C, h, w), and v of the same shape or None for a prior without it.
        """
        if self.metadata.prediction == "velocity":
            return self._noise_of_velocity(x, t, label_embedding), None
        time = self.embed_time(t) if isinstance(t, int) else self._network.embed_time(send(t, self.device))
        output = self._output(x, time, label_embedding)
        if not self.metadata.learned_variance:
            return output, None
        epsilon, v = output.chunk(2, dim=1)
        return epsilon, v

    def velocity(self, x: Tensor, t: float, label_embedding: Tensor) -> Tensor:
        """The velocity x₁ − ε on the linear path from noise to data (`linear_path.py`), of any prior; differentiable
        with respect to `x`.

        Args:
            x: (N, C, h, w), t·x₁ + (1 − t)·ε.
            t: in [0, 1]; of a prior of noise, in its `path_range`.
            label_embedding: as in `predict`.

        Returns:
            (N, C, h, w).
        """
        if self.metadata.prediction == "velocity":
            time = self._network.embed_time(torch.full((1,), t, device=self.device))
            return self._output(x, time, label_embedding)
        position = chain_position(self._alpha_bar, alpha_bar_at(t))
        time = self._network.embed_time(torch.full((1,), position, device=self.device))
        noise = self._output(x / self.path_scale(t), time, label_embedding)[:, : self.latent_shape[0]]
        return (x - noise) / t

    @cached_property
    def path_range(self) -> tuple[float, float]:
        """The times of the linear path that the network knows, from noise to data."""
        if self.metadata.prediction == "velocity":
            return 0.0, 1.0
        first, last = path_time(self._alpha_bar[[-1, 0]]).tolist()
        return first, last

    def path_scale(self, t: float) -> float:
        """What a latent of DDPM's chain is multiplied with, to lie on the linear path at t."""
        return float(scale_at(torch.tensor(t, dtype=torch.float64)))

    def _noise_of_velocity(self, x: Tensor, t: int | Tensor, label_embedding: Tensor) -> Tensor:
        """ε at timesteps of the chain, as `predict` takes them."""
        at = path_time(self._alpha_bar[torch.as_tensor(t).cpu()])
        time = self._network.embed_time(send(at.float().reshape(-1), self.device))
        times, scales = (send(one.float().reshape(-1, 1, 1, 1), self.device) for one in (at, scale_at(at)))
        on_path = x * scales
        return on_path - times * self._output(on_path, time, label_embedding)

    def _output(self, x: Tensor, time: Tensor, label_embedding: Tensor) -> Tensor:
        """What the network says, in float32, without channels that mean nothing."""
        if self.precision == "bf16" and not self._in_bf16:
            self._network.hold_in_bf16()
            self._in_bf16 = True
        with self.products(), self._autocast():
            output = self._forward(x, self._network.conditioning(time, label_embedding))
        kept = output.shape[1] - self.metadata.dropped_channels
        return output.float()[:, :kept]

    def _forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        # One image's row is other code to a compiler, and gradients are: both are left to the network.
        if self.compiler is None or torch.is_grad_enabled() or len(x) == 1 or len(conditioning) != len(x):
            output: Tensor = self._network(x, conditioning)
            return output
        x, conditioning = x.contiguous(), conditioning.contiguous()
        if self._compiled is None:
            self._compiled = self.compiler(self._network, x, conditioning)
        return self._compiled(x, conditioning)

    @cached_property
    def _alpha_bar(self) -> Tensor:
        """(N,) float64 on the CPU, of the training schedule."""
        return alpha_bar(self.metadata.schedule)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, channels) of the images that it decodes to."""
        image_size = self.metadata.resolution
        channels = self.latent_shape[0] if self.autoencoder is None else self.autoencoder.config.out_channels
        return image_size, image_size, channels

    @cached_property
    def _ema(self) -> Any:
        if self._load_ema is None:
            raise UsageError(
                "the prior has no second autoencoder in vae_ema/ to encode with; put sd-vae-ft-ema there, or let the "
                "method encode with vae"
            )
        return self._load_ema().to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, images: np.ndarray, encoder: Encoder = "vae") -> tuple[Tensor, Tensor | None]:
        """Images (N, H, W, channels) uint8 -> mean and standard deviation of their latents, (N, C, h, w) float32.

        A pixel prior's latent is the image itself in [-1, 1], with no deviation.

        Raises:
            UsageError: images of another shape than the prior's, or an encoder that it does not have.
        """
        if images.shape[1:] != self.image_shape:
            raise UsageError(
                f"the prior takes images of shape {self.image_shape}, got {images.shape[1:]}; "
                f"use --resolution {self.metadata.resolution}, or a prior for this dataset"
            )
        x = send(torch.from_numpy(images), self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.autoencoder is None:
            return x, None
        with self.products(), self._autocast():
            posterior = (self._ema if encoder == "vae_ema" else self.autoencoder).encode(x).latent_dist
        scale = self.metadata.latent_scale
        return posterior.mean.float() * scale, posterior.std.float() * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents (N, C, h, w) -> images (N, H, W, channels) uint8, each rounded to the nearest level."""
        # One by one: memory stays that of one image, and an image's pixels do not depend on its neighbours.
        x = torch.cat([self.to_images(z[None]) for z in latents.to(self.device)])
        levels = (x.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def to_images(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> images (N, channels, H, W) about [-1, 1], neither clamped nor rounded;
        differentiable."""
        if self.autoencoder is None:
            return latents
        with self.products(), self._autocast():
            return self.autoencoder.decode(latents / self.metadata.latent_scale).sample.float()

    @contextmanager
    def products(self) -> Iterator[None]:
        """In which its networks multiply matrices, forth and back. TF32 keeps ten bits of a factor's mantissa, which
        networks bear; distances, covariances and the like do not where large terms cancel, so nothing else has it."""
        matmul = torch.backends.cuda.matmul
        before = matmul.allow_tf32
        matmul.allow_tf32 = self.tf32 and self.device.type == "cuda"
        try:
            yield
        finally:
            matmul.allow_tf32 = before

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _networks(files: PriorFiles) -> tuple[Denoiser, Any]:
    """The denoiser and the autoencoder, None for a pixel prior; raises as `Prior.load`."""
    if files.random is not None:
        transformer, autoencoder = random_networks(files.random)
        return DenoisingNetwork(transformer, files.metadata.freq_shift), autoencoder
    assert files.network is not None
    autoencoder = None if files.autoencoder is None else load_strictly(AutoencoderKL, files.autoencoder)
    if files.prompts is not None:
        return load_text_network(files.network, files.prompts, files.metadata.resolution), autoencoder
    transformer = load_strictly(DiTTransformer2DModel, files.network, norm_eps=files.metadata.norm_eps)
    return DenoisingNetwork(transformer, files.metadata.freq_shift), autoencoder

"""Images that look like something: made ones with the spectrum of natural ones."""

from __future__ import annotations

import numpy as np
from PIL import Image


def smooth_noise(count: int, seed: int) -> list[Image.Image]:
    """Images with the spectrum of natural ones: 1/f, and somewhat smoother."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    frequency[0, 0] = np.inf
    noise = np.random.default_rng(seed).standard_normal((count, 3, 96, 96))
    values = np.fft.ifft2(np.fft.fft2(noise) / frequency**1.5).real
    values = 128 + 50 * (values - values.mean((2, 3), keepdims=True)) / values.std((2, 3), keepdims=True)
    return [Image.fromarray(one.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)) for one in values]

"""Imported once by the fork server: what nearly every cell needs and takes seconds to import."""

import os
from unittest import mock

import torch

# POT imports every array framework that is installed, and these three look for GPUs of their own.
for framework in ("CUPY", "JAX", "TENSORFLOW"):
    os.environ.setdefault(f"POT_BACKEND_DISABLE_{framework}", "1")

# Whoever asks CUDA for its devices spoils it for every fork of this process, and libraries ask while they are imported.
with (
    mock.patch.object(torch.accelerator, "is_available", return_value=False),
    mock.patch.object(torch.accelerator, "device_count", return_value=0),
    mock.patch.object(torch.cuda, "is_available", return_value=False),
    mock.patch.object(torch.cuda, "device_count", return_value=0),
):
    import ot.batch
    import PIL.Image
    import rich.console
    import sklearn.cluster
    import sklearn.datasets
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    import ddbench.benchmark.cells.distill
    import ddbench.benchmark.cells.evaluate
    from ddbench.benchmark.core import environment

PIL.Image.init()  # its readers of all formats
environment.versions()
environment.source_revision()

__all__ = ["AutoencoderKL", "DiTTransformer2DModel", "ddbench", "ot", "rich", "sklearn"]

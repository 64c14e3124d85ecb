"""Imported once by the fork server: what nearly every cell needs and takes seconds to import."""

import diffusers.models.transformers.dit_transformer_2d
import numpy
import PIL.Image
import scipy
import sklearn.cluster
import torch
import torchvision.transforms.v2.functional

__all__ = ["PIL", "diffusers", "numpy", "scipy", "sklearn", "torch", "torchvision"]

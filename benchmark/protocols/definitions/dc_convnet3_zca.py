"""dc-convnet3-zca@1: dc-convnet3 on images that are whitened by ZCA in place of normalised, in which MTT and its
successors distil CIFAR and judge (Cazenavette et al., CVPR 2022, arXiv 2203.11932; GeorgeCazenavette/mtt-distillation).

Their programs whiten with kornia's ZCAWhitening at ε = 0.1, fitted to the whole training set of pixels in [0, 1], and
normalise no further. They train students at the learning rate that was learnt with a set, where there is one; here it
is 0.01 for every set.
"""

from __future__ import annotations

from ddbench.benchmark.protocols.base import Protocol, Whitening
from ddbench.benchmark.protocols.definitions import dc_convnet3

PROTOCOL: Protocol = dc_convnet3.PROTOCOL.model_copy(
    update={
        "name": "dc-convnet3-zca",
        "summary": "dc-convnet3 on images whitened by ZCA (MTT's evaluator, at one learning rate for every set)",
        "channels": None,  # the whitening of grey images is another one once they are repeated into RGB
        "mean": (0.0,),
        "std": (1.0,),
        "statistics": None,
        "whitening": Whitening(epsilon=0.1),
        "students_per_set": 5,
    }
)

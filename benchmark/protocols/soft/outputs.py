"""The common output of a committee of teachers, and the loss of students that come near it.

Shapes: T teachers, B images of a batch, C channels, S side in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddbench.benchmark.protocols.augmentation import Cut
from ddbench.benchmark.protocols.epoch import Loss


class CommitteeOutput(nn.Module):
    """Images (B, C, S, S) -> the weighted mean of the teachers' outputs, (B, K).

    Args:
        teachers: on one device, their parameters frozen; all take images normalised as the student's are.
        shares: of the teachers in the mean.
        scaled: bring the outputs of each to the mean of their Frobenius norms over the batch first (G-VBSM, Shao et
            al., CVPR 2024).
    """

    def __init__(self, teachers: Sequence[nn.Module], shares: Sequence[float], *, scaled: bool = False) -> None:
        super().__init__()
        self.teachers, self.shares, self.scaled = nn.ModuleList(teachers), tuple(shares), scaled

    def forward(self, images: Tensor) -> Tensor:
        return self.of_parts([images])

    def of_parts(self, parts: Sequence[Tensor]) -> Tensor:
        """Of a batch that passes in these parts, one behind the other; norms are the whole batch's."""
        outputs = torch.stack([torch.cat([teacher(part) for part in parts]) for teacher in self.teachers])  # (T, B, K)
        if self.scaled:
            norms = outputs.norm(dim=(1, 2), keepdim=True)  # (T, 1, 1)
            outputs = outputs / norms * norms.mean()
        return torch.stack([share * output for share, output in zip(self.shares, outputs, strict=True)]).sum(0)


class SquaredErrors:
    """`Loss` against a teacher's outputs without a temperature: the mean squared difference over images and classes,
    and the cross-entropy to each image's own class, which CutMix does not change (G-VBSM; EDC, Shao et al., NeurIPS
    2024).

    Args:
        teacher: in evaluation mode, its parameters frozen.
        cross_entropy: weight of the second term.
        half: round the teacher's outputs to half precision, in which programs that store them do.
    """

    def __init__(self, teacher: nn.Module, *, cross_entropy: float, half: bool = False) -> None:
        self.teacher, self.cross_entropy, self.half = teacher, cross_entropy, half

    def of_batch(self, images: Tensor, at_once: int) -> Callable[[slice], Loss]:
        """The loss of each part of a batch, whose labels are those of the whole batch."""
        with torch.no_grad():
            parts = images.split(at_once)
            if isinstance(self.teacher, CommitteeOutput):
                outputs = self.teacher.of_parts(parts)
            else:
                outputs = torch.cat([self.teacher(part) for part in parts])
            targets = outputs.half().to(outputs.dtype) if self.half else outputs

        def of_part(here: slice) -> Loss:
            def loss(logits: Tensor, images: Tensor, labels: Tensor, cut: Cut | None) -> Tensor:
                errors = F.mse_loss(logits, targets[here])
                return errors + self.cross_entropy * F.cross_entropy(logits, labels[: len(logits)])

            return loss

        return of_part

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor, cut: Cut | None) -> Tensor:
        return self.of_batch(images, len(images))(slice(None))(logits, images, labels, cut)

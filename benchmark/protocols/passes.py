"""Which images pass in which epoch of a training, and at which learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ddbench.benchmark.protocols.base import Cosine, HalfCosine, Linear, MultiStep, Protocol
from ddbench.benchmark.protocols.epoch import Streams, batches_of_epoch
from ddbench.benchmark.protocols.lengths import Updates


@dataclass
class Passes:
    """Of one training: by epochs, in each of which all images pass once; or by updates (`lengths.Updates`)."""

    protocol: Protocol
    images: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: MultiStep | HalfCosine | Cosine | Linear
    streams: Streams

    @cached_property
    def _rates(self) -> list[float]:
        """Of each epoch, or of each update."""
        updates = self._updates
        length = self.epochs if updates is None else updates.updates
        return self.schedule.learning_rates(self.learning_rate, length)

    @property
    def _updates(self) -> Updates | None:
        return self.protocol.epochs if isinstance(self.protocol.epochs, Updates) else None

    def batches(self, network: nn.Module) -> list[int]:
        """Images of each step of an epoch; of the longest one, where they differ."""
        if self._updates is None:
            return batches_of_epoch(network, self.images, self.batch_size)
        return [self.batch_size] * len(self._updates.of_epoch(1))

    def restarts(self, epoch: int) -> bool:
        """Whether the optimiser begins anew with that epoch."""
        schedule = self.schedule
        return isinstance(schedule, MultiStep) and bool(schedule.restarts) and epoch - 1 in schedule.starts(self.epochs)

    def steps(self, an_epoch: int) -> int:
        return self.epochs * an_epoch if self._updates is None else self._updates.updates

    def images_seen(self, an_epoch: int) -> int:
        return self.epochs * an_epoch if self._updates is None else self._updates.updates * self.batch_size

    def order(self, epoch: int) -> Tensor | None:
        """The images of an epoch of updates, one after another; None: a pass over all."""
        if self._updates is None:
            return None
        updates = self._updates.of_epoch(epoch)
        return in_permutations(
            self.images, updates.start * self.batch_size, len(updates) * self.batch_size, self.streams
        )

    def rates(self, epoch: int, steps: int) -> list[float]:
        """The learning rate of each step of an epoch."""
        if self._updates is None:
            return [self._rates[epoch - 1]] * steps
        updates = self._updates.of_epoch(epoch)
        return self._rates[updates.start : updates.stop]


def in_permutations(n: int, start: int, count: int, streams: Streams) -> Tensor:
    """Positions `start` … `start + count` of an endless row of permutations of n images: (count,). Permutation k = 0,
    1, … has the stream `shuffle`, k."""
    passes = range(start // n, -(-(start + count) // n))
    row = torch.cat([torch.randperm(n, generator=streams("shuffle", index)) for index in passes])
    return row[start - passes.start * n :][:count]

"""The loop that all methods of this family share: the images of one batch, from their start to their last step.

Step i: a view of the images that take part; the gradient of the objective under the step's teachers; Adam; every
pixel clamped to what a file can hold. The last iterate is what is kept (SRe2L's program, which the others extend).

Legend: B images of the batch, C channels, S the run's side in pixels, s a stage's side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from ddbench.benchmark.core.errors import RunError
from ddbench.benchmark.core.files import write_atomically
from ddbench.benchmark.core.transfers import send
from ddbench.methods.base import DistillTask
from ddbench.methods.inversion import view
from ddbench.methods.inversion.batches import Key
from ddbench.methods.inversion.objective import Objective, Teacher
from ddbench.methods.inversion.params import InversionParams
from ddbench.methods.inversion.schedule import Schedule, Step
from ddbench.methods.inversion.starts import Starts
from ddbench.methods.inversion.targets import Targets
from ddbench.methods.inversion.teachers import Moved, weights_of_round
from ddbench.methods.normalisation import Normalisation
from ddbench.methods.observer import Observer

CHECKPOINT_EVERY = 100
"""Steps between two checkpoints: what a killed run loses at most. Each look at the loss waits for the device."""
BETAS, EPSILON = (0.5, 0.9), 1e-8
"""Of Adam, in all programs of the family."""


class BatchInversion:
    """One batch on its way: a state that is kept in `task.scratch` now and then.

    Args:
        targets: of each of the observers.
        keys: (class index, image index) of the images.
    """

    def __init__(
        self,
        task: DistillTask,
        params: InversionParams,
        observers: Sequence[Observer],
        targets: Sequence[Targets],
        starts: Starts,
        keys: Sequence[Key],
    ) -> None:
        assert task.ipc is not None
        self.task, self.params, self.keys = task, params, tuple(keys)
        first_class, first_image = keys[0]
        self.name = task.class_ids[first_class], first_image
        self.file = task.scratch / f"inversion-{first_class}-{first_image}.safetensors"
        self.normalisation = Normalisation(params.normalisation, task.device)
        black, white = torch.zeros(1, 1, 1, device=task.device), torch.ones(1, 1, 1, device=task.device)
        self.lowest, self.highest = self.normalisation(black), self.normalisation(white)
        self.labels = torch.tensor([c for c, _ in keys])
        self.points = self._points(targets[0])
        self.schedule = Schedule(params, task.ipc, [i for _, i in keys])
        self.turns = weights_of_round(task, params, first_image)
        self.start = torch.stack([starts.image(*key) for key in keys])  # (B, C, S, S)
        self.step_number, self.stage = 0, 0
        self._begin_stage(self._resized(self.start, 0))
        teachers: Sequence[Teacher] = observers
        if params.ascent_steps:
            images = self._seen(self.images.detach(), 0, self.schedule.at(0))
            ascent = params.ascent_steps, params.ascent_size, task.batch_size
            teachers = [Moved(observers[0], images, self.labels.to(task.device), *ascent)]
        self.objectives = [
            Objective(teacher, wanted, params, name)
            for teacher, wanted, name in zip(teachers, targets, params.teachers, strict=True)
        ]

    def run(self) -> Mapping[Key, np.ndarray]:
        """Go on from the checkpoint, if there is one, to the last step.

        Returns:
            (class index, image index) -> (S, S, C) uint8, values truncated as the programs do.

        Raises:
            RunError: a loss that is not finite.
        """
        self._resume()
        with self.task.phase("optimise"):
            while self.step_number < self.schedule.steps:
                loss = self.step()
                self.step_number += 1
                if self.step_number % CHECKPOINT_EVERY == 0 or self.step_number == self.schedule.steps:
                    self._look(loss)
                    self._keep()
        unit = self._unit(self.images.detach()).clamp(0, 1)
        pixels = unit.mul(255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return dict(zip(self.keys, pixels, strict=True))

    def step(self) -> Tensor:
        """One step; returns the loss."""
        now = self.schedule.at(self.step_number)
        if now.stage != self.stage:
            self.stage = now.stage
            self._begin_stage(self._mixed(now.stage))
        (group,) = self.adam.param_groups
        group["lr"] = now.learning_rate
        active = send(torch.tensor(now.active), self.task.device)
        seen = self._seen(self.images[active], self.step_number, now)
        leaf = seen.detach().requires_grad_()
        points = None if self.points is None else self.points[active]
        labels = self.labels[list(now.active)]
        turn = self.turns[self.step_number % len(self.turns)]
        losses = [
            weight * self.objectives[place].backward(leaf, labels, self.task.batch_size, weight, points)
            for place, weight in turn
        ]
        self.adam.zero_grad()
        seen.backward(leaf.grad)  # images that wait get a gradient of 0: Adam leaves them where they are
        self.adam.step()
        with torch.no_grad():
            self.images.clamp_(self.lowest, self.highest)
        return torch.stack(losses).sum()

    def forget(self) -> None:
        """Remove the checkpoint: its images are committed."""
        self.file.unlink(missing_ok=True)

    def _points(self, targets: Targets) -> Tensor | None:
        """(B, F): image j of a class at its point j."""
        if targets.points is None:
            return None
        classes, numbers = zip(*self.keys, strict=True)
        return targets.points[list(classes), list(numbers)]

    def _seen(self, images: Tensor, step: int, now: Step) -> Tensor:
        """A step's view of images (B, C, s, s), in [0, 1]: the programs' teachers take normalised ones, and each here
        normalises for itself."""
        p, side = self.params, images.shape[-1]
        jitter = round(p.jitter * self.start.shape[-1])
        stream = self.task.stream("inversion view", *self.name, step)
        return self._unit(view.draw(side, now.min_scale, jitter, p.flip, stream).of(images))

    def _unit(self, images: Tensor) -> Tensor:
        return images * self.normalisation.std + self.normalisation.mean

    def _begin_stage(self, images: Tensor) -> None:
        """New images, and a new Adam for them."""
        self.images = images.detach().clone().requires_grad_()
        self.adam = torch.optim.Adam([self.images], lr=self.params.image_learning_rate, betas=BETAS, eps=EPSILON)

    def _mixed(self, stage: int) -> Tensor:
        """What the last stage left and the start, both at this stage's side, mixed (FADRM's residual)."""
        share = self.params.residual
        return (1 - share) * self._resized(self.images.detach(), stage) + share * self._resized(self.start, stage)

    def _resized(self, images: Tensor, stage: int) -> Tensor:
        side = self.schedule.side(stage, self.start.shape[-1])
        if images.shape[-1] == side:
            return images
        return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)

    def _look(self, loss: Tensor) -> None:
        if not loss.isfinite():
            raise RunError(
                f"inversion: the loss of the batch from class {self.name[0]}, image {self.name[1]}, is not finite at "
                f"step {self.step_number}; choose an image_learning_rate below {self.params.image_learning_rate:g}"
            )
        self.task.progress(f"step {self.step_number:,} of {self.schedule.steps:,}, loss {loss.item():.4g}")

    def _keep(self) -> None:
        state = self.adam.state[self.images]
        tensors = {name: state[name].detach().cpu() for name in ("step", "exp_avg", "exp_avg_sq")}
        where = {"keys": torch.tensor(self.keys), "number": torch.tensor(self.step_number)}
        where["stage"], where["images"] = torch.tensor(self.stage), self.images.detach().cpu()
        running = {f"running {place}": one.running.state for place, one in enumerate(self.objectives)}
        means = {name: state.cpu() for name, state in running.items() if state is not None}
        write_atomically(self.file, save({**where, **tensors, **means}))

    def _resume(self) -> None:
        try:
            kept = load_file(self.file)
        except (OSError, SafetensorError):
            return  # none, or a damaged one: all draws are named, so starting over ends with the same images
        if kept["keys"].tolist() != [list(key) for key in self.keys]:
            return
        self.step_number, self.stage = int(kept["number"]), int(kept["stage"])
        self._begin_stage(kept["images"].to(self.task.device))
        state = {name: kept[name] for name in ("step", "exp_avg", "exp_avg_sq")}
        self.adam.load_state_dict({**self.adam.state_dict(), "state": {0: state}})
        for place, objective in enumerate(self.objectives):
            if objective.running.state is not None:
                objective.running.state = kept[f"running {place}"].to(self.task.device)

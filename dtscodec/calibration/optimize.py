"""Gradient descent on the parameters of a fit: Adam with a cosine schedule."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from dtscodec.calibration.fit_checkpoint import FitCheckpoint
from dtscodec.calibration.fit_parameters import FitParameters
from dtscodec.calibration.student import Student
from dtscodec.progress import ProgressCallback, no_progress

BETAS = 0.9, 0.99
"""Decay rates of Adam's means of gradients and their squares."""

EPSILON = 1e-16
"""Added to the root of Adam's second moments: far below the gradient of one code among millions."""

Batch = TypeVar("Batch")


def optimize(
    student: Student,
    parameters: Sequence[FitParameters],
    batches: Sequence[Batch],
    backward: Callable[[Batch], object],
    steps: int,
    progress: ProgressCallback = no_progress,
    checkpoint: FitCheckpoint | None = None,
) -> None:
    """Fit the numbers of a student, and round them to values that a pack can store.

    Parameters
    ----------
    student : Student
        The decoded model; its numbers and elements are changed in place.
    parameters : sequence of FitParameters
        What is fitted. Parameters that are fitted in the first steps only are rounded after them, and the remaining
        steps compensate for the rounding.
    batches : sequence
        The batches, in any form that `backward` takes.
    backward : callable
        Adds the gradient of the loss on a batch to those of the student.
    steps : int
        Number of gradient steps, each on one batch.
    progress : callable
        Called with 1 after each step, and with the number of steps that an earlier run has made.
    checkpoint : FitCheckpoint, optional
        Stores the state, so that the same call resumes an interrupted one, with the same result.
    """
    optimizer = torch.optim.Adam(
        [{"params": [group.change], "lr": group.rate} for group in parameters], betas=BETAS, eps=EPSILON
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    begin = 0
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        begin = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        _restore(student, parameters, state["changes"], begin, steps)
        progress(begin)
    for step, batch in islice(enumerate(shuffled(batches, steps)), begin, None):
        student.clear_gradients()
        backward(batch)
        fitted = [group for group in parameters if step <= group.last_step(steps)]
        # Adam passes over parameters without a gradient.
        for group in parameters:
            group.change.grad = group.gradient() if group in fitted else None
        optimizer.step()
        schedule.step()
        for group in fitted:
            group.apply()
            if step == group.last_step(steps):
                group.settle()
        student.rebuild()
        progress(1)
        if checkpoint is not None:
            changes = [group.change for group in parameters]
            state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            checkpoint.save({"step": step + 1, "changes": changes, **state})


def _restore(
    student: Student, parameters: Sequence[FitParameters], changes: Sequence[Tensor], begin: int, steps: int
) -> None:
    """Bring a student to the state that it had after the first steps."""
    for group, change in zip(parameters, changes, strict=True):
        group.change.copy_(change)
        group.apply()
        if group.last_step(steps) < begin:
            group.settle()
    student.rebuild()


def shuffled(batches: Sequence[Batch], steps: int) -> Iterator[Batch]:
    """Yield a batch for each step: epochs, each in a new order, which a fixed seed makes reproducible.

    Parameters
    ----------
    batches : sequence
        The batches.
    steps : int
        Number of steps.
    """
    generator = torch.Generator().manual_seed(0)
    order: list[int] = []
    for step in range(steps):
        if step % len(batches) == 0:
            order = torch.randperm(len(batches), generator=generator).tolist()
        yield batches[order[step % len(batches)]]

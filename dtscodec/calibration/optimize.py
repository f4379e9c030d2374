"""Gradient descent on the parameters of a fit: Adam with a cosine schedule."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from dtscodec.calibration.fit_parameters import FitParameters
from dtscodec.calibration.student import Student
from dtscodec.progress import ProgressCallback

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
    progress: ProgressCallback,
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
        Called with 1 after each step.
    """
    optimizer = torch.optim.Adam(
        [{"params": [group.change], "lr": group.rate} for group in parameters], betas=BETAS, eps=EPSILON
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for step, batch in enumerate(shuffled(batches, steps)):
        with student.collecting_gradients():
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

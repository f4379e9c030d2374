"""Gradient descent on the numbers of a pack: Adam on relative changes of levels, scales and elements."""

from collections.abc import Iterator, Sequence

import torch

from dtscodec.calibration.fit_loss import HIDDEN_WEIGHT, batch_losses
from dtscodec.calibration.student import Student
from dtscodec.calibration.teacher import TeacherOutput
from dtscodec.progress import ProgressCallback

NUMBER_RATE = 0.03
"""Initial learning rate of levels and scales, relative to their size."""
ELEMENT_RATE = 0.1
"""Initial learning rate of elements, relative to the root mean square of their tensor's delta."""
ELEMENT_SHARE = 0.6
"""Share of the steps in which elements are fitted. The steps after it compensate for quantizing them again."""
BETAS = 0.9, 0.99
"""Decay rates of Adam's means of gradients and their squares."""


def optimize(
    student: Student,
    targets: Sequence[TeacherOutput],
    steps: int,
    with_elements: bool,
    progress: ProgressCallback,
) -> None:
    """Fit the numbers of a student to its teacher's outputs, and round them to values that a pack can store.

    Adam on relative changes, with a cosine schedule. Elements are fitted in the first steps only, then quantized, and
    the remaining steps compensate for the quantization.

    Parameters
    ----------
    student : Student
        The decoded model; its numbers and elements are changed in place.
    targets : sequence of TeacherOutput
        The fine-tune's outputs, batch by batch.
    steps : int
        Number of gradient steps, each on one batch.
    with_elements : bool
        Fit biases and norms element by element, too.
    progress : callable
        Called with 1 after each step.
    """
    element_steps = round(steps * ELEMENT_SHARE) if with_elements else 0
    numbers, elements = student.numbers.clone(), student.elements.clone()
    # The parameters are relative changes: in units of each number itself, and of the RMS of each element's tensor.
    changes = torch.zeros_like(numbers), torch.zeros_like(elements)
    rates = NUMBER_RATE, ELEMENT_RATE
    groups = [{"params": [change], "lr": rate} for change, rate in zip(changes, rates, strict=True)]
    optimizer = torch.optim.Adam(groups, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, target in enumerate(_shuffled(targets, steps)):
        # Gradient of the loss, by the chain rule that of the relative changes.
        kl, hidden = batch_losses(student.model, target)
        number_gradient, element_gradient = student.gradient(kl + HIDDEN_WEIGHT * hidden)
        changes[0].grad, changes[1].grad = numbers * number_gradient, student.units * element_gradient
        # Update.
        optimizer.step()
        schedule.step()
        student.numbers.copy_(numbers * (1 + changes[0]))
        if step < element_steps:
            student.elements.copy_(elements + student.units * changes[1])
        # Quantize the elements once, for the remaining steps to compensate.
        if step == element_steps - 1:
            student.quantize_elements()
        student.rebuild()
        progress(1)
    student.round_numbers()


def _shuffled(targets: Sequence[TeacherOutput], steps: int) -> Iterator[TeacherOutput]:
    """Yield a batch for each step: epochs, each in a new order, which a fixed seed makes reproducible."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        if step % len(targets) == 0:
            order = torch.randperm(len(targets), generator=generator).tolist()
        yield targets[order[step % len(targets)]]

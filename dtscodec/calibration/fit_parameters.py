"""What a fit adjusts: groups of a student's numbers, in units of their own size."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from dtscodec.calibration.refit_targets import start_at_targets
from dtscodec.calibration.student import Student

NUMBER_RATE = 0.03
"""Initial learning rate of levels and scales, relative to their size."""
CODE_RATE = 0.06
"""Initial learning rate of latent codes, relative to the root mean square of their vector."""
ELEMENT_RATE = 0.1
"""Initial learning rate of elements, relative to the root mean square of their tensor's delta."""
ELEMENT_SHARE = 0.6
"""Share of the steps in which elements are fitted. The steps after it compensate for quantizing them again."""


class FitParameters(ABC):
    """Parameters of a fit with one learning rate.

    Parameters
    ----------
    start : float32 [count]
        Values that gradient descent starts from; it changes this very tensor.
    rate : float
        Initial learning rate.
    share : float
        Share of the steps in which they are fitted, from the first on.

    Attributes
    ----------
    change : float32 [count]
        The parameters.
    """

    def __init__(self, start: Tensor, rate: float, share: float = 1.0) -> None:
        self.change = start
        self.rate, self._share = rate, share

    def last_step(self, steps: int) -> int:
        """Return the last of a number of steps in which they are fitted; -1 for none."""
        return round(steps * self._share) - 1

    @abstractmethod
    def gradient(self) -> Tensor:
        """Return the gradient of the parameters, by the chain rule from those of the student: float32 [count]."""

    @abstractmethod
    def apply(self) -> None:
        """Give the student the values that the parameters stand for."""

    @abstractmethod
    def settle(self) -> None:
        """Round the student's values to those that a pack can store: the parameters are no longer fitted."""


class NumberChanges(FitParameters):
    """Relative changes of the levels and scales of matrices.

    Parameters
    ----------
    student : Student
        The decoded model.
    """

    def __init__(self, student: Student) -> None:
        super().__init__(torch.zeros_like(student.numbers), NUMBER_RATE)
        self._student, self._start = student, student.numbers.clone()

    def gradient(self) -> Tensor:
        """Return that of the numbers, times their initial values."""
        return self._start * self._student.number_gradient

    def apply(self) -> None:
        """Change the numbers."""
        self._student.numbers.copy_(self._start * (1 + self.change))

    def settle(self) -> None:
        """Round the numbers."""
        self._student.round_numbers()


class CodeChanges(FitParameters):
    """The latent numbers that the codes of matrices are rounded from; see `LatentCodes`.

    Parameters
    ----------
    student : Student
        The decoded model.
    read_fine_tune : callable
        Returns a tensor of the fine-tune by its name in the pack.
    """

    def __init__(self, student: Student, read_fine_tune: Callable[[str], Tensor]) -> None:
        self._student, self._codes = student, student.free_codes()
        start_at_targets(self._codes, student, read_fine_tune)
        student.rebuild()
        super().__init__(self._codes.values, CODE_RATE)

    def gradient(self) -> Tensor:
        """Return that of the latent numbers, which are in relative units already."""
        return self._codes.gradient

    def apply(self) -> None:
        """Round the latent numbers to codes."""
        self._codes.write()

    def settle(self) -> None:
        """Store the codes as they are."""
        self._student.settle_codes()


class ElementChanges(FitParameters):
    """Changes of the elements of biases and norms, in units of the root mean square of their tensor's delta.

    Parameters
    ----------
    student : Student
        The decoded model.
    """

    def __init__(self, student: Student) -> None:
        super().__init__(torch.zeros_like(student.elements), ELEMENT_RATE, ELEMENT_SHARE)
        self._student, self._start = student, student.elements.clone()

    def gradient(self) -> Tensor:
        """Return that of the elements, times their units."""
        return self._student.units * self._student.element_gradient

    def apply(self) -> None:
        """Change the elements."""
        self._student.elements.copy_(self._start + self._student.units * self.change)

    def settle(self) -> None:
        """Quantize the elements again."""
        self._student.quantize_elements()


def all_parameters(
    student: Student, read_fine_tune: Callable[[str], Tensor], with_codes: bool, with_elements: bool
) -> list[FitParameters]:
    """Return what a fit adjusts by default.

    Parameters
    ----------
    student : Student
        The decoded model.
    read_fine_tune : callable
        Returns a tensor of the fine-tune by its name in the pack.
    with_codes : bool
        Fit the codes of matrices, too.
    with_elements : bool
        Fit biases and norms element by element, too.
    """
    found: list[FitParameters] = [NumberChanges(student)]
    if with_codes:
        found.append(CodeChanges(student, read_fine_tune))
    if with_elements:
        found.append(ElementChanges(student))
    return found

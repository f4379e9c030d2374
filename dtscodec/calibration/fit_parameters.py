"""What a fit adjusts: groups of a student's numbers, as relative changes that gradient descent starts at zero."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dtscodec.calibration.student import Student

NUMBER_RATE = 0.03
"""Initial learning rate of levels and scales, relative to their size."""
ELEMENT_RATE = 0.1
"""Initial learning rate of elements, relative to the root mean square of their tensor's delta."""
ELEMENT_SHARE = 0.6
"""Share of the steps in which elements are fitted. The steps after it compensate for quantizing them again."""


class FitParameters(ABC):
    """Parameters of a fit with one learning rate.

    Parameters
    ----------
    count : int
        Number of parameters.
    device : torch.device
        Their device.
    rate : float
        Initial learning rate.
    share : float
        Share of the steps in which they are fitted, from the first on.

    Attributes
    ----------
    change : float32 [count]
        The parameters.
    """

    def __init__(self, count: int, device: torch.device, rate: float, share: float = 1.0) -> None:
        self.change = torch.zeros(count, device=device)
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
        super().__init__(len(student.numbers), student.numbers.device, NUMBER_RATE)
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


class ElementChanges(FitParameters):
    """Changes of the elements of biases and norms, in units of the root mean square of their tensor's delta.

    Parameters
    ----------
    student : Student
        The decoded model.
    """

    def __init__(self, student: Student) -> None:
        super().__init__(len(student.elements), student.elements.device, ELEMENT_RATE, ELEMENT_SHARE)
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


def all_parameters(student: Student, with_elements: bool) -> list[FitParameters]:
    """Return what a fit adjusts by default.

    Parameters
    ----------
    student : Student
        The decoded model.
    with_elements : bool
        Fit biases and norms element by element, too.
    """
    return [NumberChanges(student), *([ElementChanges(student)] if with_elements else [])]

"""The average of fine-tunes: the base that is nearest to all of them, and needs no pre-trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dtscodec.merging.matrices import sum_of


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of the fine-tunes' weights; it has no options."""

    name: ClassVar[str] = "average"


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape: float64.

    >>> import torch
    >>> mean_of([torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])]).tolist()
    [1.5, 3.0]
    """
    return sum_of(tensors) / len(tensors)

"""The interface of all quantization schemes: a quantized weight, the tensors that it is made of, and its values."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.quantized.quantization_settings import QuantizationSettings

if TYPE_CHECKING:
    from torch import Tensor

ReadTensor: TypeAlias = "Callable[[str], Tensor]"
"""Returns a tensor of the quantized checkpoint by name."""

CHUNK = 2**20
"""Elements that are dequantized at once: the arithmetic takes several times their size in memory."""


class QuantizedWeight(Protocol):
    """A weight that a quantized checkpoint stores as several tensors."""

    @property
    def scheme(self) -> str:
        """Name of the scheme, for messages."""

    @property
    def name(self) -> str:
        """Name of the weight when it is dequantized."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight when it is dequantized."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that it is made of, the codes first."""

    @property
    def settings(self) -> tuple[int | str, ...]:
        """Settings that its values depend on, apart from these tensors."""

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """Dequantize the weight.

        Parameters
        ----------
        read : callable
            Returns the tensors that it is made of.
        out : bfloat16, float16 or float32 tensor of `shape`
            The output, filled with the weight's values.
        """


FindWeights: TypeAlias = "Callable[[Specs, QuantizationSettings, ReadTensor], Iterator[QuantizedWeight]]"
"""Yields the weights of one scheme. Only tensors of a few bytes, which describe others, are read."""


def chunks(count: int, width: int) -> Iterator[slice]:
    """Divide rows into chunks of about `CHUNK` elements, in order.

    Parameters
    ----------
    count, width : int
        Number of rows, and elements of each.

    Examples
    --------
    >>> list(chunks(5, 2**19))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, CHUNK // max(1, width))
    return (slice(begin, min(begin + step, count)) for begin in range(0, count, step))

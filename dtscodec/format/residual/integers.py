"""Elements <-> integers that tell how far they are from a prediction (spec section 15.3).

The bits of floats, read as integers, keep the order of floats once the negative ones are reversed. So a small error of
the prediction is a small integer. The mapping of bits is one to one: -0 and the payloads of NaNs are kept.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.dtypes import DType, TensorSpec, bits_of

Integers: TypeAlias = NDArray[np.integer[Any]]
Octets: TypeAlias = NDArray[np.uint8]

_FLOATS: Final[dict[DType, tuple[int, int]]] = {
    "F8_E5M2": (5, 2), "F8_E4M3": (4, 3), "F16": (5, 10), "BF16": (8, 7), "F32": (8, 23), "F64": (11, 52),
}  # fmt: skip
"""Bits of exponent and mantissa of dtypes whose bits are sign, exponent and mantissa."""


@dataclass(frozen=True, slots=True)
class ElementKind:
    """How the bytes of a tensor are cut into elements.

    Parameters
    ----------
    size : int
        Bytes of an element: 1, 2, 4 or 8.
    exponent, mantissa : int
        Bits of exponent and mantissa of floats; 0 for integers.
    """

    size: int
    exponent: int = 0
    mantissa: int = 0

    @property
    def signed(self) -> np.dtype[Any]:
        """Numpy's signed integers of this size."""
        return np.dtype(f"<i{self.size}")

    @property
    def unsigned(self) -> np.dtype[Any]:
        """Numpy's unsigned integers of this size."""
        return np.dtype(f"<u{self.size}")

    @property
    def is_float(self) -> bool:
        """Whether elements are floats: sign, exponent, mantissa."""
        return self.exponent > 0


def element_kind(dtype: DType) -> ElementKind:
    """Return the elements of a dtype: complex numbers are pairs of floats, and 4 and 6 bits are bytes."""
    if dtype == "C64":
        return element_kind("F32")
    return ElementKind(max(1, bits_of(dtype) // 8), *_FLOATS.get(dtype, (0, 0)))


def element_matrix(spec: TensorSpec, split: int) -> tuple[int, int]:
    """Return rows and columns of a tensor's elements (see `element_kind`), with its first `split` dimensions as rows.

    >>> element_matrix(TensorSpec("C64", (2, 3)), 1), element_matrix(TensorSpec("F4", (3, 8)), 1)
    ((2, 6), (12, 1))
    """
    rows, columns = spec.matrix(split)
    if spec.dtype == "C64":
        return rows, 2 * columns
    # Rows of 4 or 6 bits an element may not fill whole bytes.
    return (spec.nbytes, 1) if bits_of(spec.dtype) < 8 else (rows, columns)


def to_distances(elements: Integers, prediction: Integers, kind: ElementKind) -> Integers:
    """Return how far elements are from their prediction; the inverse of `from_distances`.

    Parameters
    ----------
    elements, prediction : signed integers
        The bits of both, of one shape.
    kind : ElementKind
        What the bits are.

    Returns
    -------
    unsigned integers of that shape
        2 d for a distance d >= 0, and -2 d - 1 for one below. For floats, d > 0 is away from zero.
    """
    top = 8 * kind.size - 1
    distance = _ordered(elements, kind) - _ordered(prediction, kind)
    if kind.is_float:
        sign = prediction >> top  # 0 or -1
        distance = (distance ^ sign) - sign
    folded: Integers = ((distance << 1) ^ (distance >> top)).view(kind.unsigned)
    return folded


def from_distances(distances: Integers, prediction: Integers, kind: ElementKind) -> Integers:
    """Return the elements; the inverse of `to_distances`.

    Parameters
    ----------
    distances : unsigned integers
        As `to_distances` returns them.
    prediction : signed integers
        The bits of the prediction, of the same shape.
    kind : ElementKind
        What the bits are.
    """
    distance: Integers = (distances >> 1).view(kind.signed) ^ -(distances & 1).view(kind.signed)
    if kind.is_float:
        sign = prediction >> (8 * kind.size - 1)
        distance = (distance ^ sign) - sign
    sums: Integers = _ordered(prediction, kind) + distance
    return _ordered(sums, kind)


def _ordered(bits: Integers, kind: ElementKind) -> Integers:
    """Return integers in the order of the floats that bits stand for, -0 just below 0. It is its own inverse."""
    if not kind.is_float:
        return bits
    top = 8 * kind.size - 1
    # Below zero, a larger magnitude is a smaller number.
    ordered: Integers = bits ^ ((bits >> top) & bits.dtype.type((1 << top) - 1))
    return ordered


def exponents(prediction: Integers, kind: ElementKind) -> Integers:
    """Return the exponent of each element's last place, up to a constant: int16; 0 for integers.

    Subnormal numbers have the smallest exponent of normal ones, 1.
    """
    if not kind.is_float:
        return np.zeros(prediction.shape, np.int16)
    field = prediction.view(kind.unsigned) >> kind.mantissa & ((1 << kind.exponent) - 1)
    exponent: Integers = np.maximum(field, 1).astype(np.int16)
    return exponent

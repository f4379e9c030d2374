"""Tensor dtypes and specs: the dtype codes of safetensors, as a closed set (spec section 4.2)."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

DType = Literal[
    "BOOL",
    "F4",
    "F6_E2M3",
    "F6_E3M2",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "C64",
    "F64",
    "I64",
    "U64",
]

DTYPES: frozenset[str] = frozenset(get_args(DType))

CODED_DTYPES: frozenset[DType] = frozenset({"F16", "BF16", "F32", "F64"})
"""Dtypes with deltas that can be coded. Blocks of kind `same` may convert between them."""

_BITS: dict[str, int] = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS |= dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8)
_BITS |= dict.fromkeys(["I16", "U16", "F16", "BF16"], 16)
_BITS |= dict.fromkeys(["I32", "U32", "F32"], 32)
_BITS |= dict.fromkeys(["C64", "F64", "I64", "U64"], 64)

# Limits of spec section 10.
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**48
MAX_NAME_BYTES = 1024


def bits_of(dtype: DType) -> int:
    """Return the bits of an element.

    >>> bits_of("BF16"), bits_of("F4")
    (16, 4)
    """
    return _BITS[dtype]


def plane_count(dtype: DType) -> int:
    """Return the byte planes of an element: its whole bytes, at least one (spec section 5.4)."""
    return max(1, _BITS[dtype] // 8)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Dtype and shape of one tensor.

    Parameters
    ----------
    dtype : DType
        A dtype code of safetensors.
    shape : tuple of int
        Extents of its dimensions.

    Raises
    ------
    ValueError
        Unknown dtype, a negative dimension, more than 8 dimensions or 2**48 elements, or a size that does not
        fill whole bytes.
    """

    dtype: DType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"expected a dtype of safetensors, got {self.dtype!r}")
        if len(self.shape) > MAX_DIMENSIONS:
            raise ValueError(f"expected at most {MAX_DIMENSIONS} dimensions, got {len(self.shape)}")
        if any(n < 0 for n in self.shape):
            raise ValueError(f"expected dimensions of at least 0, got {list(self.shape)}")
        # Without the zeros, so that the dimensions of a tensor without elements are bounded, too.
        if math.prod(n for n in self.shape if n) > MAX_ELEMENTS:
            raise ValueError(f"expected at most 2**48 elements, got shape {list(self.shape)}")
        if self.elements * bits_of(self.dtype) % 8:
            raise ValueError(f"expected whole bytes, got {self.elements} elements of {self.dtype}")

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a tensor of no dimensions."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.elements * bits_of(self.dtype) // 8

    def matrix(self, split: int = 1) -> tuple[int, int]:
        """Return rows and columns of the tensor viewed as a matrix, with the first `split` dimensions as rows.

        See spec section 4.2.

        >>> TensorSpec("F32", (8, 4, 3)).matrix(2), TensorSpec("F32", (5,)).matrix(), TensorSpec("F32", ()).matrix()
        ((32, 3), (5, 1), (1, 1))
        """
        return math.prod(self.shape[:split]), math.prod(self.shape[split:])

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"

"""The widths of codes, and the properties that depend on the width alone (spec section 5.3)."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import assert_never

Bits: TypeAlias = Literal[2, 4, 8, 16]
"""Bits per code."""

ALL_BITS: Final[tuple[Bits, ...]] = get_args(Bits)
"""Every width, ascending."""

# The positive half of a symmetric code book.
_POSITIVE = [0.1279296875, 0.388671875, 0.65625, 0.94140625, 1.2578125, 1.6171875, 2.0625, 2.734375]
NORMAL_LEVELS: Final = np.array([-level for level in reversed(_POSITIVE)] + _POSITIVE, np.float32)
"""The 16 levels of 4-bit codes, ascending: those of a Lloyd-Max quantizer for a normal variable of unit variance."""


@dataclass(frozen=True, slots=True, eq=False)
class Width:
    """The properties of a width.

    Parameters
    ----------
    bits : int
        Bits per code.
    dtype : numpy dtype
        Dtype of unpacked codes; little-endian.
    retained_energy : float
        Share of a component's energy (its squared singular value) that remains after quantization of both vectors:
        (1 - D)^2, with D the distortion of a Lloyd-Max quantizer for a normal variable of unit variance, .1175 for four
        levels and .0095 for sixteen (J. Max, 1960). Refits improve on it.
    stored_levels : int
        Levels of a code book among the pack's numbers; 0 if the width's code books are not stored.
    fixed_levels : float32 [2**bits], optional
        The code book that the format prescribes.
    has_scales : bool
        Whether each component of a low-rank block has a scale.
    suits_new : bool
        Whether codes are fine enough for elements of tensors that have no counterpart in the base.
    """

    bits: Bits
    dtype: np.dtype[np.generic]
    retained_energy: float
    stored_levels: int = 0
    fixed_levels: NDArray[np.float32] | None = None
    has_scales: bool = True
    suits_new: bool = False

    @property
    def is_float(self) -> bool:
        """True if codes are floating-point numbers: they are their own values, and have a limited range."""
        return self.dtype.kind == "f"

    @property
    def has_value_scales(self) -> bool:
        """True if a `values` block has scales, which stored levels make superfluous."""
        return self.has_scales and not self.stored_levels

    @property
    def largest_code(self) -> int:
        """The largest code of a width whose codes are signed integers."""
        return (1 << (self.bits - 1)) - 1

    def code_books(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a view of stored levels as code books: float32 [books * stored_levels] -> [books, stored_levels]."""
        return numbers.reshape(len(numbers) // max(1, self.stored_levels), self.stored_levels)


_TWO: Final = Width(2, np.dtype(np.uint8), retained_energy=0.78, stored_levels=4)
_FOUR: Final = Width(4, np.dtype(np.uint8), retained_energy=0.981, fixed_levels=NORMAL_LEVELS)
_EIGHT: Final = Width(8, np.dtype(np.int8), retained_energy=0.9998, suits_new=True)
_SIXTEEN: Final = Width(16, np.dtype("<f2"), retained_energy=1 - 2**-22, has_scales=False, suits_new=True)


def width_of(bits: Bits) -> Width:
    """Return the width of a number of bits per code.

    Examples
    --------
    >>> width_of(2).stored_levels, width_of(8).dtype.name, width_of(16).has_scales
    (4, 'int8', False)
    """
    match bits:
        case 2:
            return _TWO
        case 4:
            return _FOUR
        case 8:
            return _EIGHT
        case 16:
            return _SIXTEEN
        case _:
            assert_never(bits)


def as_bits(value: int) -> Bits:
    """Return an integer as bits per code, narrowed to the widths of the format.

    Raises
    ------
    ValueError
        The format has no such width.
    """
    # A comparison narrows the type to `Bits`; `in` does not.
    for bits in ALL_BITS:
        if bits == value:
            return bits
    *others, last = ALL_BITS
    raise ValueError(f"expected a width of {', '.join(map(str, others))} or {last} bits, got {value}")

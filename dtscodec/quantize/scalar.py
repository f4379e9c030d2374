"""Scalar quantization: numbers -> codes of any width, and back (spec section 5.3).

`quantize_elements` and `quantize_vector` choose codes; `dequantize` is their inverse, up to rounding and scales.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import assert_never
from dtscodec.quantize.packing import PackedVectors, codes_of_bytes, pack_codes, unpack_codes, vector_bytes
from dtscodec.quantize.widths import Bits, width_of

if TYPE_CHECKING:  # Decoding imports this module, and runs without torch.
    from torch import Tensor

Float32Array: TypeAlias = NDArray[np.float32]
Rounding: TypeAlias = Callable[[Float32Array], Float32Array]
"""Rounds numbers to what a pack can hold."""

TINY = 1e-30
"""Stands for a scale or a denominator of zero."""

SCALE_ROUNDS = 3
"""Alternations between the codes and the scale of a vector."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedVectors:
    """Vectors of codes of one width, not packed.

    Parameters
    ----------
    codes : array [k, n]
        Of the width's dtype.
    levels : float32 [tables, levels]
        One table, or one per vector; none unless the width stores levels.
    bits : int
        Bits per code.
    """

    codes: NDArray[np.generic]
    levels: Float32Array
    bits: Bits

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def count(self) -> int:
        """Codes in a vector."""
        return int(self.codes.shape[1])

    def with_levels(self, levels: Float32Array) -> "QuantizedVectors":
        """Return the same codes with other levels."""
        return replace(self, levels=levels)

    def pack(self) -> PackedVectors:
        """Return the vectors in packed form."""
        return PackedVectors(pack_codes(self.codes, self.bits), self.levels, self.count, self.bits)


@dataclass(frozen=True, slots=True, eq=False)
class FittedVector:
    """One vector in quantized form, while components are fitted.

    Parameters
    ----------
    codes : Tensor [n]
    scale : float
        Factor on the values of the codes.
    values : float32 [n]
        The decoded vector: scale times the values of the codes.
    """

    codes: "Tensor"
    scale: float
    values: "Tensor"


Vectors: TypeAlias = PackedVectors | QuantizedVectors
"""Vectors of codes of one width: as they were read from a pack, or as a quantizer made them."""


def quantize_vector(vector: "Tensor", bits: Bits, levels: "Tensor | None") -> FittedVector:
    """Quantize one vector to a width, with the scale of least squared error.

    Parameters
    ----------
    vector : float32 [n]
    bits : int
        Bits per code. At 16 bits the vector is not rounded here, since factors are balanced before that.
    levels : float32 [2**bits], optional
        The code book, for widths that have one.
    """
    match bits:
        case 16:
            return FittedVector(vector, 1.0, vector)
        case 8:
            step = max(float(vector.abs().max()) / 127, TINY)
            codes = (vector / step).round().clamp(-127, 127)
            return fit_scale(vector, codes, codes)
        case 2 | 4:
            from dtscodec.quantize.lloyd_max import nearest  # Needs torch, which decoding runs without.

            assert levels is not None
            scale = max(float(vector.square().mean().sqrt()), TINY)
            for _ in range(SCALE_ROUNDS):
                codes = nearest(vector / scale, levels)
                values = levels[codes]
                scale = max(abs(float(vector @ values / (values @ values).clamp(min=TINY))), TINY)
            codes = nearest(vector / scale, levels)
            return fit_scale(vector, codes, levels[codes])
        case _:
            assert_never(bits)


def fit_scale(vector: "Tensor", codes: "Tensor", values: "Tensor") -> FittedVector:
    """Give codes the scale of least squared error.

    Parameters
    ----------
    vector : float32 [n]
    codes : Tensor [n]
    values : float32 [n]
        Of the codes, without a scale.
    """
    scale = float(vector @ values / (values @ values).clamp(min=TINY))
    return FittedVector(codes, scale, scale * values)


def quantize_elements(
    values: "Tensor", bits: Bits, per_row: bool, rounded: Rounding
) -> tuple[QuantizedVectors, Float32Array]:
    """Quantize the elements of a matrix one by one.

    Parameters
    ----------
    values : float32 [m, n]
    bits : int
        Bits per code.
    per_row : bool
        Whether each row has a scale of its own.
    rounded : callable
        Rounds scales before codes are chosen.

    Returns
    -------
    codes : QuantizedVectors
        One vector: all elements, row by row.
    scales : float32 [count]
        One, or one for each row; none for widths whose codes or levels need none.
    """
    codes, levels, scales = _quantize_elements(values, bits, per_row, rounded)
    width = width_of(bits)
    flat = codes.numpy().astype(width.dtype).reshape(1, -1)
    return QuantizedVectors(flat, width.code_books(levels), bits), scales


def _quantize_elements(
    values: "Tensor", bits: Bits, per_row: bool, rounded: Rounding
) -> "tuple[Tensor, Float32Array, Float32Array]":
    """Codes, levels to store, and scales."""
    from torch import from_numpy  # Decoding runs without torch.

    from dtscodec.quantize.lloyd_max import fit_levels, nearest  # Likewise.

    none = np.empty(0, np.float32)
    rows = values if per_row else values.reshape(1, -1)
    match bits:
        case 16:
            return values, none, none
        case 8:
            scales = rounded(((rows.abs().amax(dim=1) / 127).clamp(min=TINY)).numpy())
            return (rows / from_numpy(scales)[:, None]).round().clamp(-128, 127), none, scales
        case 4:
            fixed = width_of(bits).fixed_levels
            assert fixed is not None
            levels = from_numpy(fixed)
            scale = rows.square().mean(dim=1).sqrt().clamp(min=TINY)
            for _ in range(SCALE_ROUNDS):
                coded = levels[nearest(rows / scale[:, None], levels)]
                scale = ((rows * coded).sum(1) / coded.square().sum(1).clamp(min=TINY)).clamp(min=TINY)
            scales = rounded(scale.numpy())
            return nearest(rows / from_numpy(scales)[:, None], levels), none, scales
        case 2:
            levels = fit_levels(values, width_of(bits).stored_levels)
            return nearest(values, levels), levels.numpy(), none
        case _:
            assert_never(bits)


def dequantize(vectors: Vectors) -> Float32Array:
    """Return the values of codes, without scales; the inverse of quantizing, up to rounding.

    Parameters
    ----------
    vectors : Vectors
        Of k vectors of n codes.

    Returns
    -------
    float32 [k, n]
        The same bits in the same memory layout for packed and for unpacked codes, so that products of them, too, have
        the same last bits. Widths with one code book leave the rows as far apart as padded codes are.
    """
    bits = vectors.bits
    match bits:
        case 8 | 16:
            return _unpacked(vectors).astype(np.float32)
        case 2 | 4:
            fixed = width_of(bits).fixed_levels
            tables = vectors.levels if fixed is None else fixed[None]
            if len(tables) > 1:
                return np.take_along_axis(tables, _unpacked(vectors).astype(np.intp), axis=1)
            if isinstance(vectors, PackedVectors):  # One lookup for all codes of a byte.
                of_bytes = tables[0][codes_of_bytes(bits)]
                values = np.take(of_bytes, vectors.packed, axis=0).reshape(len(vectors), -1)
            else:
                values = np.empty((len(vectors), vector_bytes(vectors.count, bits) * 8 // bits), np.float32)
                values[:, : vectors.count] = tables[0][vectors.codes]
            return values[:, : vectors.count]
        case _:
            assert_never(bits)


def _unpacked(vectors: Vectors) -> NDArray[np.generic]:
    """The codes: [k, n]."""
    if isinstance(vectors, QuantizedVectors):
        return vectors.codes
    return unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits)

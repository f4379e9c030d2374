"""Scalar quantization: numbers <-> codes of any width (spec section 5.3).

`quantize_elements` and `quantize_vector` choose codes. `dequantize` is their inverse, up to rounding and scales.
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
"""Rounds numbers to the dtype in which a pack stores them."""

TINY = 1e-30
"""Smallest scale, and smallest denominator."""

SCALE_ROUNDS = 3
"""Alternations between fitting the codes and the scale of a vector."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedVectors:
    """Vectors of codes of one width, not packed.

    Parameters
    ----------
    codes : array [k, n]
        In the width's dtype.
    levels : float32 [tables, levels]
        One level table, or one per vector; none unless the width stores levels.
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
        """Return the vectors in packed form, which `dequantize` takes as well."""
        return PackedVectors(pack_codes(self.codes, self.bits), self.levels, self.count, self.bits)


@dataclass(frozen=True, slots=True, eq=False)
class FittedVector:
    """A quantized vector, as fitting a component replaces it again and again.

    Parameters
    ----------
    codes : Tensor [n]
        Integers in any dtype; at 16 bits, float32 values.
    scale : float
        Factor on the values of the codes.
    values : float32 [n]
        The dequantized vector: scale times the values of the codes.
    """

    codes: "Tensor"
    scale: float
    values: "Tensor"


Vectors: TypeAlias = PackedVectors | QuantizedVectors
"""Vectors of codes of one width: packed, from a pack, or unpacked, from a quantizer."""


def quantize_vector(vector: "Tensor", bits: Bits, levels: "Tensor | None") -> FittedVector:
    """Quantize one vector, with the scale of least squared error; the inverse is `dequantize`, times the scale.

    Parameters
    ----------
    vector : float32 [n]
        The vector.
    bits : int
        Bits per code. At 16 bits the vector is not rounded yet, since factors are balanced first.
    levels : float32 [2**bits], optional
        The code book, for widths that have one.
    """
    match bits:
        case 16:
            return FittedVector(vector, 1.0, vector)
        case 8:
            # Uniform levels up to the largest magnitude.
            step = max(float(vector.abs().max()) / 127, TINY)
            codes = (vector / step).round().clamp(-127, 127)
            return fit_scale(vector, codes, codes)
        case 2 | 4:
            from dtscodec.quantize.lloyd_max import nearest  # Needs torch, which decoding runs without.

            assert levels is not None
            # Alternate between the nearest codes for a scale and the scale of least squares for these codes.
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
    """Return codes with the scale of least squared error.

    Parameters
    ----------
    vector : float32 [n]
        The vector to approximate.
    codes : Tensor [n]
        Its codes.
    values : float32 [n]
        The values of the codes, without a scale.
    """
    scale = float(vector @ values / (values @ values).clamp(min=TINY))
    return FittedVector(codes, scale, scale * values)


def quantize_elements(
    values: "Tensor", bits: Bits, per_row: bool, rounded: Rounding
) -> tuple[QuantizedVectors, Float32Array]:
    """Quantize the elements of a matrix independently; the inverse is `dequantize`, times the scales.

    Parameters
    ----------
    values : float32 [m, n]
        The elements.
    bits : int
        Bits per code.
    per_row : bool
        Whether each row has its own scale.
    rounded : callable
        Rounds scales before codes are chosen, so that codes fit the scales that a pack stores.

    Returns
    -------
    codes : QuantizedVectors
        One vector: all elements, row by row.
    scales : float32 [count]
        One, or one for each row; none at widths without scales.
    """
    codes, levels, scales = _quantize_elements(values, bits, per_row, rounded)
    width = width_of(bits)
    flat = codes.numpy().astype(width.dtype).reshape(1, -1)
    return QuantizedVectors(flat, width.code_books(levels), bits), scales


def _quantize_elements(
    values: "Tensor", bits: Bits, per_row: bool, rounded: Rounding
) -> "tuple[Tensor, Float32Array, Float32Array]":
    """Return codes, the levels to store, and scales."""
    from torch import from_numpy  # Decoding runs without torch.

    from dtscodec.quantize.lloyd_max import fit_levels, nearest  # Likewise.

    none = np.empty(0, np.float32)
    rows = values if per_row else values.reshape(1, -1)
    match bits:
        case 16:  # Codes are the numbers themselves, in half precision.
            return values, none, none
        case 8:  # Uniform levels up to the largest magnitude of a row.
            scales = rounded(((rows.abs().amax(dim=1) / 127).clamp(min=TINY)).numpy())
            return (rows / from_numpy(scales)[:, None]).round().clamp(-128, 127), none, scales
        case 4:  # Fixed levels, with a scale fitted in alternation with codes, as in `quantize_vector`.
            fixed = width_of(bits).fixed_levels
            assert fixed is not None
            levels = from_numpy(fixed)
            scale = rows.square().mean(dim=1).sqrt().clamp(min=TINY)
            for _ in range(SCALE_ROUNDS):
                coded = levels[nearest(rows / scale[:, None], levels)]
                scale = ((rows * coded).sum(1) / coded.square().sum(1).clamp(min=TINY)).clamp(min=TINY)
            scales = rounded(scale.numpy())
            return nearest(rows / from_numpy(scales)[:, None], levels), none, scales
        case 2:  # Levels fitted to the values; these need no scale.
            levels = fit_levels(values, width_of(bits).stored_levels)
            return nearest(values, levels), levels.numpy(), none
        case _:
            assert_never(bits)


def dequantize(vectors: Vectors) -> Float32Array:
    """Return the values of codes, without scales; the inverse of `quantize_elements`, up to rounding.

    Parameters
    ----------
    vectors : Vectors
        k vectors of n codes.

    Returns
    -------
    float32 [k, n]
        Packed and unpacked codes give the same bits in the same memory layout, so that products of the values agree to
        the last bit, too. At widths with one code book, rows are strided like padded codes.
    """
    bits = vectors.bits
    match bits:
        case 8 | 16:
            return _unpacked(vectors).astype(np.float32)
        case 2 | 4:
            fixed = width_of(bits).fixed_levels
            tables = vectors.levels if fixed is None else fixed[None]
            if len(tables) > 1:  # One table per vector.
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
    """Return the codes: [k, n] in the width's dtype."""
    if isinstance(vectors, QuantizedVectors):
        return vectors.codes
    return unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits)

"""Packed codes -> values (spec section 5.3)."""

import numpy as np
from numpy.typing import NDArray

from dtscodec.quantize.packing import PackedVectors, codes_of_bytes, unpack_codes
from dtscodec.quantize.widths import NORMAL_LEVELS


def dequantize(vectors: PackedVectors) -> NDArray[np.float32]:
    """The values of packed codes: float32 [k, count]."""
    if vectors.bits == 8 or vectors.bits == 16:
        return unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits).astype(np.float32)
    tables = NORMAL_LEVELS[None] if vectors.bits == 4 else vectors.levels
    if len(tables) == 1:  # One lookup for all codes of a byte.
        of_bytes = tables[0][codes_of_bytes(vectors.bits)]
        return np.take(of_bytes, vectors.packed, axis=0).reshape(len(vectors.packed), -1)[:, : vectors.count]
    codes = unpack_codes(vectors.packed, vectors.count, vectors.bits)
    return np.take_along_axis(tables, codes.astype(np.intp), axis=1)

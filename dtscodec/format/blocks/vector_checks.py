"""Checks of packed vectors that both coded kinds share (spec sections 5.2 and 5.3)."""

import numpy as np

from dtscodec.errors import FormatError
from dtscodec.quantize.packing import PackedVectors, padding_is_zero, unpack_codes
from dtscodec.quantize.scalar import Vectors
from dtscodec.quantize.widths import width_of


def check_vectors(given: Vectors) -> PackedVectors:
    """Return vectors, in packed form, that are valid.

    Raises
    ------
    FormatError
        Levels do not ascend (rule N2), padding is not zero (rule E1), or a floating-point code is not finite
        (rule E2).
    """
    vectors = given.pack()
    if (np.diff(vectors.levels, axis=1) < 0).any():
        raise FormatError("numbers", "levels", "expected levels that ascend", "5.2")
    if not padding_is_zero(vectors.packed, vectors.count, vectors.bits):
        raise FormatError("padding", "codes", "expected padding bits of zero", "5.3")
    if width_of(vectors.bits).is_float:
        codes = unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits)
        if not np.isfinite(codes.astype(np.float32)).all():
            raise FormatError("numbers", "codes", f"expected finite {vectors.bits}-bit codes", "5.3")
    return vectors

"""A delta that is known by its factors, such as an adapter's -> block and streams, without multiplying it out.

The inverse is `dtscodec.kernels.dequantize`.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dtscodec.codec.best import rounded, rounded_tensor
from dtscodec.codec.factored import Factored
from dtscodec.codec.factorize import Factors, canonical_signs, one_thread
from dtscodec.codec.options import HALF_FACTORS
from dtscodec.codec.pieces import CodedBlock
from dtscodec.codec.recipe import BEST, LEAST_ERROR, Recipe
from dtscodec.codec.refine import Refined
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Band, BaseRows, LowRank, Same
from dtscodec.format.parts import join_lowrank, join_masks
from dtscodec.format.streams import Streams
from dtscodec.kernels.dequantize import dequantize

AS_THEY_ARE = replace(LEAST_ERROR, rounds=0)
"""For half precision, which holds singular vectors so well that there is nothing to refit."""


def code_factored(delta: Factored, base: BaseRows, bits: int) -> CodedBlock:
    """Code all components of a delta at one width; rows and columns of zeros stay untouched.

    Parameters
    ----------
    delta : Factored
        Finite, [m, n] as the tensor is seen as a matrix.
    base : BaseRows
        The m rows that it is added to.
    bits : {2, 4, 8, 16}
        An element of a singular vector. 16 keeps the delta within a few ten-thousandths of its norm.

    Raises
    ------
    EncodeError
        It is beyond what the width, or float32, can hold.
    """
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        rows, cols = _moved(delta.left), _moved(delta.right.T)
        part = delta.rows(rows).T.rows(cols).T
        u, s, v = part.triplets()
        if not len(s):
            return CodedBlock(Same(delta.shape[0], base), Streams())
        _check_size(float(s[0]) / math.sqrt(math.prod(part.shape)), bits)
        unit = 2.0 ** math.frexp(float(s[0]))[1]  # Squares of extreme values are beyond float32.
        factors = _factors(u, s / unit, v, min(part.shape))
        coded_rows, coded_cols = (None if mask.all() else mask.numpy() for mask in (rows, cols))
        counts = [None if mask is None else int(mask.sum()) for mask in (coded_rows, coded_cols)]
        block = LowRank(delta.shape[0], base, counts[0], counts[1], (Band(len(s), bits),))
        return _coded(part, block, delta.shape[1], factors, unit, join_masks(coded_rows, coded_cols))


def _coded(part: Factored, block: LowRank, columns: int, factors: Factors, unit: float, bitmaps: bytes) -> CodedBlock:
    bits = block.bands[0].bits
    recipe: Recipe = AS_THEY_ARE if bits == 16 else BEST
    scaled = Factored(factors.u * factors.s, factors.v)
    refined = Refined(scaled, factors, [bits] * block.rank, recipe)
    scales = refined.solve_scales(rounded_tensor)
    scales *= refined.gain(scales, 0.0)
    numbers, bands = join_lowrank(0.0, refined.bands(scales * unit))
    streams = Streams(bitmaps, rounded(numbers), bands)
    coded = dequantize(block, columns, streams)
    assert coded.right is not None
    decoded = Factored(torch.from_numpy(np.ascontiguousarray(coded.left)), torch.from_numpy(coded.right))
    streams.numbers[0] = math.sqrt(decoded.square())
    streams.numbers[:] = rounded(streams.numbers)
    if not np.isfinite(streams.numbers).all():
        raise EncodeError("expected a delta whose norm float32 can hold, got a larger one")
    return CodedBlock(block, streams, part.square(), part.double().minus(decoded.double()).square())


def _factors(u: Tensor, s: Tensor, v: Tensor, side: int) -> Factors:
    u, s, v = canonical_signs(u, s, v)
    spectrum = torch.nn.functional.pad(s, (0, side - len(s)))
    return Factors(u.float(), s.float(), v.float(), spectrum.float())


def _moved(vectors: Tensor) -> Tensor:
    """Which rows hold an element that is not 0: bool [m]."""
    return (vectors != 0).any(dim=1)


def _check_size(size: float, bits: int) -> None:
    """Refuse a delta whose factors half precision, which has no scales beside it, cannot hold."""
    if bits == 16 and not HALF_FACTORS[0] <= size <= HALF_FACTORS[1]:
        detail = "expected a delta whose factors half precision holds"
        raise EncodeError(f"{detail}, got elements of about {size:.1e}; code it in 8 bits (--bits 8)")

"""The prediction of a tensor: what base and delta give, to the same bit in every decoder (spec section 15.2).

The delta of a low-rank block is a matrix product, whose rounding depends on the order of its sums. So both factors are
first rounded to integers, small enough for every sum of products to be exact in float64.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.blocks import Block, CodedContent, CodedDelta, Content
from dtscodec.format.dtypes import CODED_DTYPES, DType, TensorSpec, bits_of
from dtscodec.format.index import TensorEntry
from dtscodec.format.residual.integers import ElementKind, Integers, element_kind, element_matrix
from dtscodec.format.streams import floats_from_bytes

Doubles: TypeAlias = NDArray[np.float64]
ReadBytes: TypeAlias = Callable[[str], tuple[TensorSpec, NDArray[np.uint8]]]
"""Returns the spec of a base tensor and its checked bytes, uint8 [nbytes]."""

MANTISSA: Final = 53
"""Bits of a float64: integers up to 2**53 are exact."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Factors of a chunk's prediction.

    Parameters
    ----------
    rows : float32 [rows], optional
        What the base's rows grow by: weight decay shrinks them all alike.
    delta : float32, optional
        Factor of the delta. The one in a pack serves behaviour; a smaller one may have a smaller squared error.
    """

    rows: NDArray[np.float32] | None = None
    delta: np.float32 | None = None

    @property
    def is_plain(self) -> bool:
        """Whether there are none."""
        return self.rows is None and self.delta is None


PLAIN: Final = Factors()
"""No factors."""


class ExactDelta:
    """The delta of a coded block, of which any rows are the same to the bit on every machine.

    Parameters
    ----------
    delta : CodedDelta
        The delta, dequantized in float64.
    shape : (int, int)
        Rows and columns of the block.
    """

    def __init__(self, delta: CodedDelta, shape: tuple[int, int]) -> None:
        self._shape = shape
        # For each row its place among the coded ones.
        is_coded = np.ones(shape[0], np.bool_) if delta.rows is None else delta.rows
        self._coded, self._places = np.flatnonzero(is_coded), np.append(0, np.cumsum(is_coded))
        self._columns = slice(None) if delta.cols is None else np.flatnonzero(delta.cols)
        self._left, self._right, self._exponent = delta.left.astype(np.float64), None, 0
        if delta.right is not None:
            # |left| <= 2**bits, |right| <= 2**bits, and rank * 2**(2 bits) <= 2**53.
            bits = (MANTISSA - (len(delta.right) - 1).bit_length()) // 2
            self._left, left_exponent = _as_integers(delta.left, bits)
            self._right, right_exponent = _as_integers(delta.right, bits)
            self._exponent = left_exponent + right_exponent

    def rows(self, first: int, last: int) -> Doubles:
        """Return rows of the delta, 0 where it is not coded: float64 [last - first, columns]."""
        begin, end = self._places[first], self._places[last]
        values = self._left[begin:end]
        if self._right is not None:
            # A sum of integers that is 0 has no sign, but a product of matrices may give -0 for it.
            values = np.ldexp(values @ self._right + 0.0, self._exponent)
        if values.shape == (last - first, self._shape[1]):
            return values
        result = np.zeros((last - first, self._shape[1]))
        result[np.ix_(self._coded[begin:end] - first, np.arange(self._shape[1])[self._columns])] = values
        return result


def _as_integers(factor: NDArray[np.floating[Any]], bits: int) -> tuple[Doubles, int]:
    """Return a factor as integers of at most 2**bits, and the exponent of the power of two that multiplies them."""
    # The largest magnitude is below 2**exponent. A factor of zeros has any exponent.
    exponent = int(np.frexp(np.abs(factor).max(initial=0.0))[1])
    return np.rint(np.ldexp(factor.astype(np.float64), bits - exponent)), exponent - bits


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A block of the tensor: its first row, and its exact bytes or its delta, where it has any."""

    row: int
    block: Block
    stored: NDArray[np.uint8] | None
    delta: ExactDelta | None


class Prediction:
    """The prediction of one tensor, by rows of its elements.

    Parameters
    ----------
    entry : TensorEntry
        The tensor, not a tie. The base has the rows that its blocks use (`TensorEntry.check_base`).
    contents : iterable of (first row, Block, Content)
        See `dtscodec.format.reader.PackReader.contents`.
    read_base : callable
        Returns spec and checked bytes of a base tensor.
    with_delta : bool
        Whether coded blocks add their delta; else they count as the base's rows.

    Attributes
    ----------
    kind : ElementKind
        The elements.
    shape : (int, int)
        Rows and columns of the elements.
    """

    def __init__(
        self,
        entry: TensorEntry,
        contents: Iterable[tuple[int, Block, Content]],
        read_base: ReadBytes,
        with_delta: bool,
    ) -> None:
        self._spec, self._read_base = entry.spec, read_base
        self.kind: ElementKind = element_kind(entry.spec.dtype)
        self.shape = element_matrix(entry.spec, entry.split)
        self._columns = entry.columns
        self._parts: list[_Part] = []
        for row, block, content in contents:
            stored = content if isinstance(content, np.ndarray) else None
            delta = None
            if with_delta and isinstance(content, CodedContent):
                delta = ExactDelta(content.delta(np.float64), (block.height, entry.columns))
            self._parts.append(_Part(row, block, stored, delta))

    @property
    def is_coded(self) -> bool:
        """Whether a block of the tensor adds a delta."""
        return any(part.delta is not None for part in self._parts)

    def rows(self, first: int, last: int, factors: Factors = PLAIN) -> Integers:
        """Return rows of the prediction: the bits of elements, signed integers [last - first, columns]."""
        if bits_of(self._spec.dtype) < 8:
            # Rows of 4 or 6 bits an element may not fill whole bytes; blocks do.
            whole = np.concatenate([self._exact_bytes(part, 0, part.block.height) for part in self._parts])
            return whole[first:last, None].view(self.kind.signed)
        pieces = [self._part_rows(part, begin, end, first, factors) for part, begin, end in self._cut(first, last)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def terms(self, first: int, last: int) -> tuple[Doubles, Doubles]:
        """Return rows of base and delta of a tensor of floats: float64 [last - first, columns]."""
        terms = [
            self._part_terms(part, begin - part.row, end - part.row) for part, begin, end in self._cut(first, last)
        ]
        base, delta = (np.concatenate(side) for side in zip(*terms, strict=True))
        return base, delta

    def _cut(self, first: int, last: int) -> Iterator[tuple[_Part, int, int]]:
        """Yield each block that some rows of the tensor touch, with the first and last of them."""
        for part in self._parts:
            begin, end = max(first, part.row), min(last, part.row + part.block.height)
            if begin < end:
                yield part, begin, end

    def _part_rows(self, part: _Part, begin: int, end: int, first: int, factors: Factors) -> Integers:
        """Return rows of the tensor that lie in one block; `factors` are those of rows from `first` on."""
        own_dtype = part.stored is not None or part.block.base is None or self._base_dtype(part) == self._spec.dtype
        own = self._exact_bytes(part, begin - part.row, end - part.row) if own_dtype else None
        bits = None if own is None else own.view(self.kind.signed).reshape(-1, self.shape[1])
        is_sum = part.delta is not None or factors.rows is not None or bits is None
        if bits is not None and (part.stored is not None or self._spec.dtype not in CODED_DTYPES or not is_sum):
            return bits
        return self._sum(part, (begin, end), first, factors, bits)

    def _sum(self, part: _Part, rows: tuple[int, int], first: int, factors: Factors, own: Integers | None) -> Integers:
        """Return (1 + a) B + t delta, rounded to float32 and then to the dtype. Each step rounds once."""
        begin, end = rows
        with np.errstate(all="ignore"):
            total, delta = self._part_terms(part, begin - part.row, end - part.row)
            if factors.rows is not None:
                total = total * (1.0 + factors.rows[begin - first : end - first].astype(np.float64))[:, None]
            if part.delta is not None:
                total = total + (delta if factors.delta is None else delta * np.float64(factors.delta))
            bits = _round(total, self._spec.dtype)
        # Where it is not finite, the prediction is the base's bits; 0 for a base of another dtype.
        ones = self.kind.signed.type((1 << self.kind.exponent) - 1 << self.kind.mantissa)
        odd = (bits & ones) == ones
        if odd.any():
            bits[odd] = 0 if own is None else own[odd]
        return bits

    def _part_terms(self, part: _Part, first: int, last: int) -> tuple[Doubles, Doubles]:
        """Return rows of a block, counted from its first: base and delta."""
        shape = (last - first, self.shape[1])
        dtype = self._spec.dtype if part.stored is not None or part.block.base is None else self._base_dtype(part)
        base = widen(self._exact_bytes(part, first, last), dtype).reshape(shape)
        return base, np.zeros(shape) if part.delta is None else part.delta.rows(first, last)

    def _base_dtype(self, part: _Part) -> DType:
        assert part.block.base is not None
        return self._read_base(part.block.base.name)[0].dtype

    def _exact_bytes(self, part: _Part, first: int, last: int) -> NDArray[np.uint8]:
        """Return the bytes of rows of a block: exact ones, the base's, or zeros."""
        if part.stored is not None or part.block.base is None:
            dtype, start, data = self._spec.dtype, 0, part.stored
        else:
            spec, data = self._read_base(part.block.base.name)
            dtype, start = spec.dtype, part.block.base.first
        bits = self._columns * bits_of(dtype)
        if data is None:
            return np.zeros((last - first) * bits // 8, np.uint8)
        return np.ascontiguousarray(data[(start + first) * bits // 8 : (start + last) * bits // 8])


def widen(data: NDArray[np.uint8], dtype: DType) -> Doubles:
    """Return bytes of F16, BF16, F32 or F64 as float64, exactly."""
    with np.errstate(invalid="ignore"):  # Signaling NaNs become quiet ones.
        return floats_from_bytes(data, dtype).astype(np.float64)


def _round(values: Doubles, dtype: DType) -> Integers:
    """Return the bits of numbers in a dtype: rounded to float32, then to the dtype, to nearest, ties to even."""
    if dtype == "F64":
        return values.view(np.int64)
    single = values.astype(np.float32)
    if dtype == "F32":
        return single.view(np.int32)
    if dtype == "F16":
        return single.astype(np.float16).view(np.int16)
    # Adding 0x7FFF and the lowest bit of the upper half rounds to nearest, ties to even. A NaN may become another
    # number that way; it becomes one with an exponent of ones, which the caller replaces.
    bits = single.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1) >> 16).astype(np.uint16)
    rounded[np.isnan(single)] = 0x7FC0
    signed: Integers = rounded.view(np.int16)
    return signed

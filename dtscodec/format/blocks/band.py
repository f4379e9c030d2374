"""Bands of a low-rank block: consecutive components of one width (spec section 6.5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.blocks.coded import Floats
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.quantize.packing import PackedVectors
from dtscodec.quantize.scalar import Rounding, Vectors, dequantize
from dtscodec.quantize.widths import Bits, Width, as_bits, width_of


@dataclass(frozen=True, slots=True)
class Band:
    """Consecutive components of one width.

    Parameters
    ----------
    rank : int
        Number of components, at least 1.
    bits : int
        Bits per code.
    """

    rank: int
    bits: Bits

    def __post_init__(self) -> None:
        as_bits(self.bits)
        if self.rank < 1:
            raise ValueError(f"expected a rank of at least 1, got {self.rank}")

    @property
    def width(self) -> Width:
        """The width of the band's codes."""
        return width_of(self.bits)

    def table_count(self, per_vector: bool) -> int:
        """Return the number of level tables of each of the two factors.

        Parameters
        ----------
        per_vector : bool
            Whether each vector has its own table.
        """
        return (self.rank if per_vector else 1) if self.width.stored_levels else 0

    def number_count(self, per_vector: bool) -> int:
        """Return the number of levels and scales of the band; for `per_vector` see `table_count`."""
        # Levels of u and of v, then a scale per component.
        return 2 * self.width.stored_levels * self.table_count(per_vector) + self.rank * self.width.has_scales

    def to_json(self) -> Json:
        """Return [rank, bits]; the inverse of `from_json`."""
        return [self.rank, self.bits]

    @classmethod
    def from_json(cls, item: list[Json]) -> "Band":
        """Read a band; the inverse of `to_json`.

        Raises
        ------
        ValueError
            The item is not a valid pair of integers (rule B3).
        """
        # As fields of an object, for the same strict checks of types.
        fields = Fields(dict(zip(("rank", "bits"), item, strict=False)), "a band")
        if len(item) != 2:
            raise ValueError(f"expected [rank, bits] for a band, got {item!r:.60}")
        return cls(fields.take("rank", int), as_bits(fields.take("bits", int)))


@dataclass(frozen=True, slots=True)
class BandPlace:
    """The positions of one band's vectors and numbers.

    Parameters
    ----------
    bits, rank : int
        Width and number of components of the band.
    u_at, v_at : int
        Offset of its first vector of u and of v, in bytes.
    stride : int
        Bytes from one component to the next.
    u_levels, v_levels : int
        Position of the first level of u and of v among the numbers. Levels of u end where those of v begin, and these
        where the scales begin.
    scales : int
        Position of its first scale. Floating-point codes have no scales.
    """

    bits: Bits
    rank: int
    u_at: int
    v_at: int
    stride: int
    u_levels: int
    v_levels: int
    scales: int

    @property
    def code_span(self) -> slice:
        """The span of the band's codes, in bytes."""
        return slice(self.u_at, self.u_at + self.rank * self.stride)

    def view(self, shape: tuple[int, int], codes: NDArray[np.uint8], numbers: NDArray[np.float32]) -> "BandFactors":
        """Return the band's factors as views.

        Parameters
        ----------
        shape : tuple of int
            Numbers of coded rows and columns of the block.
        codes : uint8 [rank * stride]
            The codes of this band alone.
        numbers : float32 [count]
            The numbers that `u_levels`, `v_levels` and `scales` index.
        """
        width, (m, n) = width_of(self.bits), shape
        # A component is a record: its vector of u, then its vector of v.
        records, cut = codes.reshape(self.rank, self.stride), self.v_at - self.u_at
        # Code books of u and of v; the spans are empty where the width stores no levels.
        u_books = width.code_books(numbers[self.u_levels : self.v_levels])
        v_books = width.code_books(numbers[self.v_levels : self.scales])
        return BandFactors(
            PackedVectors(records[:, :cut], u_books, m, self.bits),
            PackedVectors(records[:, cut:], v_books, n, self.bits),
            numbers[self.scales : self.scales + self.rank * width.has_scales],
        )


@dataclass(frozen=True, slots=True, eq=False)
class BandFactors:
    """The quantized factors of one band of rank r.

    Parameters
    ----------
    u : Vectors
        Left vectors, [r, coded rows].
    v : Vectors
        Right vectors, [r, coded columns].
    scales : float32 [r], or [0]
        One per component; none for floating-point codes.
    """

    u: Vectors
    v: Vectors
    scales: NDArray[np.float32]

    def rounded(self, rounding: Rounding) -> "BandFactors":
        """Return the band with rounded levels and scales.

        Parameters
        ----------
        rounding : callable
            Rounds float32 arrays to the dtype in which a pack stores numbers.
        """
        u, v = (replace(side, levels=rounding(side.levels)) for side in (self.u, self.v))
        return BandFactors(u, v, rounding(self.scales))

    def scaled_u(self, dtype: type[np.floating]) -> Floats:
        """Return (U S)^T, float [r, coded rows], in the given numpy dtype."""
        u = dequantize(self.u).astype(dtype, copy=False)
        # A scale multiplies the row of U^T that belongs to its component; 16-bit components have none.
        return u * self.scales.astype(dtype, copy=False)[:, None] if len(self.scales) else u


def scaled_factors(bands: Sequence[BandFactors], dtype: type[np.floating]) -> tuple[Floats, Floats]:
    """Dequantize the factors of all bands.

    Parameters
    ----------
    bands : sequence of BandFactors
        All bands of a block, with r components in total.
    dtype : numpy float32 or float64
        Dtype of the arithmetic and of the results.

    Returns
    -------
    left : float [r, coded rows]
        (U S)^T.
    right : float [r, coded columns]
        V^T.
    """
    if len(bands) == 1:  # Without a copy.
        return bands[0].scaled_u(dtype), dequantize(bands[0].v).astype(dtype, copy=False)
    # Stack the bands: each is dequantized into its rows.
    rank = sum(len(band.u) for band in bands)
    left, right = np.empty((rank, bands[0].u.count), dtype), np.empty((rank, bands[0].v.count), dtype)
    begin = 0
    for band in bands:
        end = begin + len(band.u)
        left[begin:end] = band.scaled_u(dtype)
        right[begin:end] = dequantize(band.v)
        begin = end
    return left, right

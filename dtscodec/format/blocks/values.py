"""Kind `values`: one code for each element of the delta (spec section 6.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.blocks.base_rows import BaseRows
from dtscodec.format.blocks.coded import (
    CodedDelta,
    Mask,
    SubsetBlock,
    check_vectors,
    parse_subset,
    split_masks,
    subset_json,
)
from dtscodec.format.dtypes import DType
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import Streams, StreamSizes
from dtscodec.quantize.packing import PackedVectors, vector_bytes
from dtscodec.quantize.scalar import Vectors, dequantize
from dtscodec.quantize.widths import ALL_BITS, Bits, Width, as_bits, width_of


@dataclass(frozen=True, slots=True)
class Values(SubsetBlock):
    """One code for each element of the delta; see `SubsetBlock` for height, base, rows and cols.

    Parameters
    ----------
    bits : int
        Bits per code.
    per_row : bool
        Whether each coded row has its own scale, instead of one for all.

    Raises
    ------
    ValueError
        `per_row` at a width without scales.
    """

    bits: Bits
    per_row: bool = False

    kind: ClassVar[str] = "values"
    is_coded: ClassVar[Literal[True]] = True
    has_norm: ClassVar[bool] = False
    tied_to: ClassVar[None] = None
    rank: ClassVar[int] = 0

    def __post_init__(self) -> None:
        as_bits(self.bits)
        # `per` is for 4 and 8 bits only (section 4.3).
        if self.per_row and not self.width.has_value_scales:
            scaled = " or ".join(str(bits) for bits in ALL_BITS if width_of(bits).has_value_scales)
            raise ValueError(f"expected scales per row with {scaled} bits only, got {self.bits}")

    @property
    def width(self) -> Width:
        """The width of the codes."""
        return width_of(self.bits)

    @property
    def widths(self) -> tuple[Bits, ...]:
        """Bits per code of each band: there is one."""
        return (self.bits,)

    def to_json(self, own: BaseRows) -> dict[str, Json]:
        """Return the block without its height; the inverse of `from_json`."""
        document: dict[str, Json] = {"kind": self.kind, "bits": self.bits}
        if self.per_row:
            document["per"] = "row"
        return document | subset_json(self, own)

    @classmethod
    def from_json(cls, fields: Fields, height: int, own: BaseRows) -> "Values":
        """Read a block; the inverse of `to_json`."""
        subset = parse_subset(fields, own)
        per_row = fields.take_flag("per", "row")
        return cls(height, *subset, as_bits(fields.take("bits", int)), per_row)

    def number_count(self, columns: int) -> int:
        """Return how many levels and scales the block has."""
        return self.width.stored_levels + self.scale_count(columns)

    def scale_count(self, columns: int) -> int:
        """Return the number of scales after the levels: 0, 1, or the number of coded rows."""
        return (self.coded_shape(columns)[0] if self.per_row else 1) * self.width.has_value_scales

    def band_bytes(self, columns: int) -> tuple[int, ...]:
        """Return the length of the codes in bytes, band by band: there is one."""
        rows, cols = self.coded_shape(columns)
        # One vector of all coded elements, row by row.
        return (vector_bytes(rows * cols, self.bits),)

    def stream_sizes(self, columns: int, dtype: DType) -> StreamSizes:
        """Return the lengths of the block's streams."""
        return StreamSizes(self.bitmap_bytes(columns), self.number_count(columns), self.band_bytes(columns))

    def code_books(self, numbers: NDArray[np.float32], columns: int) -> list[NDArray[np.float32]]:
        """Return views of the levels among the block's numbers: float32 [1, levels], if the width stores levels."""
        levels = self.width.stored_levels
        return [self.width.code_books(numbers[:levels])] if levels else []

    @staticmethod
    def join(codes: Vectors, scales: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[bytes, ...]]:
        """Return numbers and bands of the streams; the inverse of `split`.

        Parameters
        ----------
        codes : Vectors
            One vector: all coded elements, row by row.
        scales : float32 [scale_count]
            See `scale_count`.
        """
        return np.concatenate([codes.levels.ravel(), scales]), (codes.pack().packed.tobytes(),)

    def split(self, columns: int, streams: Streams) -> "ValuesContent":
        """Return the content of the block's streams, after checking it; the inverse of `join`.

        Parameters
        ----------
        columns : int
            Columns of the tensor.
        streams : Streams
            The block's streams.

        Raises
        ------
        FormatError
            Rules W1, N2, E1 and E2.
        """
        rows, cols = split_masks(self, columns, streams)
        packed = np.frombuffer(streams.bands[0], np.uint8)
        codes, scales = self.view(columns, packed, streams.numbers)
        return ValuesContent(self, columns, streams, rows, cols, check_vectors(codes), scales)

    def view(
        self, columns: int, codes: NDArray[np.uint8], numbers: NDArray[np.float32]
    ) -> tuple[PackedVectors, NDArray[np.float32]]:
        """Return codes and scales as views of a block's streams.

        Parameters
        ----------
        columns : int
            Columns of the tensor.
        codes : uint8 [bytes]
            Packed codes: the only band.
        numbers : float32 [count]
            Levels, then scales.
        """
        # Numbers: one code book, if the width stores any, then scales.
        m, n = self.coded_shape(columns)
        levels = self.width.stored_levels
        books = self.width.code_books(numbers[:levels])
        return PackedVectors(codes[None], books, m * n, self.bits), numbers[levels:]


@dataclass(frozen=True, slots=True, eq=False)
class ValuesContent:
    """The content of a `values` block.

    Parameters
    ----------
    block : Values
        The block.
    columns : int
        Columns of its tensor.
    streams : Streams
        The streams that the content is a view of.
    rows, cols : bool mask or None
        Coded rows and columns; None for all.
    codes : PackedVectors
        One vector: all coded elements, row by row.
    scales : float32 [count]
        None, one, or one for each coded row.
    """

    block: Values
    columns: int
    streams: Streams
    rows: Mask | None
    cols: Mask | None
    codes: PackedVectors
    scales: NDArray[np.float32]

    def delta(self, dtype: type[np.floating] = np.float32) -> CodedDelta:
        """Return the delta, dequantized in float32 so that every decoder gets the same bits (level A), in a dtype."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = dequantize_values(self.codes, self.scales, self.block.coded_shape(self.columns))
            return CodedDelta(self.rows, self.cols, values.astype(dtype, copy=False), None)


def dequantize_values(codes: Vectors, scales: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the delta of the coded elements.

    Parameters
    ----------
    codes : Vectors
        One vector: all coded elements, row by row.
    scales : float32 [count]
        None, one, or one for each coded row.
    shape : tuple of int
        Numbers of coded rows and columns.

    Returns
    -------
    float32, of that shape
    """
    # Scale times value in float32, for tensors of F64 as well (section 6.4).
    values = dequantize(codes).reshape(shape)
    return values * scales[:, None] if len(scales) else values

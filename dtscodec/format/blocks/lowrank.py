"""Kind `lowrank`: a sum of components, in bands of one width each (spec section 6.5)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import FormatError
from dtscodec.format.blocks.band import Band, BandFactors, BandPlace, scaled_factors
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
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import Streams, StreamSizes
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import Bits

MAX_COMPONENTS = 65_535
"""Most components of a block."""

MAX_BANDS = 16
"""Most bands of a block."""


@dataclass(frozen=True, slots=True)
class LowRank(SubsetBlock):
    """A sum of components, in bands; see `SubsetBlock` for height, base, rows and cols.

    Parameters
    ----------
    bands : tuple of Band
        1 to 16 bands.
    per_vector : bool
        Whether each vector has its own level table, instead of one for each factor of a band.
    is_dithered : bool
        Whether weights are rounded to bfloat16 by `dtscodec.quantize.dither` (section 6.6), not to nearest.

    Raises
    ------
    ValueError
        There is no band, or more than 16.
    """

    bands: tuple[Band, ...]
    per_vector: bool = False
    is_dithered: bool = False

    kind: ClassVar[str] = "lowrank"
    is_coded: ClassVar[Literal[True]] = True
    has_norm: ClassVar[bool] = True
    tied_to: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not 0 < len(self.bands) <= MAX_BANDS:
            raise ValueError(f"expected 1 to {MAX_BANDS} bands, got {len(self.bands)}")

    @property
    def rank(self) -> int:
        """Number of components of all bands."""
        return sum(band.rank for band in self.bands)

    @property
    def widths(self) -> tuple[Bits, ...]:
        """Bits per code of each band."""
        return tuple(band.bits for band in self.bands)

    def to_json(self, own: BaseRows) -> dict[str, Json]:
        """Return the block without its height; the inverse of `from_json`."""
        document: dict[str, Json] = {"kind": self.kind, "bands": [band.to_json() for band in self.bands]}
        if self.per_vector:
            document["levels"] = "vector"
        if self.is_dithered:
            document["rounding"] = "dithered"
        return document | subset_json(self, own)

    @classmethod
    def from_json(cls, fields: Fields, height: int, own: BaseRows) -> "LowRank":
        """Read a block; the inverse of `to_json`.

        Raises
        ------
        OverflowError
            There are too many components.
        """
        subset = parse_subset(fields, own)
        bands = tuple(Band.from_json(item) for item in fields.take_list("bands", list))
        # Limits are checked before anything is allocated (section 10).
        if sum(band.rank for band in bands) > MAX_COMPONENTS:
            raise OverflowError(f"expected at most {MAX_COMPONENTS} components in a block, got more")
        per_vector, is_dithered = fields.take_flag("levels", "vector"), fields.take_flag("rounding", "dithered")
        return cls(height, *subset, bands, per_vector, is_dithered)

    def check(self, spec: TensorSpec, columns: int, is_only: bool) -> None:
        """See `SubsetBlock`; also check that only weights in bfloat16 are dithered (rule B3)."""
        super(LowRank, self).check(spec, columns, is_only)
        if self.is_dithered and spec.dtype != "BF16":
            raise ValueError(f"expected dithered rounding of BF16 only, got {spec}")

    def number_count(self, columns: int) -> int:
        """Return how many numbers the block has: the norm, levels and scales. All kinds take `columns`."""
        return 1 + sum(band.number_count(self.per_vector) for band in self.bands)

    def band_bytes(self, columns: int) -> tuple[int, ...]:
        """Return the length of the codes in bytes, band by band."""
        m, n = self.coded_shape(columns)
        return tuple(band.rank * (vector_bytes(m, band.bits) + vector_bytes(n, band.bits)) for band in self.bands)

    def stream_sizes(self, columns: int, dtype: DType) -> StreamSizes:
        """Return the lengths of the block's streams."""
        return StreamSizes(self.bitmap_bytes(columns), self.number_count(columns), self.band_bytes(columns))

    def places(self, columns: int, codes_at: int = 0, numbers_at: int = 0) -> Iterator[BandPlace]:
        """Yield the positions of each band.

        Parameters
        ----------
        columns : int
            Columns of the tensor.
        codes_at : int
            Offset of the block's codes, band after band, in bytes.
        numbers_at : int
            Position of the block's first number.
        """
        m, n = self.coded_shape(columns)
        numbers_at += 1  # The norm comes first.
        for band in self.bands:
            # Codes: per component a vector of u, then one of v. Numbers: levels of u, levels of v, scales.
            u_bytes = vector_bytes(m, band.bits)
            stride = u_bytes + vector_bytes(n, band.bits)
            width = band.width
            levels = width.stored_levels * (band.rank if self.per_vector else 1)
            v_levels, scales = numbers_at + levels, numbers_at + 2 * levels
            yield BandPlace(band.bits, band.rank, codes_at, codes_at + u_bytes, stride, numbers_at, v_levels, scales)
            codes_at += band.rank * stride
            numbers_at = scales + band.rank * width.has_scales

    def code_books(self, numbers: NDArray[np.float32], columns: int) -> list[NDArray[np.float32]]:
        """Return views of the levels among the block's numbers: float32 [tables, levels] for bands that have some."""
        return [
            band.width.code_books(numbers[place.u_levels : place.scales])
            for band, place in zip(self.bands, self.places(columns), strict=True)
            if band.width.stored_levels
        ]

    @staticmethod
    def join(norm: float, bands: Sequence[BandFactors]) -> tuple[NDArray[np.float32], tuple[bytes, ...]]:
        """Return numbers and bands of the streams; the inverse of `split`.

        Parameters
        ----------
        norm : float
            Frobenius norm of the delta.
        bands : sequence of BandFactors
            The factors of each band, in the block's order.
        """
        numbers = [np.array([norm], np.float32)]
        packed = []
        for band in bands:
            # The order of `places`.
            numbers += [band.u.levels.ravel(), band.v.levels.ravel(), band.scales]
            # A record per component: its vector of u, then that of v.
            packed.append(np.concatenate([band.u.pack().packed, band.v.pack().packed], axis=1).tobytes())
        return np.concatenate(numbers), tuple(packed)

    def split(self, columns: int, streams: Streams) -> "LowRankContent":
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
            Rules W1, N2, E1 and E2, or a negative norm.
        """
        rows, cols = split_masks(self, columns, streams)
        norm, shape = float(streams.numbers[0]), self.coded_shape(columns)
        # Rule N2.
        if norm < 0:
            raise FormatError("numbers", "norm", f"expected at least 0, got {norm}", "5.2")
        bands = []
        for place, data in zip(self.places(columns), streams.bands, strict=True):
            band = place.view(shape, np.frombuffer(data, np.uint8), streams.numbers)
            bands.append(BandFactors(check_vectors(band.u), check_vectors(band.v), band.scales))
        return LowRankContent(self, columns, streams, rows, cols, norm, bands)


@dataclass(frozen=True, slots=True, eq=False)
class LowRankContent:
    """The content of a `lowrank` block.

    Parameters
    ----------
    block : LowRank
        The block.
    columns : int
        Columns of its tensor.
    streams : Streams
        The streams that the content is a view of.
    rows, cols : bool mask or None
        Coded rows and columns; None for all.
    norm : float
        Frobenius norm of the delta, as stored.
    bands : sequence of BandFactors
        The factors of each band.
    """

    block: LowRank
    columns: int
    streams: Streams
    rows: Mask | None
    cols: Mask | None
    norm: float
    bands: Sequence[BandFactors]

    def delta(self, dtype: type[np.floating] = np.float32) -> CodedDelta:
        """Return the delta, dequantized in float32 or, for tensors of F64, in float64."""
        with np.errstate(over="ignore", invalid="ignore"):
            left, right = scaled_factors(self.bands, dtype)
            # u s [coded rows, r] and v^T [r, coded columns].
            return CodedDelta(self.rows, self.cols, left.T, right)

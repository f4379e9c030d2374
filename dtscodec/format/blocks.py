"""The kinds of block: how a run of rows of one tensor is stored, and how many bytes that takes (spec section 6)."""

from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.format.dtypes import TensorSpec, bits_of, plane_count
from dtscodec.format.primitives.byte_planes import plane_number, plane_sizes
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import ALL_BITS, Bits, Width, as_bits, width_of

MAX_COMPONENTS = 65_535
MAX_BANDS = 16


@dataclass(frozen=True, slots=True)
class BaseRows:
    """Rows of a base tensor: those of `name` from row `first` on."""

    name: str
    first: int

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"expected a first row of at least 0, got {self.first}")


@dataclass(frozen=True, slots=True)
class Same:
    """The base's rows, converted to the tensor's dtype; zeros without a base. No bytes."""

    height: int
    base: BaseRows | None


@dataclass(frozen=True, slots=True)
class Tie:
    """The decoded tensor of another name. No bytes."""

    height: int
    to: str

    @property
    def base(self) -> None:
        """None: a tie is made from no base rows."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Exact bytes, as they are or as byte planes whose stored lengths are given."""

    height: int
    planes: tuple[int, ...] | None = None

    @property
    def base(self) -> None:
        """None: exact bytes need no base."""

    def stored_bytes(self, spec: TensorSpec, columns: int) -> int:
        """Bytes in the arena `raw`.

        Raises
        ------
        ValueError
            The plane lengths do not fit the block (rule P1).
        """
        plain = self.height * columns * bits_of(spec.dtype) // 8
        if self.planes is None:
            return plain
        number = plane_number(plain, plane_count(spec.dtype))
        if number != len(self.planes):
            raise ValueError(f"expected {number} planes, got {len(self.planes)}")
        sizes = plane_sizes(plain, plane_count(spec.dtype))
        if any(not 0 <= length <= size for length, size in zip(self.planes, sizes, strict=True)):
            raise ValueError("expected planes no longer than plain bytes")
        return sum(self.planes)


@dataclass(frozen=True, slots=True)
class _Coded:
    """What the coded kinds share: a base, and how many of the rows and columns are coded (None: all)."""

    height: int
    base: BaseRows | None
    rows: int | None
    cols: int | None

    def coded_shape(self, columns: int) -> tuple[int, int]:
        """Coded rows and columns."""
        return (self.height if self.rows is None else self.rows, columns if self.cols is None else self.cols)

    def bitmap_bytes(self, columns: int) -> int:
        """Bytes in the arena `rows`, before compression."""
        return (0 if self.rows is None else -(-self.height // 8)) + (0 if self.cols is None else -(-columns // 8))

    def check_subsets(self, columns: int) -> None:
        """Raise ValueError unless each subset is neither empty nor whole."""
        for chosen, whole in ((self.rows, self.height), (self.cols, columns)):
            if chosen is not None and not 0 < chosen < whole:
                raise ValueError(f"expected a subset of 1 to {whole - 1} rows or columns, got {chosen}")


@dataclass(frozen=True, slots=True)
class Values(_Coded):
    """One code per element of the delta."""

    bits: Bits
    per_row: bool = False

    def __post_init__(self) -> None:
        as_bits(self.bits)
        if self.per_row and not self.width.has_value_scales:
            scaled = " or ".join(str(bits) for bits in ALL_BITS if width_of(bits).has_value_scales)
            raise ValueError(f"expected scales per row with {scaled} bits only, got {self.bits}")

    @property
    def width(self) -> Width:
        """The width of its codes."""
        return width_of(self.bits)

    def number_count(self, columns: int) -> int:
        """Levels and scales in the arena `numbers`."""
        scales = self.coded_shape(columns)[0] if self.per_row else 1
        return self.width.stored_levels + scales * self.width.has_value_scales

    def band_bytes(self, columns: int) -> list[int]:
        """Bytes in the arena `codes`, band by band."""
        rows, cols = self.coded_shape(columns)
        return [vector_bytes(rows * cols, self.bits)]


@dataclass(frozen=True, slots=True)
class Band:
    """A run of components stored at one width."""

    rank: int
    bits: Bits

    def __post_init__(self) -> None:
        as_bits(self.bits)
        if self.rank < 1:
            raise ValueError(f"expected a rank of at least 1, got {self.rank}")

    @property
    def width(self) -> Width:
        """The width of its codes."""
        return width_of(self.bits)

    def table_count(self, per_vector: bool) -> int:
        """Level tables of each of its two factors."""
        return (self.rank if per_vector else 1) if self.width.stored_levels else 0

    def number_count(self, per_vector: bool) -> int:
        """Levels and scales of the band."""
        return 2 * self.width.stored_levels * self.table_count(per_vector) + self.rank * self.width.has_scales


@dataclass(frozen=True, slots=True)
class LowRank(_Coded):
    """A sum of components, in bands."""

    bands: tuple[Band, ...]
    per_vector: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.bands) <= MAX_BANDS:
            raise ValueError(f"expected 1 to {MAX_BANDS} bands, got {len(self.bands)}")

    @property
    def rank(self) -> int:
        """Components of all bands."""
        return sum(band.rank for band in self.bands)

    def number_count(self, columns: int) -> int:
        """The norm, levels and scales in the arena `numbers`."""
        return 1 + sum(band.number_count(self.per_vector) for band in self.bands)

    def band_bytes(self, columns: int) -> list[int]:
        """Bytes in the arena `codes`, band by band."""
        rows, cols = self.coded_shape(columns)
        return [band.rank * (vector_bytes(rows, band.bits) + vector_bytes(cols, band.bits)) for band in self.bands]


Block: TypeAlias = Same | Tie | Raw | Values | LowRank
Coded: TypeAlias = Values | LowRank

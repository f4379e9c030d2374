"""Kind `raw`: exact bytes, plain or as compressed byte planes (spec sections 5.4 and 6.3)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import FormatError
from dtscodec.format.blocks.base_rows import BaseRows
from dtscodec.format.dtypes import DType, TensorSpec, bits_of, plane_count
from dtscodec.format.primitives.byte_planes import join_planes, plane_number, plane_sizes, split_planes
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import Streams, StreamSizes


@dataclass(frozen=True, slots=True)
class Raw:
    """Exact bytes.

    Parameters
    ----------
    height : int
        Rows of the block.
    planes : tuple of int, optional
        Stored length of each byte plane in bytes; None if the bytes are stored plain.
    """

    height: int
    planes: tuple[int, ...] | None = None

    kind: ClassVar[str] = "raw"
    base: ClassVar[None] = None
    is_coded: ClassVar[Literal[False]] = False
    tied_to: ClassVar[None] = None

    def to_json(self, own: BaseRows) -> dict[str, Json]:
        """Return the block without its height; the inverse of `from_json`."""
        return {"kind": self.kind} if self.planes is None else {"kind": self.kind, "planes": list(self.planes)}

    @classmethod
    def from_json(cls, fields: Fields, height: int, own: BaseRows) -> "Raw":
        """Read a block; the inverse of `to_json`."""
        return cls(height, tuple(fields.take_list("planes", int)) if "planes" in fields else None)

    def check(self, spec: TensorSpec, columns: int, is_only: bool) -> None:
        """Accept any tensor: each can be stored exactly."""

    def stream_sizes(self, columns: int, dtype: DType) -> StreamSizes:
        """Return the lengths of the block's streams.

        Raises
        ------
        ValueError
            The plane lengths do not fit the block (rule P1).
        """
        plain = self._plain_bytes(columns, dtype)
        if self.planes is None:
            return StreamSizes(raw=plain)
        # Rule P1: as many planes as the block has, none longer than its plain bytes.
        number = plane_number(plain, plane_count(dtype))
        if number != len(self.planes):
            raise ValueError(f"expected {number} planes, got {len(self.planes)}")
        sizes = plane_sizes(plain, plane_count(dtype))
        if any(not 0 <= length <= size for length, size in zip(self.planes, sizes, strict=True)):
            raise ValueError("expected planes no longer than plain bytes")
        return StreamSizes(raw=sum(self.planes))

    def _plain_bytes(self, columns: int, dtype: DType) -> int:
        return self.height * columns * bits_of(dtype) // 8

    @staticmethod
    def join(data: NDArray[np.uint8], height: int, dtype: DType) -> tuple["Raw", Streams]:
        """Return a block and streams that hold exact bytes, as planes if that is shorter; the inverse of `split`.

        Parameters
        ----------
        data : uint8 [nbytes]
            The rows of the block.
        height : int
            Number of rows.
        dtype : DType
            Dtype of the elements.
        """
        raw, planes = split_planes(data, plane_count(dtype))
        return Raw(height, planes), Streams(raw=raw)

    def split(self, columns: int, streams: Streams, dtype: DType) -> NDArray[np.uint8]:
        """Return the exact bytes of the block: uint8 [nbytes]; the inverse of `join`.

        Parameters
        ----------
        columns : int
            Columns of the tensor, viewed as a matrix.
        streams : Streams
            The block's streams.
        dtype : DType
            Dtype of the elements.

        Raises
        ------
        FormatError
            A plane is damaged (rule P2).
        """
        if self.planes is None:
            return np.frombuffer(streams.raw, np.uint8)
        try:
            return join_planes(streams.raw, self.planes, self._plain_bytes(columns, dtype), plane_count(dtype))
        except ValueError as error:
            raise FormatError("zstd", "raw", str(error), "5.4") from error

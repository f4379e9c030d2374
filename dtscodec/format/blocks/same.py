"""Kind `same`: rows that equal the base's (spec section 6.1)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from dtscodec.format.blocks.base_rows import BaseRows, base_json, parse_base
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import StreamSizes


@dataclass(frozen=True, slots=True)
class Same:
    """The base's rows, converted to the tensor's dtype; zeros without a base. Takes no bytes but those of the index.

    Parameters
    ----------
    height : int
        Rows of the block.
    base : BaseRows or None
        The rows of the base; None for zeros.
    """

    height: int
    base: BaseRows | None

    kind: ClassVar[str] = "same"
    is_coded: ClassVar[Literal[False]] = False
    tied_to: ClassVar[None] = None

    def to_json(self, own: BaseRows) -> dict[str, Json]:
        """Return the block without its height; the inverse of `from_json`."""
        return {"kind": self.kind} | base_json(self.base, own)

    @classmethod
    def from_json(cls, fields: Fields, height: int, own: BaseRows) -> "Same":
        """Read a block; the inverse of `to_json`."""
        return cls(height, parse_base(fields, own))

    def check(self, spec: TensorSpec, columns: int, is_only: bool) -> None:
        """Accept any tensor. That the base has these rows is checked by `TensorEntry.check_base`."""

    def stream_sizes(self, columns: int, dtype: DType) -> StreamSizes:
        """Return the lengths of the block's streams, which are empty."""
        return StreamSizes()

"""Kind `tie`: a tensor that equals another tensor of the pack (spec section 6.2)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from dtscodec.format.blocks.base_rows import BaseRows
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import StreamSizes


@dataclass(frozen=True, slots=True)
class Tie:
    """A tensor that equals the decoded tensor of another name. Takes no bytes but those of the index.

    Parameters
    ----------
    height : int
        Rows of the block, the only one of its tensor.
    tied_to : str
        Name of the other tensor, which must not be a tie.
    """

    height: int
    tied_to: str

    kind: ClassVar[str] = "tie"
    base: ClassVar[None] = None
    is_coded: ClassVar[Literal[False]] = False

    def to_json(self, own: BaseRows) -> dict[str, Json]:
        """Return the block without its height; the inverse of `from_json`."""
        return {"kind": self.kind, "to": self.tied_to}

    @classmethod
    def from_json(cls, fields: Fields, height: int, own: BaseRows) -> "Tie":
        """Read a block; the inverse of `to_json`."""
        return cls(height, fields.take("to", str))

    def check(self, spec: TensorSpec, columns: int, is_only: bool) -> None:
        """Raise ValueError if the tensor has other blocks (rule B4)."""
        if not is_only:
            raise ValueError("expected a tie to be the only block")

    def stream_sizes(self, columns: int, dtype: DType) -> StreamSizes:
        """Return the lengths of the block's streams, which are empty."""
        return StreamSizes()

"""The pack document as values: tensors, their blocks and the files that travel with them (spec section 4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dtscodec.format.blocks import Block
from dtscodec.format.dtypes import TensorSpec, bits_of
from dtscodec.format.tensor_names import utf8


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the fine-tune and the blocks that it is cut into.

    Raises
    ------
    ValueError
        The blocks do not fit the tensor (rules B1 to B3, T1, T2).
    """

    name: str
    spec: TensorSpec
    blocks: tuple[Block, ...]
    split: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.split <= max(1, len(self.spec.shape)):
            raise ValueError(f"expected a split of 1 to {len(self.spec.shape)} dimensions, got {self.split}")
        if not self.blocks:
            raise ValueError("expected at least one block")
        rows = self.spec.matrix(self.split)[0]
        heights = [block.height for block in self.blocks]
        if len(heights) > 1 and not self.spec.elements:
            raise ValueError(f"expected one block for a tensor without elements, got {len(heights)}")
        if sum(heights) != rows or (len(heights) > 1 and min(heights) < 1):
            raise ValueError(
                f"expected blocks of {rows} rows in all, got {heights if len(heights) < 9 else sum(heights)}"
            )
        for block in self.blocks:
            for rows in (block.height, block.base.first if block.base else 0):
                if rows * self.columns * bits_of(self.spec.dtype) % 8:
                    raise ValueError(f"expected rows that fill whole bytes, got {rows} x {self.columns}")
            block.check(self.spec, self.columns, is_only=len(self.blocks) == 1)

    @property
    def columns(self) -> int:
        """Columns of the tensor seen as a matrix."""
        return self.spec.matrix(self.split)[1]

    @property
    def tied_to(self) -> str | None:
        """Name of the tensor that it equals, if it is tied."""
        return self.blocks[0].tied_to

    def placed(self) -> Iterator[tuple[int, Block]]:
        """Blocks with the first row of each."""
        row = 0
        for block in self.blocks:
            yield row, block
            row += block.height


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """A file that the pack holds: `stored` bytes of the arena `raw`, a zstd frame unless equal to `size`."""

    name: str
    size: int
    stored: int


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that lies beside the base: name and SHA-256 (hex)."""

    name: str
    digest: str


FileEntry: TypeAlias = CarriedFile | NamedFile


@dataclass(frozen=True, slots=True)
class Index:
    """Everything about a pack but its streams."""

    tensors: tuple[TensorEntry, ...]
    prefix: tuple[str, str] = ("", "")
    absent: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()

    def base_names(self) -> list[str]:
        """Names of the base tensors that some block uses, ascending by UTF-8 bytes."""
        used = {base.name for entry in self.tensors for block in entry.blocks if (base := block.base)}
        return sorted(used, key=utf8)

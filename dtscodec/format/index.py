"""The index of a pack: tensors, their blocks, and auxiliary files (spec section 4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from typing import TypeAlias

from dtscodec.errors import BaseMismatchError
from dtscodec.format.blocks import BaseRows, Block
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec, bits_of
from dtscodec.format.naming import utf8
from dtscodec.format.weight_files import DEFAULT_STEM, split_folder


def has_rows_of(spec: TensorSpec, columns: int) -> bool:
    """Return whether a base tensor can be viewed in rows of that length: a product of its last dimensions (R1).

    Parameters
    ----------
    spec : TensorSpec
        Spec of the base tensor.
    columns : int
        Columns of the tensor that is decoded.

    Examples
    --------
    >>> experts = TensorSpec("BF16", (8, 64, 32))
    >>> has_rows_of(experts, 32), has_rows_of(experts, 2048), has_rows_of(experts, 64)
    (True, True, False)
    """
    # From the last dimension on; the product of none is 1.
    products = accumulate(reversed(spec.shape), mul, initial=1)
    return columns in products


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the fine-tune and its blocks.

    Parameters
    ----------
    name : str
        Name in the fine-tune.
    spec : TensorSpec
        Dtype and shape.
    blocks : tuple of Block
        In the order of their rows.
    split : int
        Number of leading dimensions that are rows when the tensor is viewed as a matrix.

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
        # A tensor without dimensions is viewed as 1 x 1; its split is 1 as well.
        if not 1 <= self.split <= max(1, len(self.spec.shape)):
            raise ValueError(f"expected a split of 1 to {len(self.spec.shape)} dimensions, got {self.split}")
        if not self.blocks:
            raise ValueError("expected at least one block")
        # Rule B1: heights add up to the tensor's rows. Rule B2: one block if there are no elements.
        rows = self.spec.matrix(self.split)[0]
        heights = [block.height for block in self.blocks]
        if len(heights) > 1 and not self.spec.elements:
            raise ValueError(f"expected one block for a tensor without elements, got {len(heights)}")
        if sum(heights) != rows or (len(heights) > 1 and min(heights) < 1):
            raise ValueError(
                f"expected blocks of {rows} rows in all, got {heights if len(heights) < 9 else sum(heights)}"
            )
        # Elements of 4 and 6 bits: blocks begin and end at whole bytes.
        for block in self.blocks:
            for rows in (block.height, block.base.first if block.base else 0):
                if rows * self.columns * bits_of(self.spec.dtype) % 8:
                    raise ValueError(f"expected rows that fill whole bytes, got {rows} x {self.columns}")
            block.check(self.spec, self.columns, is_only=len(self.blocks) == 1)

    @property
    def columns(self) -> int:
        """Columns of the tensor, viewed as a matrix."""
        return self.spec.matrix(self.split)[1]

    @property
    def tied_to(self) -> str | None:
        """Name of the tensor that it equals, if it is tied."""
        return self.blocks[0].tied_to

    def placed(self) -> Iterator[tuple[int, Block]]:
        """Yield the first row and the block, for each block."""
        row = 0
        for block in self.blocks:
            yield row, block
            row += block.height

    def check_base(self, specs: Mapping[str, TensorSpec], location: str) -> None:
        """Check that a base has the rows that the blocks use (rules R1 and R2).

        Parameters
        ----------
        specs : mapping of str to TensorSpec
            The base's tensors.
        location : str
            The base, for messages.

        Raises
        ------
        BaseMismatchError
            A base tensor is missing, has too few rows, or another shape or dtype.
        """
        for block in self.blocks:
            if block.base is not None:
                self._check_base_rows(block, block.base, specs.get(block.base.name), location)

    def _check_base_rows(self, block: Block, base: BaseRows, spec: TensorSpec | None, location: str) -> None:
        where = f"{location}: {base.name!r}"
        if spec is None:
            raise BaseMismatchError("base-tensor", where, "expected a tensor of this name, got none", "4.4")
        # Rule R1: rows of as many columns, and those referred to.
        end = base.first + block.height
        if not has_rows_of(spec, self.columns) or end * self.columns > spec.elements:
            wanted = f"expected {end} rows of {self.columns}"
            raise BaseMismatchError("base-tensor", where, f"{wanted}, got {spec}", "4.4")
        # Rule R2: dtypes that can be converted; equal ones suffice for a block that is not coded.
        convertible = {spec.dtype, self.spec.dtype} <= CODED_DTYPES
        if not convertible and (spec.dtype != self.spec.dtype or block.is_coded):
            raise BaseMismatchError("base-tensor", where, f"expected {self.spec.dtype}, got {spec.dtype}", "4.4")


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """An auxiliary file inside the pack.

    Parameters
    ----------
    name : str
        Path relative to the checkpoint's directory.
    size : int
        Length of the file in bytes.
    stored : int
        Bytes in the arena `raw`: a zstd frame unless equal to `size`.
    """

    name: str
    size: int
    stored: int


@dataclass(frozen=True, slots=True)
class NamedFile:
    """An auxiliary file of the base that the fine-tune shares.

    Parameters
    ----------
    name : str
        Path relative to the base's directory.
    digest : str
        SHA-256 of the file, 64 hex digits.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """An auxiliary file inside the pack, as a change of the base's file of the same name.

    Parameters
    ----------
    name : str
        Path relative to the directories of the checkpoint and of the base.
    size : int
        Length of the file in bytes.
    stored : int
        Bytes in the arena `raw`: a zstd frame, with the base's file as prefix.
    digest : str
        SHA-256 of the base's file, 64 hex digits.
    """

    name: str
    size: int
    stored: int
    digest: str


FileEntry: TypeAlias = CarriedFile | NamedFile | ChangedFile


@dataclass(frozen=True, slots=True)
class Index:
    """The index of a pack.

    Parameters
    ----------
    tensors : tuple of TensorEntry
        Names ascending.
    prefix : tuple of str
        How names of counterparts differ from those of the fine-tune; see `dtscodec.format.naming.base_name`.
    absent : tuple of str
        Base tensors that the fine-tune does not have.
    metadata : mapping of str to str
        The safetensors metadata of the fine-tune.
    files : tuple of FileEntry
        Names ascending.
    stem : str
        Name of the weight files in a model directory, without its ending; see `WeightFiles`.
    folders : tuple of str
        Folders of a model directory with weights of their own, ascending. Names of their tensors begin with the folder
        and a slash; see `dtscodec.format.weight_files.split_folder`.
    """

    tensors: tuple[TensorEntry, ...]
    prefix: tuple[str, str] = ("", "")
    absent: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    stem: str = DEFAULT_STEM
    folders: tuple[str, ...] = ()

    def base_names(self) -> list[str]:
        """Return the names of the base tensors that blocks use, ascending by UTF-8 bytes."""
        used = {base.name for entry in self.tensors for block in entry.blocks if (base := block.base)}
        return sorted(used, key=utf8)

    def folder_of(self, name: str) -> str | None:
        """Return the folder of weights that a tensor belongs to; None for one of the model's own weight files.

        Parameters
        ----------
        name : str
            The tensor.
        """
        return split_folder(name, self.folders)[0]

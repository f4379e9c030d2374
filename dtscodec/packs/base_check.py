"""Check that a base has the rows that a pack's blocks are made from (spec section 4.4)."""

from collections.abc import Mapping

from dtscodec.errors import BaseMismatchError
from dtscodec.format.blocks import Block
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry


def check_base_rows(entry: TensorEntry, block: Block, specs: Mapping[str, TensorSpec], location: str) -> None:
    """Raise BaseMismatchError unless the base has the rows that a block is made from (rules R1 and R2).

    Parameters
    ----------
    entry : TensorEntry
    block : Block
        One of its blocks.
    specs : mapping
        The base's tensors.
    location : str
        The base, for messages.
    """
    base = block.base
    if base is None:
        return
    where = f"{location}: {base.name!r}"
    spec = specs.get(base.name)
    if spec is None:
        raise BaseMismatchError("base-tensor", where, "expected a tensor of this name, got none", "4.4")
    rows, columns = spec.matrix(entry.split)
    too_flat = len(spec.shape) < entry.split if entry.spec.shape else bool(spec.shape)
    if too_flat or columns != entry.columns or base.first + block.height > rows:
        wanted = f"expected {base.first + block.height} rows of {entry.columns}"
        raise BaseMismatchError("base-tensor", where, f"{wanted}, got {spec}", "4.4")
    convertible = {spec.dtype, entry.spec.dtype} <= CODED_DTYPES
    if not convertible and (spec.dtype != entry.spec.dtype or block.is_coded):
        raise BaseMismatchError("base-tensor", where, f"expected {entry.spec.dtype}, got {spec.dtype}", "4.4")

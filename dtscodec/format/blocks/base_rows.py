"""Rows of a base tensor that a block is made from, and their JSON (spec section 4.4)."""

from dataclasses import dataclass

from dtscodec.format.names import check_names
from dtscodec.format.primitives.canonical_json import Fields, Json


@dataclass(frozen=True, slots=True)
class BaseRows:
    """Rows of a base tensor, from row `first` on; the block says how many.

    Parameters
    ----------
    name : str
        The base tensor.
    first : int
        Its first row that is used.
    """

    name: str
    first: int

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"expected a first row of at least 0, got {self.first}")


def base_json(base: BaseRows | None, own: BaseRows) -> dict[str, Json]:
    """Return the field `base` of a block, if it needs one; the inverse of `parse_base`.

    Parameters
    ----------
    base : BaseRows or None
        The rows that the block is made from; None for zeros.
    own : BaseRows
        The rows that need not be written: those at the block's own place in its tensor's counterpart.
    """
    if base is None:
        return {"base": None}
    if base.first != own.first:
        return {"base": [base.name, base.first]}
    return {} if base.name == own.name else {"base": base.name}


def parse_base(fields: Fields, own: BaseRows) -> BaseRows | None:
    """Read the base rows of a block; the inverse of `base_json`.

    Raises
    ------
    ValueError
        The field is of no form that the format knows (rule B3), or the name is not valid.
    """
    if "base" not in fields:
        check_names([own.name])  # The index's prefix may have made one that is not valid.
        return own
    value = fields.take_any("base")
    if value is None:
        return None
    name, first = value if isinstance(value, list) and len(value) == 2 else (value, own.first)
    if not isinstance(name, str) or not isinstance(first, int) or isinstance(first, bool):
        raise ValueError(f"expected a name, [name, first row] or null for 'base', got {value!r:.60}")
    check_names([name])
    return BaseRows(name, first)

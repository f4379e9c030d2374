"""The rows of a base tensor that a block uses, and their JSON (spec section 4.4)."""

from dataclasses import dataclass

from dtscodec.format.naming import check_names
from dtscodec.format.primitives.canonical_json import Fields, Json


@dataclass(frozen=True, slots=True)
class BaseRows:
    """Consecutive rows of a base tensor, as many as the block that uses them has.

    Parameters
    ----------
    name : str
        Name of the base tensor.
    first : int
        The first row.

    Raises
    ------
    ValueError
        `first` is negative.
    """

    name: str
    first: int

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"expected a first row of at least 0, got {self.first}")


def base_json(base: BaseRows | None, own: BaseRows) -> dict[str, Json]:
    """Return the field `base` of a block, empty for the default; the inverse of `parse_base`.

    Parameters
    ----------
    base : BaseRows or None
        The rows that the block uses; None for zeros.
    own : BaseRows
        The default: the rows of the counterpart at the block's own position.
    """
    if base is None:
        return {"base": None}
    # Rule I5: the shortest form.
    if base.first != own.first:
        return {"base": [base.name, base.first]}
    return {} if base.name == own.name else {"base": base.name}


def parse_base(fields: Fields, own: BaseRows) -> BaseRows | None:
    """Read the base rows of a block; the inverse of `base_json`.

    Parameters
    ----------
    fields : Fields
        The block's JSON object.
    own : BaseRows
        The default.

    Returns
    -------
    BaseRows or None
        None for zeros.

    Raises
    ------
    ValueError
        The field has an unknown form (rule B3), or the name is not valid.
    """
    if "base" not in fields:
        check_names([own.name])  # The index's prefix may have produced an invalid one.
        return own
    value = fields.take_any("base")
    if value is None:
        return None
    # [name, first row], or a name alone for the same rows.
    name, first = value if isinstance(value, list) and len(value) == 2 else (value, own.first)
    if not isinstance(name, str) or not isinstance(first, int) or isinstance(first, bool):
        raise ValueError(f"expected a name, [name, first row] or null for 'base', got {value!r:.60}")
    check_names([name])
    return BaseRows(name, first)

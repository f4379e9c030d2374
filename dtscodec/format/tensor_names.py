"""Names of tensors: their order, their limits, and the name of a tensor's counterpart in the base."""

from collections.abc import Sequence
from itertools import pairwise

from dtscodec.format.dtypes import MAX_NAME_BYTES


def utf8(name: str) -> bytes:
    """Return the sort key of a name: its UTF-8 bytes."""
    return name.encode("utf-8")


def base_name(name: str, prefix: tuple[str, str]) -> str:
    """Return the name that a tensor has in the base unless its block names another (spec section 4.4).

    Parameters
    ----------
    name : str
        Name in the fine-tune.
    prefix : tuple of str
        A leading part of names in the fine-tune, and what stands in its place in the base.

    Examples
    --------
    >>> base_name("bert.pooler", ("bert.", "")), base_name("pooler", ("bert.", ""))
    ('pooler', 'pooler')
    """
    ours, theirs = prefix
    return theirs + name[len(ours) :] if name.startswith(ours) else name


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError unless names are valid, unique and ascending (rule I4)."""
    keys = [utf8(name) for name in names]
    for name, key in zip(names, keys, strict=True):
        if not 0 < len(key) <= MAX_NAME_BYTES or name == "__metadata__":
            raise ValueError(f"expected a name of 1 to {MAX_NAME_BYTES} bytes, got {name!r:.60}")
    for first, second in pairwise(keys):
        if first >= second:
            raise ValueError(f"expected names unique and ascending, got {second!r:.60} after {first!r:.60}")

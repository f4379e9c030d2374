"""Names of tensors and of auxiliary files: their order, limits and validity (spec sections 4.1, 4.4, 4.5)."""

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
        A leading part of names in the fine-tune, and the part that replaces it in the base.

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
    # Strictly ascending, and therefore unique.
    for first, second in pairwise(keys):
        if first >= second:
            raise ValueError(f"expected names unique and ascending, got {second!r:.60} after {first!r:.60}")


MAX_FILES = 2**16
MAX_FILE_BYTES = 2**30
"""Largest size of one file, and of all files together, in bytes."""
MIN_PREFIX_BYTES, MAX_CHANGED_BYTES = 8, 2**26
"""Smallest file of the base that can be a prefix, and largest file that is changed or a prefix, in bytes."""

FILE_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab", ".spm")
"""Permitted suffixes of auxiliary files: configuration and tokenizers, never code."""


def valid_file_name(name: str) -> bool:
    r"""Return whether a file of this name may be carried (spec section 4.5, F1).

    >>> valid_file_name("1_Pooling/config.json"), valid_file_name("../config.json"), valid_file_name("run.py")
    (True, False, False)
    """
    parts = name.split("/")
    if not name.endswith(FILE_SUFFIXES) or is_shard_index(parts[-1]):
        return False
    return all(map(is_valid_component, parts))


def is_shard_index(name: str) -> bool:
    """Return whether a file of this name, without its directory, is an index of shards, perhaps of a variant.

    >>> is_shard_index("model.safetensors.index.json"), is_shard_index("model.safetensors.index.fp16.json")
    (True, True)
    >>> is_shard_index("tokenizer.json"), is_shard_index("index.json")
    (False, False)
    """
    return ".index." in name and name.endswith(".json")


def is_valid_component(part: str) -> bool:
    """Return whether a component of a path is valid (spec section 4.5, F1).

    It is not empty, does not start with a dot, and has no backslash, colon, control character or lone surrogate.

    >>> is_valid_component("2_Dense"), is_valid_component(".."), is_valid_component("c:")
    (True, False, False)
    """
    return (
        bool(part)
        and not part.startswith(".")
        and not any(c in "\\:" or c < " " or "\ud800" <= c <= "\udfff" for c in part)
    )

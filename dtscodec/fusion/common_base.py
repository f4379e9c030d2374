"""Checks that packs have one base in common, and that a base is theirs."""

from collections.abc import Sequence

from dtscodec.checkpoints.base import Base
from dtscodec.errors import BaseMismatchError, Remedy
from dtscodec.packs.pack import Pack


def check_common_base(packs: Sequence[Pack]) -> None:
    """Refuse packs that have no base tensor in common, such as those of different architectures.

    Parameters
    ----------
    packs : sequence of Pack
        The packs.

    Raises
    ------
    BaseMismatchError
        They have none.
    """
    used = [(pack, set(pack.index.base_names())) for pack in packs]
    (first, names), *others = [(pack, names) for pack, names in used if names] or [(packs[0], set[str]())]
    for pack, more in others:
        if not names & more:
            ours, theirs = name_of_base(first), name_of_base(pack)
            detail = f"expected packs of one base, got one of {theirs} and {place_of(first)} of {ours}"
            raise BaseMismatchError("base-digest", place_of(pack), f"{detail}, with no tensor in common", "7")


def check_leaf(base: Base, name: str, leaf: bytes, expected: bytes) -> None:
    """Refuse a base with a tensor whose leaf does not begin as the packs' leaf does.

    Parameters
    ----------
    base : Base
        The base.
    name : str
        The tensor.
    leaf : bytes
        Its leaf.
    expected : bytes
        The first bytes of the leaf in the packs.

    Raises
    ------
    BaseMismatchError
        The leaf differs.
    """
    if not leaf.startswith(expected):
        detail = f"expected a leaf of {expected.hex()}, got {leaf[: len(expected)].hex()}"
        raise BaseMismatchError(
            "base-leaf", f"{base.location}: {name!r}", detail, "7", Remedy("name the packs' own base")
        )


def name_of_base(pack: Pack) -> str:
    """Return the name of a pack's base, for messages."""
    base = pack.summary.base
    return "none" if base is None else f"{base.repo or 'the base'} {base.digest[:12]}"


def place_of(pack: Pack) -> str:
    """Return the path of a pack, for messages."""
    return str(pack.path or "pack")

"""Names of the same tensor in the fine-tunes of a merge, and in their base."""

from collections.abc import Mapping

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.checkpoints.names.name_matching import match_names
from dtscodec.errors import BaseMismatchError, DtsError, MergeError, Remedy

_SAVE_ALL = Remedy("save all of them with transformers' save_pretrained, which writes the layout of the hub")


def names_in_base(first: Checkpoint, base: Checkpoint) -> Mapping[str, str | None]:
    """Map names of the first fine-tune to names of the base.

    Parameters
    ----------
    first, base : Checkpoint
        The first fine-tune, and the pre-trained base.

    Raises
    ------
    BaseMismatchError
        The base is of another architecture.
    MergeError
        Its experts have another layout.
    """
    try:
        match = match_names(first.specs, base.specs, aliases=first.aliases)
    except BaseMismatchError as error:
        remedy = Remedy("name the right base")
        raise BaseMismatchError(error.reason, base.location, error.detail, error.section, remedy) from error
    _check_layout(match, base.location, first.location)
    return match.counterpart


def names_as_in(first: Checkpoint, other: Checkpoint) -> dict[str, str]:
    """Map names of the first fine-tune to those of another; names that only the other has map to themselves.

    Parameters
    ----------
    first, other : Checkpoint
        Two fine-tunes.

    Raises
    ------
    MergeError
        They are of different architectures, or their experts have different layouts.
    """
    if other is first:
        return {name: name for name in first.specs}
    try:
        match = match_names(other.specs, first.specs, aliases=other.aliases)
    except BaseMismatchError as error:
        detail = f"expected the architecture of {first.location}, got another; {error.detail}"
        raise MergeError(f"{other.location}: {detail}") from error
    except DtsError as error:
        raise MergeError(f"{other.location}: {error.problem}", error.remedy) from error
    _check_layout(match, other.location, first.location)
    own = {name: name for name in other.specs if match.counterpart[name] is None and name not in first.specs}
    return own | {theirs: name for name, theirs in match.counterpart.items() if theirs is not None}


def _check_layout(match: NameMatch, where: str, first: str) -> None:
    """Refuse experts that are fused in one checkpoint and split or transposed in the other: they cannot be merged."""
    if odd := sorted({*match.parts, *match.transposed}):
        detail = f"expected experts in the layout of {first}, got another, such as that of {odd[0]!r}"
        raise MergeError(f"{where}: {detail}", _SAVE_ALL)

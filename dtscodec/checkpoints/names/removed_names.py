"""Names of tied tensors that a safetensors file does not hold, because another name holds the same tensor.

`safetensors.torch.save_model` leaves them out, and lists them in the file's metadata: removed name -> remaining name.
Which name remains depends on the library, so that a base may have the one and a fine-tune the other.
"""

from collections.abc import Mapping
from dataclasses import replace

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.format.dtypes import TensorSpec


def removed_names(specs: Specs, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return removed name -> remaining name.

    Parameters
    ----------
    specs : mapping
        Specs by name.
    metadata : mapping of str to str
        The file's metadata. Its other entries, such as ``format``, name no tensors.

    Examples
    --------
    >>> from dtscodec.format.dtypes import TensorSpec
    >>> removed_names({"head": TensorSpec("F32", (2, 2))}, {"format": "pt", "embed": "head"})
    {'embed': 'head'}
    """
    return {removed: name for removed, name in metadata.items() if name in specs and removed not in specs}


def with_removed(specs: Specs, removed: Mapping[str, str]) -> dict[str, TensorSpec]:
    """Return specs that include those of removed names.

    Parameters
    ----------
    specs : mapping
        Specs by name.
    removed : mapping
        Removed name -> remaining name.
    """
    return {**specs, **{name: specs[remaining] for name, remaining in removed.items()}}


def without_removed(match: NameMatch, removed: Mapping[str, str], base_removed: Mapping[str, str]) -> NameMatch:
    """Return a match of names among which were removed ones in terms of the names that files hold.

    A tensor without a counterpart of its own name has that of a removed name.

    Parameters
    ----------
    match : NameMatch
        The match of all names.
    removed, base_removed : mapping
        Removed name -> remaining name, of the fine-tune and of the base.
    """
    if not removed and not base_removed:
        return match
    found = {name: base_removed.get(other, other) if other else None for name, other in match.counterpart.items()}
    counterpart = {name: other for name, other in found.items() if name not in removed}
    for name, remaining in removed.items():
        if not counterpart[remaining] and remaining not in match.parts:
            counterpart[remaining] = found[name]
    used = {*counterpart.values(), *(part.name for parts in match.parts.values() for part in parts)}
    # The file lacks what only a removed name refers to.
    shared = {other for name in removed if (other := found[name]) and other not in used}
    absent = {name for name in (*match.absent, *shared) if name not in base_removed and name not in used}
    return replace(match, counterpart=counterpart, absent=tuple(sorted(absent)), shared=frozenset(shared))

"""Why a tensor is stored exactly or coded without a base, as far as the pack, and its base if given, reveal."""

from collections.abc import Container

from dtscodec.format.blocks import Raw
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.index import TensorEntry
from dtscodec.format.names import base_name
from dtscodec.packs.pack import Pack


def reason(pack: Pack, entry: TensorEntry, base_names: Container[str] | None) -> str | None:
    """Why a tensor, or a part of it, is stored otherwise than as a difference; None if it is not.

    Parameters
    ----------
    pack : Pack
    entry : TensorEntry
        One of its tensors.
    base_names : container of str, optional
        Names of the base's tensors; without them nobody knows which exact tensors are new.
    """
    if any(block.is_coded and block.base is None for block in entry.blocks):
        return "new: not in the base, so coded by itself"
    raw = [block for block in entry.blocks if isinstance(block, Raw)]
    if not raw:
        return None
    some = "" if len(raw) == len(entry.blocks) else "some rows "
    if entry.spec.dtype not in CODED_DTYPES:
        return f"{some}exact: {entry.spec.dtype} is never coded"
    if not entry.spec.shape:
        return f"{some}exact: a single number"
    if base_names is None:
        return f"{some}exact: new, no smaller if coded, or on request"
    if base_name(entry.name, pack.index.prefix) not in base_names:
        return f"{some}exact: new, not in the base"
    return f"{some}exact: no smaller if coded, or on request"

"""Counterparts that consist of rows of several base tensors, or of some rows of one: reading and joining them."""

from collections import OrderedDict
from weakref import WeakKeyDictionary

import numpy as np

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.names.expert_layouts import Parts
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec

RECENT = 2
"""Number of base tensors that stay in memory: names of split experts alternate between two fused tensors."""

_recent: "WeakKeyDictionary[Base, OrderedDict[str, tuple[Bytes, bytes]]]" = WeakKeyDictionary()


def read_parts(base: Base, parts: Parts, spec: TensorSpec) -> tuple[StoredTensor, dict[str, bytes]]:
    """Return the counterpart that consists of some parts, and the leaves of their base tensors by name.

    Parameters
    ----------
    base : Base
        The base.
    parts : Parts
        Its rows, in the order of the tensor's; they are of one dtype.
    spec : TensorSpec
        Spec of the tensor whose counterpart it is: its shape, and columns as its last dimension.
    """
    leaves: dict[str, bytes] = {}
    pieces: list[Bytes] = []
    for part in parts:
        data, leaves[part.name] = _read(base, part.name, is_whole=len(parts) > 1)
        # Rows of as many elements as the tensor's last dimension has.
        row = spec.shape[-1] * base.specs[part.name].nbytes // max(1, base.specs[part.name].elements)
        pieces.append(data[part.first * row : (part.first + part.height) * row])
    dtype = base.specs[parts[0].name].dtype
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return StoredTensor(parts[0].name, TensorSpec(dtype, spec.shape), joined), leaves


def _read(base: Base, name: str, is_whole: bool) -> tuple[Bytes, bytes]:
    """Return a base tensor and its leaf. A tensor of which many others use some rows is not read again for each."""
    if is_whole:
        return base.read_with_leaf(name)
    recent = _recent.setdefault(base, OrderedDict())
    if name not in recent:
        recent[name] = base.read_with_leaf(name)
        if len(recent) > RECENT:
            recent.popitem(last=False)
    recent.move_to_end(name)
    return recent[name]

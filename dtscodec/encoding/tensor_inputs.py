"""Both checkpoints as the input of tensor tasks, which workers open again by their paths."""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.checkpoints.known_leaves import KnownLeaf
from dtscodec.checkpoints.names.expert_layouts import Parts
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.base_parts import read_parts
from dtscodec.encoding.config import EncodeConfig
from dtscodec.errors import CheckpointError, EncodeError, Remedy
from dtscodec.format.dtypes import DType
from dtscodec.format.naming import is_shard_index
from dtscodec.storage.open_file import Access

CheckpointPlace: TypeAlias = "tuple[str, Path | None]"
"""Location of a checkpoint, and the staging folder of its ranges."""

Counterpart: TypeAlias = str | Parts | None
"""A base tensor, rows of base tensors, or nothing."""

LeavesByName: TypeAlias = Mapping[str, KnownLeaf]
"""Leaves of base tensors that have been hashed before, by name."""


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor and its counterpart.

    Parameters
    ----------
    fine : StoredTensor
        The tensor.
    base : StoredTensor or None
        Its counterpart; None if it is new.
    parts : Parts
        The rows of base tensors that the counterpart was joined from; empty if it is one base tensor.
    leaves : mapping of str to bytes
        Leaves of the base tensors that were read, by name.
    """

    fine: StoredTensor
    base: StoredTensor | None = None
    parts: Parts = ()
    leaves: Mapping[str, bytes] = field(default_factory=dict)


class TensorInputs:
    """Both checkpoints and the settings: all that tensor tasks read. Pickled, it is opened again in another process.

    Parameters
    ----------
    fine : Checkpoint
        The fine-tune.
    base : Base
        The base.
    counterpart : mapping
        For each tensor of the fine-tune the base tensor that it is encoded against, rows of several, or None.
    config : EncodeConfig
        Settings of the encode.
    companions : frozenset of str
        Tensors of the fine-tune that are companions of quantized weights, and stored exactly.
    encode : str, optional
        Identifier of the encode. A worker that outlives it must open files afresh, since they may have changed.
    """

    def __init__(
        self,
        fine: Checkpoint,
        base: Base,
        counterpart: Mapping[str, Counterpart],
        config: EncodeConfig,
        companions: frozenset[str] = frozenset(),
        encode: str | None = None,
    ) -> None:
        self.fine, self.base, self.counterpart, self.config = fine, base, counterpart, config
        self.companions = companions
        self._encode = encode or uuid.uuid4().hex

    def only(self, name: str) -> "TensorInputs":
        """Return the inputs of one tensor: a task in another process does not carry the names of all.

        Parameters
        ----------
        name : str
            Name of the tensor in the fine-tune.
        """
        counterpart, companions = {name: self.counterpart[name]}, self.companions & {name}
        return TensorInputs(self.fine, self.base, counterpart, self.config, companions, self._encode)

    def __reduce__(self) -> "tuple[object, tuple[object, ...]]":
        # Pickles carry the places of both checkpoints, and workers open the files there.
        for checkpoint in (self.fine, self.base.checkpoint):
            if checkpoint.directory is None:
                detail = "expected files, got tensors in memory, which workers cannot read"
                raise EncodeError(f"{checkpoint.location}: {detail}", Remedy("save them, or use no workers"))
            if isinstance(checkpoint, PackedCheckpoint) and checkpoint.pack_id is not None:
                detail = "expected a checkpoint that workers can open, got a chain of packs"
                raise EncodeError(f"{checkpoint.location}: {detail}", Remedy("decode it first, or use no workers"))
        places = _absolute_place(self.fine), _absolute_place(self.base.checkpoint)
        settings = dict(self.counterpart), self.config, self.companions
        return _reopened, (self._encode, *places, self.base.dequantized, *settings)

    def read(self, name: str, known: LeavesByName) -> TensorPair:
        """Return a tensor and its counterpart.

        Parameters
        ----------
        name : str
            Name of the tensor in the fine-tune.
        known : mapping of str to KnownLeaf
            Leaves of the base tensors of its counterpart that have been hashed before.
        """
        other = self.counterpart[name]
        fine = StoredTensor(name, self.fine.specs[name], self.fine.read(name))
        # The base need not hash these tensors again.
        for base_name, leaf in known.items():
            self.base.learn_leaf(base_name, leaf)
        if other is None:
            return TensorPair(fine)
        if isinstance(other, tuple):
            base, leaves = read_parts(self.base, other, fine.spec)
            return TensorPair(fine, base, other, leaves)
        data, found = self.base.read_with_leaf(other)
        return TensorPair(fine, StoredTensor(other, self.base.specs[other], data), (), {other: found})


def _absolute_place(checkpoint: Checkpoint) -> CheckpointPlace:
    """Return a checkpoint's place as processes with other working directories name it."""
    location, staging = checkpoint.location, checkpoint.staging
    # The weights of folders are opened by the directory, or by an index in it.
    if checkpoint.is_directory and checkpoint.folders and not is_shard_index(location):
        location = str(checkpoint.directory)
    return location if "://" in location else os.path.abspath(location), staging and staging.absolute()


def _reopened(
    encode: str,
    fine: CheckpointPlace,
    base: CheckpointPlace,
    dequantized: DType | None,
    counterpart: dict[str, Counterpart],
    config: EncodeConfig,
    companions: frozenset[str],
) -> TensorInputs:
    """Return the inputs in a worker.

    Raises
    ------
    CheckpointError
        The checkpoints cannot be opened there.
    """
    return TensorInputs(*_opened(encode, fine, base, dequantized), counterpart, config, companions, encode)


@lru_cache(maxsize=1)
def _opened(
    encode: str, fine: CheckpointPlace, base: CheckpointPlace, dequantized: DType | None
) -> tuple[Checkpoint, Base]:
    """Open both checkpoints in a worker. Those of the previous encode leave the cache, and are closed then."""
    try:
        (fine_path, fine_access), (base_path, base_access) = _local_place(fine), _local_place(base)
        return open_checkpoint(fine_path, fine_access), Base(base_path, base_access, dequantize=dequantized)
    except CheckpointError as error:
        remedy = Remedy("workers read the same paths, so keep checkpoints where each of them finds them")
        raise CheckpointError(f"{error.problem} (by a worker on {socket.gethostname()})", remedy) from error


def _local_place(place: CheckpointPlace) -> tuple[str, Access]:
    """Return a place without its staging folder if that is on another machine, which then fetches by itself."""
    location, staging = place
    return location, Access(staging if staging is not None and staging.is_dir() else None)

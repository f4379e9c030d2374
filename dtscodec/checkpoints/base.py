"""A base checkpoint, with its tensors checked against the digests that packs hold (spec section 7)."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from types import TracebackType

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.checkpoints.directories.open_directory import is_chosen
from dtscodec.checkpoints.known_leaves import KnownLeaf, KnownLeaves
from dtscodec.checkpoints.merged_base import merge_description
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.quantized.dequantized_checkpoint import (
    DequantizedCheckpoint,
    HowToDequantize,
    read_dequantized,
)
from dtscodec.errors import NAME_BASE, BaseMismatchError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.summary import BaseRef
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.open_file import BY_RANGE, Access


class Base:
    """A base checkpoint, each tensor of which is checked on first use.

    Each tensor is hashed once in the life of a `Base`; tensors of files are hashed once in the life of the process, and
    again after the file has changed. A mapping must not change while it is in use.

    Parameters
    ----------
    source : path, mapping or Checkpoint
        The base. An open `Checkpoint` remains its owner's to close; other sources are opened, and closed by `close`.
    access : Access
        As for `open_checkpoint`.
    dequantize : bool or {"BF16", "F16", "F32"}, optional
        Dtype to which the weights of a quantized base are dequantized (spec section 7.1). True is the dtype of its
        configuration, else bfloat16. Plain weights, and weights of other schemes, are read as stored.
    pack : str, optional
        Id of an exact pack that decodes to this checkpoint, for the packs that will be made against it. That of a chain
        is known.

    Raises
    ------
    CheckpointError
        The base cannot be opened, or the description of its quantized weights is not valid.
    """

    def __init__(
        self,
        source: "Source | Checkpoint",
        access: Access = BY_RANGE,
        *,
        dequantize: HowToDequantize = None,
        pack: str | None = None,
    ) -> None:
        with ExitStack() as stack:
            if isinstance(source, (str, os.PathLike, Mapping, Sequence)):
                opened: Checkpoint = stack.enter_context(open_checkpoint(source, access))
            else:
                opened = source
            self.checkpoint = read_dequantized(opened, dequantize)
            self._stack = stack.pop_all()
        self._leaves = KnownLeaves()
        self._pack = pack or (self.checkpoint.pack_id if isinstance(self.checkpoint, PackedCheckpoint) else None)

    def reference(self, digest: bytes) -> BaseRef:
        """Return the pack's reference to this base: its digest and, for a model of the Hub, repository and commit.

        Parameters
        ----------
        digest : bytes
            The base digest, 32 bytes.
        """
        found = replace(self._place_on_hub(digest), pack=self._pack)
        return replace(found, dequantized=self.dequantized) if self.dequantized else found

    def _place_on_hub(self, digest: bytes) -> BaseRef:
        directory = self.checkpoint.directory
        if not isinstance(directory, HubPath) or directory.path or not is_chosen(self.checkpoint):
            return BaseRef(digest.hex())
        return BaseRef(digest.hex(), directory.repo, directory.commit)

    @property
    def dequantized(self) -> DType | None:
        """Dtype of the weights of a quantized base that is read dequantized; None for a base read as it is stored."""
        return self.checkpoint.dtype if isinstance(self.checkpoint, DequantizedCheckpoint) else None

    def dequantize(self, how: HowToDequantize) -> "Base":
        """Return the base dequantized, as for `Base`, or itself if it is so already. The result need not be closed."""
        found = read_dequantized(self.checkpoint, how)
        return self if found is self.checkpoint else Base(found)

    @property
    def made_by(self) -> str | None:
        """Method and options of the merge that made this base; None for a base that was not merged by dtscodec."""
        return merge_description(self.checkpoint.metadata)

    @property
    def location(self) -> str:
        """Name of the base, for messages."""
        return self.checkpoint.location

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtype and shape of every tensor, names ascending."""
        return self.checkpoint.specs

    def read(self, name: str, expect: bytes | None = None) -> Bytes:
        """Return the bytes of a tensor: uint8 [nbytes], fresh or a read-only view.

        Parameters
        ----------
        name : str
            The tensor.
        expect : bytes, optional
            The first 4 to 32 bytes of the tensor's leaf; without them the tensor is not checked.

        Raises
        ------
        BaseMismatchError
            There is no such tensor, or its leaf differs.
        CheckpointError
            The tensor cannot be read.
        """
        self._check_name(name)
        if expect is None:
            return self.checkpoint.read(name)
        if not 4 <= len(expect) <= 32:
            raise ValueError(f"expected 4 to 32 bytes of a leaf, got {len(expect)}")
        data, found = self.read_with_leaf(name)
        if not found.startswith(expect):
            detail = f"expected a leaf of {expect.hex()}, got {found[: len(expect)].hex()}"
            where = f"{self.location}: {name!r}"
            raise BaseMismatchError("base-leaf", where, detail, "7", NAME_BASE)
        return data

    def leaf(self, name: str) -> bytes:
        """Return the leaf of a tensor, which is read only if its leaf is not known.

        Parameters
        ----------
        name : str
            The tensor.

        Raises
        ------
        BaseMismatchError
            There is no such tensor.
        CheckpointError
            The tensor cannot be read.
        """
        self._check_name(name)
        known = self._stored_leaf(name) or self._leaves.find(name, self.checkpoint.signature(name))
        return known or self.read_with_leaf(name)[1]

    def digest(self, names: Iterable[str]) -> bytes:
        """Return the base digest over some tensors.

        Parameters
        ----------
        names : iterable of str
            The tensors.

        Raises
        ------
        BaseMismatchError, CheckpointError
            As for `leaf`.
        """
        return base_digest({name: self.leaf(name) for name in names})

    def close(self) -> None:
        """Close the checkpoint, unless it was open before."""
        self._stack.close()

    def __enter__(self) -> "Base":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_name(self, name: str) -> None:
        if name not in self.specs:
            where = f"{self.location}: {name!r}"
            raise BaseMismatchError("base-tensor", where, "expected a tensor of this name, got none", "4.4")

    def read_with_leaf(self, name: str) -> tuple[Bytes, bytes]:
        """Return the bytes of a tensor and its leaf, reading the tensor once.

        Parameters
        ----------
        name : str
            The tensor.

        Raises
        ------
        BaseMismatchError
            There is no such tensor.
        CheckpointError
            The tensor cannot be read.
        """
        self._check_name(name)
        # An exact pack checks its own leaves.
        if (stored := self._stored_leaf(name)) is not None:
            return self.checkpoint.read(name), stored
        # A known leaf is valid if the file was the same before and after reading.
        before = self.checkpoint.signature(name)
        data = self.checkpoint.read(name)
        if (found := self._leaves.find(name, before)) is None or self.checkpoint.signature(name) != before:
            found = leaf(self.specs[name], data)
            if self.checkpoint.signature(name) == before:
                self._leaves.store(name, before, found)
        return data, found

    def _stored_leaf(self, name: str) -> bytes | None:
        return self.checkpoint.leaf(name) if isinstance(self.checkpoint, PackedCheckpoint) else None

    def known_leaf(self, name: str) -> KnownLeaf | None:
        """Return the leaf of a tensor for `learn_leaf` in another process, or None if it is not known.

        Parameters
        ----------
        name : str
            The tensor.
        """
        signature = self.checkpoint.signature(name)
        found = self._leaves.find(name, signature)
        return None if found is None else (signature, found)

    def learn_leaf(self, name: str, known: KnownLeaf) -> None:
        """Store the leaf that `known_leaf` returned in another process. It is valid while the file is unchanged."""
        self._leaves.learn(name, known)


def as_base(
    base: "Source | Base", access: Access = BY_RANGE, dequantize: HowToDequantize = None
) -> AbstractContextManager[Base]:
    """Return a context in which a base is open; a `Base` remains its owner's to close.

    Parameters
    ----------
    base : path, mapping or Base
        The base.
    access : Access
        As for `open_checkpoint`.
    dequantize : bool or {"BF16", "F16", "F32"}, optional
        As for `Base`.

    Raises
    ------
    CheckpointError
        As for `Base`.
    """
    if not isinstance(base, Base):
        return Base(base, access, dequantize=dequantize)
    return nullcontext(base.dequantize(dequantize))

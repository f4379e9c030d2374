"""A base checkpoint whose tensors are checked against the digests that packs hold (spec section 7)."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.content_digest import base_digest, leaf
from dtscodec.checkpoints.open import is_model_of, open_checkpoint
from dtscodec.errors import NAME_BASE, BaseMismatchError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.summary import BaseRef
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.open_file import BY_RANGE, Access

MADE_BY, MADE_OF = "dtscodec_merge", "dtscodec_merge_of"
"""Keys of a merged base's metadata: method with options, and names of the fine-tunes in JSON (spec section 14)."""
MAX_MADE_BY = 500
"""Characters that a pack repeats of it: a checkpoint from elsewhere may hold anything."""

Signature = tuple[int | str, ...]
KnownLeaf = tuple[Signature | None, bytes]
"""A leaf, and the signature of the content that it was taken of."""

_RECENT_NS = 1_000_000_000
"""A file changed so lately may change again within the resolution of its time stamp; its leaves are not cached."""

_leaves: dict[Signature, bytes] = {}
"""Leaves of files, for the life of the process."""


class Base:
    """A base checkpoint whose tensors are checked when they are first used.

    Each tensor is hashed once in the life of a `Base`, tensors of files once in the life of the process. A file
    that changed is hashed again; a mapping must not change while it is in use.

    Parameters
    ----------
    source : path, mapping or Checkpoint
        The base. A `Checkpoint` stays its owner's to close; anything else is closed by `close`.
    access : Access
        As for `open_checkpoint`.

    Raises
    ------
    CheckpointError
        It cannot be opened.
    """

    def __init__(self, source: "Source | Checkpoint", access: Access = BY_RANGE) -> None:
        if isinstance(source, (str, os.PathLike, Mapping)):
            self.checkpoint: Checkpoint = open_checkpoint(source, access)
            self._owned = True
        else:
            self.checkpoint = source
            self._owned = False
        self._leaves: dict[str, KnownLeaf] = {}

    def reference(self, digest: bytes) -> BaseRef:
        """Return what a pack records of the base: its digest and, if it is on the Hub, repository and commit."""
        directory = self.checkpoint.directory
        if not isinstance(directory, HubPath) or directory.path or not is_model_of(self.checkpoint, directory):
            return BaseRef(digest.hex())
        return BaseRef(digest.hex(), directory.repo, directory.commit)

    @property
    def made_by(self) -> str | None:
        """Method and options of the merge that made it; None for other bases."""
        text = self.checkpoint.metadata.get(MADE_BY, "")
        return text if 0 < len(text) <= MAX_MADE_BY and text.isprintable() else None

    @property
    def location(self) -> str:
        """Its name, for messages."""
        return self.checkpoint.location

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtype and shape of every tensor, names ascending."""
        return self.checkpoint.specs

    def read(self, name: str, expect: bytes | None = None) -> Bytes:
        """The bytes of a tensor: uint8 [nbytes], fresh or a read-only view.

        Parameters
        ----------
        name : str
            The tensor.
        expect : bytes, optional
            The first 4 to 32 bytes of its leaf. Without them nothing is checked.

        Raises
        ------
        BaseMismatchError
            There is no such tensor, or its leaf is another.
        CheckpointError
            It cannot be read.
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
        """The leaf of a tensor, read only if it is not known yet.

        Raises
        ------
        BaseMismatchError
            There is no such tensor.
        CheckpointError
            It cannot be read.
        """
        self._check_name(name)
        known = self._known(name, self.checkpoint.signature(name))
        return known or self.read_with_leaf(name)[1]

    def digest(self, names: Iterable[str]) -> bytes:
        """The digest over the tensors of these names."""
        return base_digest({name: self.leaf(name) for name in names})

    def close(self) -> None:
        """Close what was opened for this."""
        if self._owned:
            self.checkpoint.close()

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
        """The bytes of a tensor, and its leaf, from one reading.

        Raises
        ------
        BaseMismatchError
            There is no such tensor.
        CheckpointError
            It cannot be read.
        """
        self._check_name(name)
        # The leaf is known if the file was the same before and after.
        before = self.checkpoint.signature(name)
        data = self.checkpoint.read(name)
        if (found := self._known(name, before)) is None or self.checkpoint.signature(name) != before:
            found = leaf(self.specs[name], data)
            self._store(name, before, found)
        return data, found

    def known_leaf(self, name: str) -> KnownLeaf | None:
        """The leaf of a tensor and the content it was taken of, for `learn_leaf`; None if it must be read for that."""
        signature = self.checkpoint.signature(name)
        found = self._known(name, signature)
        return None if found is None else (signature, found)

    def learn_leaf(self, name: str, known: KnownLeaf) -> None:
        """Store a leaf that `known_leaf` returned in another process; it counts only while the file is the same."""
        self._leaves[name] = known

    def _known(self, name: str, signature: Signature | None) -> bytes | None:
        known, found = self._leaves.get(name, (None, b""))
        if found and known == signature:
            return found
        return _leaves.get(signature) if signature is not None else None

    def _store(self, name: str, before: Signature | None, found: bytes) -> None:
        """Store a leaf, if the file stayed as it was while it was read."""
        if self.checkpoint.signature(name) != before:
            return
        self._leaves[name] = (before, found)
        if before is not None and time.time_ns() - int(before[3]) > _RECENT_NS:
            _leaves[before] = found


def as_base(base: "Source | Base", access: Access = BY_RANGE) -> AbstractContextManager[Base]:
    """A context in which the base is open. A `Base` stays its owner's to close."""
    return nullcontext(base) if isinstance(base, Base) else Base(base, access)

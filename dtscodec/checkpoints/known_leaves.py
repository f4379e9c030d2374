"""Leaves of base tensors that have been hashed before, valid while the files are unchanged."""

import time

from dtscodec.checkpoints.checkpoint import Signature

KnownLeaf = tuple[Signature | None, bytes]
"""A leaf, and the signature of the content that was hashed."""

_RECENT_NS = 1_000_000_000
"""A file changed so recently may change again within the resolution of its time stamp; its leaves are not cached."""

_leaves: dict[Signature, bytes] = {}
"""Leaves of tensors in files, by signature, for the life of the process."""


class KnownLeaves:
    """The leaves that are known of one base: its own, and those of files for the life of the process."""

    def __init__(self) -> None:
        self._own: dict[str, KnownLeaf] = {}

    def find(self, name: str, signature: Signature | None) -> bytes | None:
        """Return the leaf of a tensor, or None if it is not known.

        Parameters
        ----------
        name : str
            The tensor.
        signature : Signature or None
            Its signature now.
        """
        known, found = self._own.get(name, (None, b""))
        # Own leaves first: a mapping has no signature, and is hashed once per `Base`.
        if found and known == signature:
            return found
        return _leaves.get(signature) if signature is not None else None

    def learn(self, name: str, known: KnownLeaf) -> None:
        """Store a leaf with the signature of its content; `find` checks the signature."""
        self._own[name] = known

    def store(self, name: str, signature: Signature | None, leaf: bytes) -> None:
        """Store the leaf of a tensor whose file did not change while it was read.

        Parameters
        ----------
        name : str
            The tensor.
        signature : Signature or None
            Its signature before and after reading.
        leaf : bytes
            The leaf.
        """
        self._own[name] = (signature, leaf)
        if signature is not None and time.time_ns() - int(signature[3]) > _RECENT_NS:
            _leaves[signature] = leaf

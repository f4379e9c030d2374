"""The source packs of a fusion, checked to be against one base, and that base, opened if it is needed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import weight_paths
from dtscodec.checkpoints.quantized.companions import companions_of
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.decoding.decoded import Decoded
from dtscodec.encoding.pack_assembler import LEAF_BYTES
from dtscodec.errors import BaseMismatchError, ConfigError, Remedy
from dtscodec.format.blocks import Block
from dtscodec.format.content_digest import base_digest
from dtscodec.format.dtypes import DType
from dtscodec.format.index import TensorEntry
from dtscodec.format.naming import base_name, utf8
from dtscodec.format.summary import BaseRef
from dtscodec.fusion.common_base import check_common_base, check_leaf, name_of_base, place_of
from dtscodec.packs.directory import find_base
from dtscodec.packs.pack import MAX_TENSOR_BYTES, Pack


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the weighted sum of a tensor.

    Parameters
    ----------
    weight : float
        Mixing weight of the pack.
    pack : Pack
        A source pack.
    entry : TensorEntry
        The tensor in that pack.
    """

    weight: float
    pack: Pack
    entry: TensorEntry


class SourcePacks:
    """Packs against one base.

    Parameters
    ----------
    packs : sequence of Pack
        At least one.
    base : path, mapping, Base or None
        The base; if None, it is searched where `decode` searches, once it is needed.
    stack : ExitStack
        Closes the files that are opened here.

    Raises
    ------
    ConfigError
        There is no pack.
    BaseMismatchError
        The packs are against different bases.
    FormatError
        All changes of a pack are in its residual layer, which is not fused.
    """

    def __init__(self, packs: Sequence[Pack], base: "Source | Base | None", stack: ExitStack) -> None:
        if not packs:
            raise ConfigError("expected packs to fuse, got none")
        for pack in packs:
            pack.check_front()
        self.packs = tuple(packs)
        self._given, self._stack = base, stack
        self.leaves = _shared_leaves(packs)
        self.entries = [{entry.name: entry for entry in pack.index.tensors} for pack in packs]

    @property
    def names(self) -> list[str]:
        """Names of the tensors that any pack has, ascending."""
        return sorted(set().union(*self.entries), key=utf8)

    def terms(self, name: str, weights: Sequence[float]) -> list[Term]:
        """Return the terms of a tensor's sum: one for each pack that has it, unless its weight is zero."""
        return [
            Term(weight, pack, entries[name])
            for weight, pack, entries in zip(weights, self.packs, self.entries, strict=True)
            if weight and name in entries
        ]

    def is_in_all(self, name: str) -> bool:
        """Return whether every pack has a tensor of that name."""
        return all(name in entries for entries in self.entries)

    def is_own(self, name: str) -> bool:
        """Return whether all packs that have the tensor store it, or the one it is tied to, without the base."""
        return all(_is_own(entries, name) for entries in self.entries if name in entries)

    @cached_property
    def companions(self) -> frozenset[str]:
        """Tensors that belong to quantized weights, such as scales."""
        specs = {name: entry.spec for entries in self.entries for name, entry in entries.items()}
        return companions_of(specs, {}, dict.fromkeys(specs))

    # Base

    @property
    def dequantized(self) -> DType | None:
        """Dtype that the weights of a quantized base are dequantized to; None where it is used as it is stored."""
        return next((pack.summary.dequantized_base for pack in self.packs if pack.summary.base), None)

    @cached_property
    def base(self) -> Base | None:
        """The base that was given or found; None if there is none."""
        found = self._given
        for pack in self.packs:
            found = found if found is not None else find_base(pack)
        return None if found is None else self._stack.enter_context(as_base(found, dequantize=self.dequantized))

    def needed_base(self, why: str) -> Base:
        """Return the base.

        Parameters
        ----------
        why : str
            Why it is needed, for the message: "expected the base, since ...".

        Raises
        ------
        BaseMismatchError
            There is none.
        """
        if self.base is None:
            detail = f"expected the base, since {why}, got none"
            raise BaseMismatchError(
                "base-tensor", place_of(self.packs[0]), detail, "4.4", Remedy("name it with {base}")
            )
        return self.base

    def counterpart(self, name: str) -> str:
        """Return the name of a tensor in the base."""
        for entries in self.entries:
            for block in entries[name].blocks if name in entries else ():
                if (rows := block.base) is not None:
                    return rows.name
        return base_name(name, self.packs[0].index.prefix)

    def base_tensor(self, name: str, why: str) -> StoredTensor:
        """Read a tensor of the base, checked against its leaf if a pack stores that; `why` as for `needed_base`."""
        base = self.needed_base(why)
        data = base.read(name, self.leaves.get(name))
        return StoredTensor(name, base.specs[name], data)

    def reference(self, used: Iterable[str]) -> tuple[BaseRef | None, dict[str, bytes]]:
        """Return the base reference of a pack that uses some base tensors, and their leaves as packs store them.

        Parameters
        ----------
        used : iterable of str
            Names of the base tensors.

        Raises
        ------
        BaseMismatchError
            No source pack uses exactly these tensors, so that the base must be hashed, and it is missing or not theirs.
        """
        names = sorted(used, key=utf8)
        if not names:
            return None, {}
        # A pack that uses exactly these base tensors has their digest; else hash the base.
        known = next((pack for pack in self.packs if pack.index.base_names() == names), None)
        if known is not None and known.summary.base is not None:
            digest = known.summary.base.digest
            leaves = {name: self.leaves[name][:LEAF_BYTES] for name in names}
        else:
            base = self.needed_base("the packs use other tensors of it, each its own")
            whole = {name: base.leaf(name) for name in names}
            for name, leaf in whole.items():
                check_leaf(base, name, leaf, self.leaves.get(name, b""))
            digest, leaves = base_digest(whole).hex(), {name: leaf[:LEAF_BYTES] for name, leaf in whole.items()}
        remembered = [pack.summary.base for pack in self.packs if pack.summary.base and pack.summary.base.repo]
        repo, revision = (remembered[0].repo, remembered[0].revision) if remembered else (None, None)
        return BaseRef(digest, repo, revision, self.dequantized), leaves

    def paths(self, out: Path) -> Iterator[Path]:
        """Yield the files that are read, which must not be replaced."""
        yield from (pack.path for pack in self.packs if pack.path)
        if (base := vars(self).get("base")) is not None:  # Only if it was opened.
            yield from weight_paths(out, base.checkpoint)

    # Tensors

    def stored(self, pack: Pack, name: str, why: str) -> StoredTensor:
        """Decode a tensor of a pack, with the base if the tensor's blocks use it; `why` as for `needed_base`."""
        needs_base = not all(block.base is None for block in _resolved(pack, name).blocks)
        base = self.needed_base(why) if needs_base else None
        decoded = Decoded(pack, base, torch.device("cpu"), None, True, MAX_TENSOR_BYTES)
        return StoredTensor(name, pack.spec(name), decoded.read(name))


def is_based(block: Block) -> bool:
    """Return whether a block is relative to rows of the base."""
    return block.base is not None


def _is_own(entries: dict[str, TensorEntry], name: str) -> bool:
    entry = entries[entries[name].tied_to or name]
    return not any(map(is_based, entry.blocks))


def _resolved(pack: Pack, name: str) -> TensorEntry:
    return pack.reader.entry(pack.reader.entry(name).tied_to or name)


def _shared_leaves(packs: Sequence[Pack]) -> dict[str, bytes]:
    """Return the leaves, as packs store them, of all base tensors that packs use, by name.

    A base digest is over the tensors that a pack uses, and tensors stored exactly use none. So packs against one base
    may have different digests; leaves of tensors that several packs use must be equal.

    Raises
    ------
    BaseMismatchError
        Leaves differ.
    """
    leaves: dict[str, bytes] = {}
    for pack in packs:
        for name, leaf in pack.reader.leaves.items():
            # Packs may store leaves of different lengths: compare what both have.
            known = leaves.get(name, leaf)
            if not (known.startswith(leaf) or leaf.startswith(known)):
                first = next(other for other in packs if name in other.reader.leaves)
                ours, theirs = name_of_base(first), name_of_base(pack)
                detail = f"expected packs of one base, got one of {theirs} and {place_of(first)} of {ours}"
                where = place_of(pack)
                raise BaseMismatchError("base-digest", where, f"{detail}, which differ in {name!r}", "7")
            leaves[name] = max(known, leaf, key=len)
    check_common_base(packs)
    return leaves

"""The weighted sum of one tensor's deltas over several packs, as segments to encode."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, torch_dtype, widest
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.delta import delta_of
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import EncodedBlock, raw_block, same_block
from dtscodec.encoding.segments.factored_delta import FactoredDelta
from dtscodec.encoding.segments.segment import ElementSegment, MatrixSegment, Segment
from dtscodec.encoding.segments.segmented_tensor import SegmentedTensor, segment_delta
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.blocks import Block, CodedDelta, Same, is_unchanged
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.streams import Streams
from dtscodec.fusion.source_packs import SourcePacks, Term, is_based
from dtscodec.linalg.factored_matrix import Factored, stack_blocks
from dtscodec.linalg.svd import NEGLIGIBLE

SUM_TOLERANCE = 1e-6
"""Tolerance on a sum of weights of 1, which leaves a tensor that is equal in all fine-tunes unchanged."""

OWN_HEAD = Remedy("give the unseen task's own with {like}")
OWN_HEAD_OR_BASE = Remedy(f"{OWN_HEAD.text}, or the base with {{base}} if it has this tensor")


def exact_tensor(stored: StoredTensor) -> SegmentedTensor:
    """Return a tensor that is stored exactly."""
    return SegmentedTensor(stored.spec, [raw_block(stored)])


def sum_tensor(sources: SourcePacks, name: str, weights: Sequence[float], config: EncodeConfig) -> SegmentedTensor:
    """Return the weighted sum of a tensor's deltas.

    Deltas of low rank are summed by their factors, and packs in which the tensor is unchanged are left out. Tensors
    that are stored exactly become deltas from the base. Tensors that the base lacks must be equal in all packs; integer
    tensors, and the scales of quantized weights, are those of the pack with the largest weight.

    Parameters
    ----------
    sources : SourcePacks
        The packs.
    name : str
        The tensor.
    weights : sequence of float
        Mixing weights, one for each pack.
    config : EncodeConfig
        Settings of the fused pack.

    Raises
    ------
    EncodeError
        The packs are of different architectures, or differ in a tensor that the base lacks.
    BaseMismatchError
        The base is needed, and is missing or not the packs' own.
    """
    terms, spec = sources.terms(name, weights), common_spec(sources, name, weights)
    # Tied in all packs to the same tensor: so is the sum.
    ties = {term.entry.tied_to for term in terms}
    if None not in ties and len(ties) == 1:
        return _as_first(spec, terms)
    # Integers, such as counters, have no weighted sum, nor have the scales of quantized weights.
    if spec.dtype not in CODED_DTYPES or name in sources.companions:
        return _stored_exactly(sources, name, [max(terms, key=lambda term: abs(term.weight))])
    # Stored without the base in all packs: a head, or a tensor that no pack codes.
    if sources.is_own(name):
        return _sum_exact(sources, name, spec, terms, config)
    changed = [term for term in terms if not _is_unchanged(term)]
    if not changed:
        return _as_first(spec, terms)
    # Deltas: by blocks and factors where all packs cut the tensor alike, else multiplied out.
    if _have_one_layout(changed):
        return _sum_blocks(name, spec, changed)
    return _sum_dense_deltas(sources, name, spec, changed, config)


def _is_unchanged(term: Term) -> bool:
    """Return whether a tensor is the base's."""
    return all(map(is_unchanged, term.entry.blocks))


def _as_first(spec: TensorSpec, terms: Sequence[Term]) -> SegmentedTensor:
    """Return a tensor of blocks without streams, as the first pack has it."""
    first = terms[0].entry
    return SegmentedTensor(spec, [EncodedBlock(block, Streams()) for block in first.blocks], first.split)


def _stored_exactly(sources: SourcePacks, name: str, terms: Sequence[Term]) -> SegmentedTensor:
    """Return a tensor as the first term has it, exactly unless it is unchanged from the base."""
    term = terms[0]
    if all(isinstance(block, Same) for block in term.entry.blocks):
        return _as_first(term.entry.spec, terms)
    return exact_tensor(sources.stored(term.pack, name, f"{name!r} is stored as a delta from it"))


def common_spec(sources: SourcePacks, name: str, weights: Sequence[float]) -> TensorSpec:
    """Return the shape of a tensor, and the widest of its dtypes in the packs.

    Raises
    ------
    EncodeError
        Its shapes differ, or a pack lacks it.
    """
    terms = sources.terms(name, weights)
    if not sources.is_in_all(name):
        has, lacks = (
            next(
                str(pack.path or "a pack")
                for pack, entries in zip(sources.packs, sources.entries, strict=True)
                if test == (name in entries)
            )
            for test in (True, False)
        )
        raise EncodeError(f"{name}: expected packs of one architecture, got it in {has} and not in {lacks}")
    first = terms[0].entry.spec
    for term in terms[1:]:
        spec = term.entry.spec
        if spec.shape != first.shape or (spec.dtype != first.dtype and not {spec.dtype, first.dtype} <= CODED_DTYPES):
            what, remedy = (
                ("a head of one shape", OWN_HEAD) if sources.is_own(name) else ("packs of one architecture", None)
            )
            raise EncodeError(f"{name}: expected {what}, got {first} and {spec}", remedy)
    return TensorSpec(widest({term.entry.spec.dtype for term in terms}), first.shape)


def _have_one_layout(terms: Sequence[Term]) -> bool:
    """Return whether blocks of all terms have the same rows, the same rows of the base, and one kind."""
    layouts = [(term.entry.split, [(block.height, block.base) for block in term.entry.blocks]) for term in terms]
    if any(layout != layouts[0] for layout in layouts):
        return False
    kinds = [
        {block.kind for block in blocks if block.is_coded}
        for blocks in zip(*(term.entry.blocks for term in terms), strict=True)
    ]
    return all(len(kind) < 2 for kind in kinds) and all(
        is_based(block) for term in terms for block in term.entry.blocks
    )


def _sum_blocks(name: str, spec: TensorSpec, terms: Sequence[Term]) -> SegmentedTensor:
    """Sum terms of one layout block by block; that needs no base."""
    first = terms[0].entry
    coded = [dict(term.pack.factors(name)) for term in terms]
    segments: list[Segment] = []
    for row, block in first.placed():
        parts = [(term.weight, deltas[row]) for term, deltas in zip(terms, coded, strict=True) if row in deltas]
        segments.append(_sum_block(block, first.columns, parts, first.split))
    return SegmentedTensor(spec, segments, first.split)


def _sum_block(block: Block, columns: int, parts: Sequence[tuple[float, CodedDelta]], split: int) -> Segment:
    """Sum one block of several terms, each with its weight."""
    base = block.base
    assert base is not None
    if not parts:
        # No pack changes these rows.
        return same_block(block.height, base)
    # Coded element by element: sum dense deltas.
    if parts[0][1].right is None:
        deltas = [
            (weight, torch.from_numpy(coded.place(block.height, columns).astype(np.float32))) for weight, coded in parts
        ]
        dense = DenseDelta.of(sum_dense(deltas), base)
        return same_block(block.height, base) if dense is None else ElementSegment(dense, None, split)
    # Low rank: concatenate the factors, the weights multiplied into the left ones.
    shape = block.height, columns
    factors = [(weight, stack_blocks([(0, block.height, coded)], shape, torch.float64)) for weight, coded in parts]
    joined = Factored(
        torch.cat([weight * factored.left for weight, factored in factors], 1),
        torch.cat([factored.right for _, factored in factors]),
    )
    # `reach` bounds the norm of the sum (triangle inequality): a sum that is negligible beside it is rounding.
    reach = sum(abs(weight) * factored.square() ** 0.5 for weight, factored in factors)
    changed = FactoredDelta.of(joined, base, NEGLIGIBLE * reach)
    return same_block(block.height, base) if changed is None else MatrixSegment(changed, None, split)


def sum_dense(deltas: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the weighted sum of deltas of one shape: float32, exactly 0 where they cancel up to rounding."""
    # `reach` bounds each element's magnitude: a sum that is negligible beside it is rounding.
    total, reach = (torch.zeros(deltas[0][1].shape, dtype=torch.float64) for _ in range(2))
    for weight, delta in deltas:
        total.add_(delta.double(), alpha=weight)
        reach.add_(delta.double().abs_(), alpha=abs(weight))
    total[total.abs() <= NEGLIGIBLE * reach] = 0
    return total.float()


def _sum_dense_deltas(
    sources: SourcePacks, name: str, spec: TensorSpec, terms: Sequence[Term], config: EncodeConfig
) -> SegmentedTensor:
    """Sum terms of different layouts as whole tensors, multiplied out; exact tensors need the base."""
    counterpart = sources.counterpart(name)
    needs_base = any(not is_based(block) for term in terms for block in term.entry.blocks)
    base = sources.base_tensor(counterpart, f"{name!r} is stored exactly") if needs_base else None
    if base is not None and (base.spec.shape != spec.shape or base.spec.dtype not in CODED_DTYPES):
        raise EncodeError(
            f"{name}: expected packs that store it in one way, or a base of its shape {spec}, got {base.spec}"
        )
    total = sum_dense([(term.weight, _delta(sources, name, term, base)) for term in terms])
    stored = None if base is None else _added(name, spec, base, total)
    segments, split = segment_delta(total, stored, counterpart, config, is_rounded=False)
    return SegmentedTensor(spec, segments, split)


def _delta(sources: SourcePacks, name: str, term: Term, base: StoredTensor | None) -> Tensor:
    """Return the delta of one term."""
    if base is None or all(map(is_based, term.entry.blocks)):
        return torch.from_numpy(term.pack.delta(name))
    return delta_of(sources.stored(term.pack, name, "it is stored exactly"), base)


def _added(name: str, spec: TensorSpec, base: StoredTensor, delta: Tensor) -> StoredTensor:
    """Return base + delta, in the fused fine-tune's dtype."""
    whole = (base.tensor().double() + delta.double()).to(torch_dtype(spec.dtype))
    return StoredTensor(name, spec, tensor_bytes(whole))


def _sum_exact(
    sources: SourcePacks, name: str, spec: TensorSpec, terms: Sequence[Term], config: EncodeConfig
) -> SegmentedTensor:
    """Return a tensor that packs store without the base: unchanged if all are equal, else the sum of its deltas."""
    stored = [sources.stored(term.pack, name, "it is stored as a delta from it") for term in terms]
    is_equal = all(other.spec == stored[0].spec and np.array_equal(other.data, stored[0].data) for other in stored)
    # Weights that add up to 1 leave equal tensors as they are.
    if is_equal and abs(sum(term.weight for term in terms) - 1) < SUM_TOLERANCE:
        return _stored_exactly(sources, name, terms)
    counterpart = None if sources.base is None else sources.base.specs.get(sources.counterpart(name))
    # Stored exactly, though the base has it: sum the deltas from the base.
    if counterpart is not None and counterpart.shape == spec.shape:
        return _sum_dense_deltas(sources, name, spec, terms, config)
    if is_equal:
        return _stored_exactly(sources, name, terms)
    remedy = OWN_HEAD if sources.base is not None else OWN_HEAD_OR_BASE
    raise EncodeError(f"{name}: expected the same in all packs where the base has none, got several", remedy)

"""Change of a tensor by an adapter -> the encoded tensor. Products of factors are never multiplied out."""

from collections.abc import Iterator

import torch

from dtscodec.adapters.importing.counterparts import NAME_TRAINED_BASE
from dtscodec.adapters.importing.fine_tune_model import SAVE_EMBEDDINGS
from dtscodec.adapters.importing.weight_change import WeightChange
from dtscodec.adapters.lora_adapter import TokenRows
from dtscodec.adapters.lora_pair import is_transposed
from dtscodec.checkpoints.stored_tensor import StoredTensor, convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_spec
from dtscodec.encoding.delta import is_same
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares, encode_exactly, encode_same
from dtscodec.encoding.presets.one_width import encode_factored
from dtscodec.encoding.segments.encoded_block import EncodedBlock, raw_block, same_block
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import BaseRows
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.quantize.widths import Bits

LEAST_ROWS = 16
"""Fewer consecutive rows that equal the base's are stored exactly, with their neighbours: blocks cost bytes too."""


def encode_change(
    name: str, change: WeightChange, base: StoredTensor | None, bits: Bits, transposed: bool
) -> EncodedTensor:
    """Encode a tensor that an adapter changes.

    Parameters
    ----------
    name : str
        Name of the tensor in the fine-tune.
    change : WeightChange
        The adapter's change of it.
    base : StoredTensor or None
        Its counterpart in the base; None if it is new. Its elements are not needed for a change that `is_sum`.
    bits : {2, 4, 8, 16}
        Width of the elements of singular vectors.
    transposed : bool
        Whether the model holds linear weights as [in, out], for square ones.

    Raises
    ------
    EncodeError
        The adapter was trained on another base, or a delta cannot be encoded at this width.
    """
    start = change.whole or base
    assert start is not None
    start = StoredTensor(name, start.spec, start.data)
    if change.tokens is not None:
        start = _with_tokens(start, change.tokens)
    if change.bias is not None:
        start = _with_bias(start, change.bias, change.scale)
    if change.pair is None:
        return _encode_whole(start, base)
    assert base is not None
    delta = change.pair.to_delta(change.scale, is_transposed(change.pair, start.spec.shape, transposed))
    try:
        if change.is_sum:
            blocks = [encode_factored(delta, BaseRows(base.name, 0), bits)]
        else:
            blocks = _low_rank_blocks(delta, start, base, bits)
    except EncodeError as error:
        raise EncodeError(f"{name}: {error.problem}", error.remedy) from error
    spec = TensorSpec(base.spec.dtype, start.spec.shape)
    return _assembled(name, spec, blocks)


def _with_tokens(start: StoredTensor, tokens: TokenRows) -> StoredTensor:
    """Return an embedding with the rows of some tokens replaced."""
    rows = start.spec.shape[0]
    if start.spec.dtype not in CODED_DTYPES or tokens.rows.spec.shape[1:] != start.spec.shape[1:]:
        detail = f"expected rows for a tensor of {start.spec}, got {tokens.rows.spec}"
        raise EncodeError(f"{start.name}: {detail}", NAME_TRAINED_BASE)
    if (largest := max(tokens.indices, default=0)) >= rows:
        detail = f"expected more than {largest} rows, since the adapter holds the row of token {largest}, got {rows}"
        raise EncodeError(f"{start.name}: {detail}", SAVE_EMBEDDINGS)
    embedding = start.tensor().clone()
    embedding[list(tokens.indices)] = convert_dtype(tokens.rows.tensor(), start.spec.dtype)
    return StoredTensor(start.name, start.spec, tensor_bytes(embedding))


def _with_bias(start: StoredTensor, bias: StoredTensor, scale: float) -> StoredTensor:
    """Return a layer's bias with that of B added."""
    if start.spec.shape != bias.spec.shape or start.spec.dtype not in CODED_DTYPES:
        raise EncodeError(f"{start.name}: expected a bias of {bias.spec.shape}, got {start.spec}", NAME_TRAINED_BASE)
    total = start.tensor().double() + scale * bias.tensor().double()
    return StoredTensor(start.name, start.spec, tensor_bytes(convert_dtype(total.float(), start.spec.dtype)))


def _low_rank_blocks(delta: Factored, start: StoredTensor, base: StoredTensor, bits: Bits) -> list[EncodedBlock]:
    """Return the blocks of a tensor with a low-rank delta; rows that the base lacks are stored exactly."""
    common = min(start.spec.shape[0], base.spec.shape[0])
    ours, theirs = (start, base) if start.spec.shape == base.spec.shape else (start.cut(0, common), base.cut(0, common))
    if not is_same(ours, theirs):
        raise EncodeError("expected a LoRA with the base's own weight, got one with another weight", NAME_TRAINED_BASE)
    blocks = [encode_factored(Factored(delta.left[:common], delta.right), BaseRows(base.name, 0), bits)]
    if start.spec.shape[0] > common:
        # The rows of added tokens have no counterpart: as PEFT computes them, in the base's dtype.
        new = start.cut(common, start.spec.shape[0]).tensor().double() + delta.left[common:] @ delta.right
        dtype = base.spec.dtype
        stored = convert_dtype(new.float(), dtype)
        blocks.append(raw_block(StoredTensor(start.name, tensor_spec(stored), tensor_bytes(stored))))
    return blocks


def _encode_whole(stored: StoredTensor, base: StoredTensor | None) -> EncodedTensor:
    """Encode a tensor exactly, except rows that equal the base's."""
    if base is None:
        return encode_exactly(stored)
    if is_same(stored, base):
        return encode_same(stored.name, stored.spec, base.name)
    equal = _equal_rows(stored, base)
    blocks = []
    for begin, end, is_equal in _runs(equal, stored.spec.shape[:1]):
        blocks.append(
            same_block(end - begin, BaseRows(base.name, begin)) if is_equal else raw_block(stored.cut(begin, end))
        )
    return _assembled(stored.name, stored.spec, blocks) if blocks else encode_exactly(stored)


def _equal_rows(stored: StoredTensor, base: StoredTensor) -> "torch.Tensor":
    """Return which of the rows that both matrices have are equal: bool [rows]."""
    ours, theirs = stored.spec, base.spec
    if len(ours.shape) != 2 or ours.shape[1:] != theirs.shape[1:] or not {ours.dtype, theirs.dtype} <= CODED_DTYPES:
        return torch.zeros(0, dtype=torch.bool)
    rows = min(ours.shape[0], theirs.shape[0])
    one, other = stored.cut(0, rows).tensor(), convert_dtype(base.cut(0, rows).tensor(), ours.dtype)
    # By value: rows with a NaN count as different, and are stored exactly.
    return (one == other).all(1) & (one.signbit() == other.signbit()).all(1)


def _runs(equal: torch.Tensor, shape: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """Yield all rows in runs (begin, end, whether they equal the base's); nothing if no run does."""
    padded = torch.cat([torch.zeros(1, dtype=torch.bool), equal, torch.zeros(1, dtype=torch.bool)]).int()
    change = padded.diff()
    begins, ends = (change == 1).nonzero().flatten().tolist(), (change == -1).nonzero().flatten().tolist()
    at = 0
    for begin, end in zip(begins, ends, strict=True):
        if end - begin >= LEAST_ROWS:
            if at < begin:
                yield at, begin, False
            yield begin, end, True
            at = end
    if 0 < at < shape[0]:
        yield at, shape[0], False


def _assembled(name: str, spec: TensorSpec, blocks: list[EncodedBlock]) -> EncodedTensor:
    squares = sum((Squares(block.delta_energy, block.error_energy) for block in blocks), Squares())
    entry = TensorEntry(name, spec, tuple(block.block for block in blocks))
    return EncodedTensor(entry, [block.streams for block in blocks], squares)

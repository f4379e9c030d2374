"""Checkpoint -> delta: fine-tune minus base, of the rows that both checkpoints have."""

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.stored_tensor import StoredTensor, convert_dtype, is_finite
from dtscodec.encoding.config import store_exactly
from dtscodec.errors import EncodeError
from dtscodec.format.dtypes import CODED_DTYPES, DType
from dtscodec.linalg.chunks import cache_sized


def is_same(fine: StoredTensor, base: StoredTensor) -> bool:
    """Return whether a tensor equals its counterpart, converted to the fine-tune's dtype, bit for bit.

    Parameters
    ----------
    fine : StoredTensor
        The fine-tune's tensor.
    base : StoredTensor
        Its counterpart in the base.
    """
    # Bytes, not values: a NaN equals itself, and -0 differs from 0.
    if fine.spec == base.spec:
        return np.array_equal(fine.data, base.data)
    if fine.spec.shape != base.spec.shape or not {fine.spec.dtype, base.spec.dtype} <= CODED_DTYPES:
        return False
    if not is_finite(fine.tensor()):
        return False  # The conversion of a NaN is not defined.
    return torch.equal(_bits(fine.tensor()), _bits(convert_dtype(base.tensor(), fine.spec.dtype)))


def shared_part(fine: StoredTensor, base: StoredTensor) -> tuple[StoredTensor, StoredTensor] | None:
    """Return the rows that both tensors have and that are related; None if there are none.

    Tensors of equal shape are shared whole. If only the first dimension differs, as in a grown vocabulary, the leading
    rows that both have are shared if their delta is smaller in norm than the fine-tune's rows: a head for other classes
    is not related.

    Parameters
    ----------
    fine : StoredTensor
        The fine-tune's tensor.
    base : StoredTensor
        Its counterpart in the base.

    Returns
    -------
    (StoredTensor, StoredTensor) or None
        The shared rows of both.
    """
    if not {fine.spec.dtype, base.spec.dtype} <= CODED_DTYPES or not fine.spec.elements:
        return None
    if fine.spec.shape == base.spec.shape:
        return fine, base
    if not fine.spec.shape or not base.spec.elements or len(fine.spec.shape) != len(base.spec.shape):
        return None
    if fine.spec.shape[1:] != base.spec.shape[1:]:
        return None
    # Only the first dimension differs. The rows are related if the base predicts them better than zeros would.
    rows = min(fine.spec.shape[0], base.spec.shape[0])
    ours, theirs = fine.cut(0, rows), base.cut(0, rows)
    values = ours.tensor().float()
    difference = torch.linalg.vector_norm(values - theirs.tensor().float())
    return (ours, theirs) if difference < torch.linalg.vector_norm(values) else None


def delta_of(fine: StoredTensor, base: StoredTensor) -> Tensor:
    """Return fine-tune minus base.

    Parameters
    ----------
    fine : StoredTensor
        The fine-tune's tensor.
    base : StoredTensor
        The base tensor, of the same shape.

    Returns
    -------
    float32, of that shape
        Exactly 0 wherever the fine-tune equals the base after rounding to its dtype: a bf16 fine-tune of an fp32 base
        differs from it everywhere, but only the elements that training changed count.

    Raises
    ------
    EncodeError
        An element is NaN or infinite.
    """
    ours, theirs = fine.tensor(), base.tensor()
    _check_finite(fine.name, ours)
    _check_finite(fine.name, theirs, f" in the base's {base.name!r}")
    delta = torch.empty(ours.shape, dtype=torch.float32)
    flat, ours, theirs = delta.view(-1), ours.reshape(-1), theirs.reshape(-1)
    # In chunks, so that wide copies of both stay in the cache.
    for part in cache_sized(len(flat)):
        flat[part] = _difference(ours[part], theirs[part], fine.spec.dtype)
    # Two finite numbers may differ by more than float32 holds.
    _check_finite(fine.name, delta, " in its difference from the base")
    return delta


def _difference(ours: Tensor, theirs: Tensor, dtype: DType) -> Tensor:
    """Return fine-tune minus base, 0 where both are the same in the fine-tune's dtype: float32 or float64."""
    wide = torch.float64 if torch.float64 in (ours.dtype, theirs.dtype) else torch.float32
    delta = ours.to(wide) - theirs.to(wide)
    # What equals the rounded base did not change, although the difference is not 0.
    if ours.dtype != theirs.dtype:
        delta[_bits(ours) == _bits(convert_dtype(theirs, dtype))] = 0
    return delta


def _bits(tensor: Tensor) -> Tensor:
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(integers[tensor.element_size()])


def _check_finite(name: str, tensor: Tensor, where: str = "") -> None:
    if is_finite(tensor):
        return
    # The first NaN or infinity, for the message.
    place = (~tensor.isfinite()).nonzero()[0].tolist()
    value = tensor[tuple(place)].item()
    detail = f"expected finite elements, got {value} at {place}{where}"
    raise EncodeError(f"{name}: {detail}", store_exactly(name))

"""Why `encode` stores a tensor, or some rows of it, exactly: as a block of kind `raw`.

1. `exact_reason` names a reason: they are never quantized.
2. They have at most `ALWAYS_EXACT` bytes, and the preset is `best`.
3. Exact bytes are the best choice. For `best`, `dtscodec.encoding.budget.segment_candidates` offers them at their cost
   as one candidate encoding, and `dtscodec.encoding.budget.allocate` chooses among candidates. The preset `paper`
   chooses them where codes would take as many bytes (`dtscodec.encoding.presets.paper.plan_paper`), and `best` with a
   rank as target does so for rows that are quantized element by element.

`fuse`, `import_adapter` and merged bases store tensors exactly for reasons of their own.

Deltas that hold NaN or infinity are not stored exactly but refused (`dtscodec.encoding.delta.delta_of`); the remedy is
to name the tensor in `raw`.
"""

from enum import Enum

import torch

from dtscodec.checkpoints.stored_tensor import StoredTensor, is_finite
from dtscodec.encoding.config import EncodeConfig
from dtscodec.format.dtypes import CODED_DTYPES

ALWAYS_EXACT = 64
"""Changed or new rows of at most this many bytes are always stored exactly by the preset `best`."""


class ExactReason(Enum):
    """Why some rows are never quantized."""

    NAMED = "a pattern names the tensor: one of `raw`, or for `paper` one of the heads that its authors store exactly"
    DTYPE = "the dtype is not quantized, such as integers, booleans and FP8"
    COMPANION = "the tensor is a scale or another companion of a quantized weight"
    NEW = "the rows have no counterpart in the base, and the preset `paper`, or a rank as target, quantizes deltas only"
    NOT_FINITE = "the rows have no counterpart in the base, and hold NaN, infinity, or what float32 cannot hold"
    ZERO = "the rows have no counterpart in the base, and hold zeros only"


def exact_reason(
    stored: StoredTensor, config: EncodeConfig, is_new: bool, is_companion: bool = False
) -> ExactReason | None:
    """Return why some rows are stored exactly, whatever the budget; None if they may be quantized.

    Parameters
    ----------
    stored : StoredTensor
        The fine-tune's rows, which differ from the base's.
    config : EncodeConfig
        Holds the patterns of exact tensors, the preset and the target.
    is_new : bool
        Whether the rows have no counterpart in the base.
    is_companion : bool
        Whether the tensor is a companion of a quantized weight (`dtscodec.checkpoints.quantized.companions`).
    """
    if config.stores_exactly(stored.name):
        return ExactReason.NAMED
    if stored.spec.dtype not in CODED_DTYPES:
        return ExactReason.DTYPE
    if is_companion:
        return ExactReason.COMPANION
    if not is_new:
        return None
    if not config.quantizes_new_tensors:
        return ExactReason.NEW
    # In float32, as deltas are: float64 numbers beyond it become infinite.
    values = stored.tensor().to(torch.float32)
    if not is_finite(values):
        return ExactReason.NOT_FINITE
    return None if values.any() else ExactReason.ZERO

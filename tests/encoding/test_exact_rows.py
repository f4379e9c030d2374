"""Reasons for rows that are stored exactly."""

import numpy as np
import pytest
import torch

from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.checkpoints.torch_dtypes import tensor_bytes
from dtscodec.encoding.config import EncodeConfig, Paper
from dtscodec.encoding.segments.exact_rows import ExactReason, exact_reason
from dtscodec.encoding.targets import Rank
from dtscodec.format.dtypes import TensorSpec

BEST = EncodeConfig(raw=("head*",))


def rows(value: float, name: str = "w", dtype: str = "F64") -> StoredTensor:
    data = torch.full((4, 8), value, dtype={"F64": torch.float64, "I64": torch.int64}[dtype])
    return StoredTensor(name, TensorSpec(dtype, (4, 8)), tensor_bytes(data))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stored", "config", "is_new", "reason"),
    [
        (rows(1.0, "head.weight"), BEST, False, ExactReason.NAMED),
        (rows(1.0, "classifier.weight"), EncodeConfig(preset=Paper()), False, ExactReason.NAMED),
        (rows(1, dtype="I64"), BEST, False, ExactReason.DTYPE),
        (rows(1.0), EncodeConfig(preset=Paper()), True, ExactReason.NEW),
        (rows(1.0), EncodeConfig(Rank(2)), True, ExactReason.NEW),
        (rows(np.nan), BEST, True, ExactReason.NOT_FINITE),
        (rows(1e300), BEST, True, ExactReason.NOT_FINITE),
        (rows(0.0), BEST, True, ExactReason.ZERO),
    ],
)
def test_rows_are_never_quantized_for_one_of_five_reasons(
    stored: StoredTensor, config: EncodeConfig, is_new: bool, reason: ExactReason
) -> None:
    assert exact_reason(stored, config, is_new) is reason


def test_other_rows_may_be_quantized() -> None:
    assert exact_reason(rows(1.0), BEST, is_new=True) is None
    assert exact_reason(rows(np.nan), BEST, is_new=False) is None  # Refused later, when the delta is taken.

"""Random elements of residual layers."""

from typing import get_args

import numpy as np
from hypothesis import strategies as st

from dtscodec.format.dtypes import DType
from dtscodec.format.residual.integers import ElementKind, element_kind

ALL: list[DType] = sorted(get_args(DType))
KINDS = sorted({element_kind(dtype) for dtype in ALL}, key=str)
DTYPE_OF = {element_kind(dtype): dtype for dtype in ALL if dtype != "C64"}

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def bits_of_kind(random: np.random.Generator, kind: ElementKind, *shape: int) -> np.ndarray:
    """Any bits: for floats many NaNs, subnormal numbers and numbers of all sizes."""
    count = int(np.prod(shape))
    bits: np.ndarray = np.frombuffer(random.bytes(count * kind.size), kind.signed).reshape(shape).copy()
    return bits


def near(random: np.random.Generator, prediction: np.ndarray, share: float, most: int = 9) -> np.ndarray:
    """A share of the elements differs by a few steps."""
    steps = random.integers(-most, most + 1, prediction.shape) * (random.random(prediction.shape) < share)
    result: np.ndarray = prediction + steps.astype(prediction.dtype)
    return result

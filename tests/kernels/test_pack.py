"""Packing on a device gives the bytes of packing in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.kernels.pack import pack_tensor
from dtscodec.quantize.packing import pack_codes
from dtscodec.quantize.widths import ALL_BITS, Bits, width_of


@pytest.mark.parametrize("bits", ALL_BITS)
@given(seed=st.integers(0, 100), vectors=st.integers(1, 5), count=st.integers(1, 200))
def test_packed_tensors_have_the_bytes_of_packed_arrays(bits: Bits, seed: int, vectors: int, count: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << min(bits, 7), (vectors, count)).astype(width_of(bits).dtype)
    assert pack_tensor(torch.from_numpy(codes), bits).numpy().tobytes() == pack_codes(codes, bits).tobytes()

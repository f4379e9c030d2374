"""Time to turn the codes of a 4096 x 4096 matrix's vectors into numbers, beside the product that follows."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.timing import median_times
from benchmarks.decode.matrix import RANK, SIDE

VECTORS = 2 * RANK
RANGE_BITS = 12
"""Bits of a probability of the range coder."""


def decode_seconds() -> dict[str, float]:
    """Return median seconds by what is done; two bits an element, numpy, one thread."""
    random = np.random.default_rng(0)
    packed = random.integers(0, 256, (VECTORS, SIDE // 4), dtype=np.uint8)
    torch.manual_seed(0)
    base, left, right, out = torch.randn(SIDE, SIDE), torch.randn(SIDE, RANK), torch.randn(RANK, SIDE), torch.empty(0)
    out = torch.empty_like(base)
    fast: dict[str, Callable[[], object]] = {
        "product (`torch.addmm`)": lambda: torch.addmm(base, left, right, out=out),
        "four groups, or vectors of 4 in a byte": _byte_lookup(packed, _normal(random, 256)),
        "trellis of 256 states": window_lookup(packed, _normal(random, 1 << 14)),
        "trellis of 1,024 states": window_lookup(packed, _normal(random, 1 << 16)),
        "trellis of 4,096 states": _wide_window_lookup(packed, _normal(random, 1 << 12)[:, 0]),
    }
    seconds = median_times(fast, turns=9)
    return seconds | median_times({"range coder, all vectors in step": _range_decoder(random)}, turns=1)


def _normal(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    return random.standard_normal((count, 4)).astype(np.float32)


def _byte_lookup(packed: NDArray[np.uint8], table: NDArray[np.float32]) -> Callable[[], object]:
    """A byte is four elements: one lookup."""
    return lambda: np.take(table, packed, axis=0)


def window_lookup(packed: NDArray[np.uint8], table: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    """The four elements of a byte depend on it and on the last bits of the byte before: one lookup."""
    mask = len(table) // 256 - 1

    def decode() -> NDArray[np.float32]:
        windows = np.roll(packed, 1, axis=1).astype(np.uint16)
        windows &= mask
        windows <<= 8
        windows |= packed
        values: NDArray[np.float32] = np.take(table, windows, axis=0)
        return values

    return decode


def _wide_window_lookup(packed: NDArray[np.uint8], table: NDArray[np.float32]) -> Callable[[], object]:
    """Windows of 12 bits: a lookup for each element."""

    def decode() -> object:
        wide = packed.astype(np.uint32)
        wide |= np.roll(wide, 1, axis=1) << 8 | np.roll(wide, 2, axis=1) << 16
        out = np.empty((*packed.shape, 4), np.float32)
        for place in range(4):
            out[..., place] = table[(wide >> (6 - 2 * place)) & (len(table) - 1)]
        return out

    return decode


def _range_decoder(random: np.random.Generator) -> Callable[[], object]:
    """Asymmetric numeral systems (J. Duda, arXiv 1311.2540) over seven levels: elements in turn, vectors at once."""
    frequencies = np.array([40, 400, 900, 1416, 900, 400, 40])
    starts = np.cumsum(frequencies) - frequencies
    symbols = np.repeat(np.arange(len(frequencies)), frequencies)
    factors = frequencies[symbols].astype(np.uint64)
    offsets = (np.arange(1 << RANGE_BITS) - starts[symbols]).astype(np.uint64)
    values = random.standard_normal(len(frequencies)).astype(np.float32)[symbols]
    words = random.integers(0, 1 << 16, (VECTORS, SIDE)).astype(np.uint64)
    first = random.integers(1 << 16, 1 << 32, VECTORS).astype(np.uint64)

    def decode() -> object:
        state, place, rows = first, np.zeros(VECTORS, np.int64), np.arange(VECTORS)
        out = np.empty((SIDE, VECTORS), np.float32)
        for element in range(SIDE):
            low = state & ((1 << RANGE_BITS) - 1)
            out[element] = values[low]
            state = factors[low] * (state >> RANGE_BITS) + offsets[low]
            needs = state < 1 << 16
            state = np.where(needs, state << 16 | words[rows, place], state)
            place += needs
        return out

    return decode

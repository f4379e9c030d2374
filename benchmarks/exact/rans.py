"""The code of residual layers against interleaved rANS on the same contexts: ``python -m benchmarks.exact.rans``.

The question was whether an arithmetic coder is worth its place in every decoder (docs/decisions/018-exact-packs.md).
Both code the distances of 40 matrices of a fine-tune from its base, in numpy on one thread, and both are decoded.
rANS: static tables of 12 bits for each context, 1,024 lanes for a chunk, states of 63 bits that take words of 32. Small
integers are symbols; of larger ones the length and the next bit are, and the rest are raw bits.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.environment import environment
from benchmarks.language.base import base_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.tasks import FULL
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.format.primitives.zstd_frames import compress_parts
from dtscodec.format.residual.buckets import join_buckets, most_bytes, split_buckets
from dtscodec.format.residual.chunk import chunk_rows
from dtscodec.format.residual.content import Content
from dtscodec.format.residual.contexts import CONTEXTS, measure_scales
from dtscodec.format.residual.integers import element_kind, exponents, to_distances

LANES, TABLE_BITS, DIRECT = 1024, 12, 16
LOW = 1 << 31
Integers = NDArray[Any]


def tokens_of(values: Integers) -> tuple[Integers, Integers, Integers]:
    """Return symbol, number of raw bits and raw bits of each integer."""
    wide = values.astype(np.uint64)
    length = np.zeros(len(values), np.uint64)
    for shift in (16, 8, 4, 2, 1):  # The number of bits, by bisection.
        more = wide >> (length + np.uint64(shift)) > 0
        length[more] += np.uint64(shift)
    length += np.uint64(1)
    raw = np.where(wide < DIRECT, 0, length - np.minimum(length, np.uint64(2))).astype(np.uint64)
    symbol = np.where(wide < DIRECT, wide, DIRECT + 2 * (length - np.uint64(5)) + (wide >> raw & np.uint64(1)))
    return symbol.astype(np.int64), raw, wide & ((np.uint64(1) << raw) - np.uint64(1))


def values_of(symbols: Integers, raw_bits: Integers) -> Integers:
    """Return integers; the inverse of `tokens_of`."""
    large = symbols >= DIRECT
    raw = np.where(large, (symbols - DIRECT) // 2 + 3, 0).astype(np.uint64)
    top = np.where(large, 2 + (symbols - DIRECT) % 2, symbols).astype(np.uint64)
    return top << raw | raw_bits


def tables(symbols: Integers, contexts: Integers) -> tuple[Integers, Integers, int]:
    """Return frequencies and their cumulative sums, int [contexts, symbols], and the bytes that the tables take."""
    size = int(symbols.max()) + 1
    counts = np.bincount(contexts.astype(np.int64) * size + symbols, minlength=CONTEXTS * size).reshape(CONTEXTS, size)
    total = counts.sum(axis=1, keepdims=True)
    freq = np.where(counts > 0, np.maximum(1, counts * (1 << TABLE_BITS) // np.maximum(total, 1)), 0)
    for row in np.flatnonzero(total[:, 0]):  # The largest takes what rounding left.
        freq[row, freq[row].argmax()] += (1 << TABLE_BITS) - freq[row].sum()
    return freq, freq.cumsum(axis=1) - freq, int(3 * np.count_nonzero(freq) // 2)


def encode(values: Integers, contexts: Integers) -> tuple[bytes, Any]:
    """Return the words and states of all lanes, and what a decoder needs beside them."""
    symbols, raw, bits = tokens_of(values)
    freq, start, table_bytes = tables(symbols, contexts)
    f, s = (table[contexts, symbols].astype(np.uint64) for table in (freq, start))
    state = np.full(LANES, LOW, np.uint64)
    words: list[Integers] = []
    for begin in range((len(values) - 1) // LANES * LANES, -1, -LANES):
        part = slice(begin, min(begin + LANES, len(values)))
        own = state[: part.stop - part.start]
        full = own >= f[part] << (np.uint64(51) - raw[part])
        words.append((own[full] & np.uint64(2**32 - 1)).astype(np.uint32)[::-1])
        own[full] >>= np.uint64(32)
        own = own << raw[part] | bits[part]
        state[: len(own)] = ((own // f[part]) << np.uint64(TABLE_BITS)) + own % f[part] + s[part]
    stored = np.concatenate(words)[::-1].tobytes() + state.tobytes()
    return stored + bytes(table_bytes), (freq, start)


def decode(data: bytes, contexts: Integers, model: Any) -> Integers:
    """Return the integers; the inverse of `encode`."""
    freq, start = model
    slots = np.zeros((CONTEXTS, 1 << TABLE_BITS), np.int64)
    for row in np.flatnonzero(freq.sum(axis=1)):
        slots[row] = np.repeat(np.arange(freq.shape[1]), freq[row])
    table_bytes = 3 * np.count_nonzero(freq) // 2
    end = len(data) - table_bytes - 8 * LANES
    state = np.frombuffer(data[end : end + 8 * LANES], np.uint64).copy()
    words, at = np.frombuffer(data[:end], np.uint32), 0
    symbols, raw_bits = np.empty(len(contexts), np.int64), np.empty(len(contexts), np.uint64)
    for begin in range(0, len(contexts), LANES):
        part = slice(begin, min(begin + LANES, len(contexts)))
        own, context = state[: part.stop - part.start], contexts[part]
        slot = (own & np.uint64((1 << TABLE_BITS) - 1)).astype(np.int64)
        found = slots[context, slot]
        own = freq[context, found].astype(np.uint64) * (own >> np.uint64(TABLE_BITS))
        own += (slot - start[context, found]).astype(np.uint64)
        raw = np.where(found >= DIRECT, (found - DIRECT) // 2 + 3, 0).astype(np.uint64)
        symbols[part], raw_bits[part] = found, own & ((np.uint64(1) << raw) - np.uint64(1))
        own >>= raw
        empty = own < LOW
        count = int(np.count_nonzero(empty))
        own[empty] = own[empty] << np.uint64(32) | words[at : at + count]
        state[: len(own)], at = own, at + count
    return values_of(symbols, raw_bits)


def main(argv: Sequence[str] | None = None) -> None:
    """Print bits a weight, and times, of both codes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language-cache", type=Path, required=True, help="as of benchmarks.language --cache")
    parser.add_argument("--task", default="style")
    options = parser.parse_args(argv)
    task = next(task for task in FULL if task.name == options.task)
    base, fine = base_directory(options.language_cache), fine_tune(task, options.language_cache)
    kind = element_kind("BF16")
    sizes, seconds, elements = np.zeros(2), np.zeros((2, 2)), 0
    with open_checkpoint(base) as old, open_checkpoint(fine) as new:
        names = [name for name, spec in new.specs.items() if len(spec.shape) == 2][:40]
        for name in names:
            shape = new.specs[name].shape
            ours, theirs = (x.read(name).view(np.int16).reshape(shape) for x in (new, old))
            for first in range(0, shape[0], chunk_rows(shape[1])):
                rows = slice(first, first + chunk_rows(shape[1]))
                distances, exponent = to_distances(ours[rows], theirs[rows], kind), exponents(theirs[rows], kind)
                scales = measure_scales(distances, exponent)
                contexts, values = scales.contexts(exponent).ravel(), distances.ravel()
                elements += len(values)
                _compare(values, contexts, sizes, seconds)
    print(environment())
    for which, name in enumerate(("shared bytes and zstd", "rANS")):
        times = 1e9 * seconds[which] / elements
        print(f"{name}: {8 * sizes[which] / elements:.4f} bits, {times[0]:.1f} and {times[1]:.1f} ns a weight")


def _compare(values: Integers, contexts: Integers, sizes: Integers, seconds: Integers) -> None:
    clock = time.perf_counter
    start = clock()
    ours = compress_parts(split_buckets(values, contexts))
    middle = clock()
    content = Content(ours, most_bytes(len(values), values.itemsize))
    assert np.array_equal(join_buckets(content, contexts, values.dtype), values)
    seconds[0] += middle - start, clock() - middle
    start = clock()
    theirs, model = encode(values, contexts)
    middle = clock()
    assert np.array_equal(decode(theirs, contexts, model), values)
    seconds[1] += middle - start, clock() - middle
    sizes += len(ours), len(theirs)


if __name__ == "__main__":
    main()

"""Distances in contexts <-> parts of a chunk: those of one context together, in a code of their own (section 15.4)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.residual.bucket_code import BucketCode, choose_code, join_bucket, read_symbols, split_bucket
from dtscodec.format.residual.content import Content
from dtscodec.format.residual.context_order import ContextOrder
from dtscodec.format.residual.contexts import CONTEXTS
from dtscodec.format.residual.integers import Integers


def split_buckets(distances: Integers, contexts: NDArray[np.uint8]) -> list[bytes]:
    """Return the parts that hold distances; the inverse of `join_buckets`.

    Parameters
    ----------
    distances : unsigned integers [n]
        At least one.
    contexts : uint8 [n]
        Their contexts.

    Returns
    -------
    list of bytes
        The codes of all contexts; for each its low bits; for each its shared bytes; the planes of all escapes.
    """
    buckets = ContextOrder(contexts).sort(distances)
    codes = [choose_code(bucket) for bucket in buckets]
    lows, shared, excess = zip(*map(split_bucket, buckets, codes), strict=True)
    escapes = np.concatenate(excess)
    planes = [(escapes >> shift).astype(np.uint8).tobytes() for shift in range(0, 8 * escapes.itemsize, 8)]
    return [bytes(code.to_byte() for code in codes), *lows, *shared, *planes]


def join_buckets(content: Content, contexts: NDArray[np.uint8], dtype: np.dtype[Any]) -> Integers:
    """Take distances from the content of a chunk; the inverse of `split_buckets`.

    Parameters
    ----------
    content : Content
        The content.
    contexts : uint8 [n]
        Contexts of the distances, at least one.
    dtype : numpy dtype
        Unsigned integers of the distances.

    Raises
    ------
    ValueError
        The content does not hold such distances.
    """
    order = ContextOrder(contexts)
    codes = [BucketCode.from_byte(value) for value in content.take(len(order.counts)).tolist()]
    sized = list(zip(codes, order.counts, strict=True))
    lows = [content.take(code.low_bytes(count)) for code, count in sized]
    symbols = [read_symbols(content.take(code.shared_bytes(count)), count, code) for code, count in sized]
    # What escapes exceed their codes by, in the order of contexts.
    escapes = [int(np.count_nonzero(part == code.escape)) for part, code in zip(symbols, codes, strict=True)]
    excess = np.zeros(sum(escapes), dtype)
    for shift in range(0, 8 * dtype.itemsize, 8):
        excess |= content.take(len(excess)).astype(dtype) << dtype.type(shift)
    parts = np.split(excess, np.cumsum(escapes)[:-1])
    buckets = [join_bucket(*bucket) for bucket in zip(lows, symbols, parts, codes, strict=True)]
    return order.unsort(buckets, dtype)


def most_bytes(count: int, itemsize: int) -> int:
    """Return the most bytes that distances take as parts: low bits, shared bytes and escapes of each, and codes."""
    return count * (2 * itemsize + 1) + 2 * CONTEXTS

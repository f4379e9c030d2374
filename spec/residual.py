"""The stages of decoding a residual layer, section 15 of dtscodec.md in its order: functions of bytes and numbers.

As in `stages.py`, none of them knows the file."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import checks
import numpy as np
import stages
from checks import BITS, Array
from stages import STORED, Entry

MANTISSA = {"F8_E5M2": 2, "F8_E4M3": 3, "F16": 10, "BF16": 7, "F32": 23, "F64": 52, "C64": 23}  # of floats
Predict = Callable[[Array | None, float], Array]  # from the rows' factors, and the delta's


# --- 15.2 elements ---


def element_size(dtype: str) -> int:
    return 4 if dtype == "C64" else max(1, BITS[dtype] // 8)


def element_matrix(t: Entry) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = prod(t.shape[: t.split]), prod(t.shape[t.split :])
    if BITS[t.dtype] < 8:
        return rows * columns * BITS[t.dtype] // 8, 1
    return rows, columns * (2 if t.dtype == "C64" else 1)


def as_elements(data: bytes, dtype: str, columns: int) -> Array:
    """Their bits as two's complement integers."""
    return np.frombuffer(data, f"<i{element_size(dtype)}").reshape(-1, columns)


@np.errstate(invalid="ignore")  # NaNs are nothing to warn of
def as_numbers(data: bytes, dtype: str, columns: int) -> Array:
    """In F64, of F16, BF16, F32 or F64."""
    return stages.widen(np.frombuffer(data, STORED[dtype]), dtype).astype(np.float64).reshape(-1, columns)


# --- 15.2 prediction ---


def exact_product(u: Array, v: Array) -> Array:
    """The delta of a `lowrank` block; a row of `u` and `v` for each component."""
    k = (53 - (len(u) - 1).bit_length()) // 2
    e, f = (int(np.frexp(abs(x).max())[1]) for x in (u, v))
    whole_u, whole_v = (np.rint(np.ldexp(x, k - y)).astype(np.int64) for x, y in ((u, e), (v, f)))
    return np.asarray(np.ldexp((whole_u.T @ whole_v).astype(np.float64), e + f - 2 * k))


@dataclass
class Source:
    """What the rows of one block are predicted from."""

    rows: int  # of elements
    bits: Array | None  # b; none where the base has another dtype
    numbers: Array | None = None  # B in F64; none where p is b, whatever the factors
    delta: Array | None = None  # D in F64


@np.errstate(all="ignore")  # infinities and NaNs are nothing to warn of
def predict_rows(s: Source, dtype: str, rows: slice, a: Array | None, t: float) -> Array:
    """Some rows of a block, with their factors and the delta's."""
    plain = s.delta is None and a is None
    if s.bits is not None and (plain or s.numbers is None):
        return np.asarray(s.bits[rows])
    assert s.numbers is not None
    x = s.numbers[rows]
    if a is not None:
        x = (1 + a.astype(np.float64))[:, None] * x
    if s.delta is not None:
        x = x + t * s.delta[rows]
    stored = stages.narrow(x, dtype)
    p = stored.view(f"<i{stored.itemsize}")
    return np.where(np.isfinite(stages.widen(stored, dtype)), p, 0 if s.bits is None else s.bits[rows]).astype(p.dtype)


def predict(sources: list[Source], dtype: str, first: int, last: int, a: Array | None, t: float) -> Array:
    """Rows of a tensor, of whichever blocks; `a` has the factors of these rows."""
    parts, start = [], 0
    for s in sources:
        begin, end = max(first, start), min(last, start + s.rows)
        if begin < end:
            own = None if a is None else a[begin - first : end - first]
            parts.append(predict_rows(s, dtype, slice(begin - start, end - start), own, t))
        start += s.rows
    return np.concatenate(parts)


# --- 15.3 distances ---


def order(i: Array, dtype: str) -> Array:
    """Its own inverse."""
    return np.where(i >= 0, i, i ^ np.iinfo(i.dtype).max) if dtype in MANTISSA else i


def from_distances(z: Array, p: Array, dtype: str) -> Array:
    """Elements from unsigned integers of as many bits, and their predictions."""
    half = (z >> 1).view(p.dtype)
    d = np.where(z & 1, -half - 1, half)
    if dtype in MANTISSA:
        d = np.where(p < 0, -d, d)
    return order(order(p, dtype) + d, dtype)


# --- 15.4 contexts and codes ---


def contexts(p: Array, dtype: str, offset: int, s: Array, t: Array) -> Array:
    """Of predictions, with scales of the same number of dimensions, or of which one serves all."""
    exponent = np.zeros(p.shape, np.int64)
    if dtype in MANTISSA:
        m, w = MANTISSA[dtype], p.itemsize
        field = (p.view(f"<u{w}") >> m).astype(np.int64) & 2 ** (8 * w - 1 - m) - 1
        exponent = np.maximum(field, 1)
    return np.asarray(np.clip(offset + s.astype(np.int64) + t.astype(np.int64) - 2 * exponent, 0, 127))


class Content:
    """Of a chunk: bytes that are taken one part after another."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        self._at += size
        checks.need(self._at <= len(self._data), "residual", "X4", f"{len(self._data)} bytes of content")
        return self._data[self._at - size : self._at]

    def end(self) -> None:
        checks.check_chunk_end(self._at, len(self._data))

    def octets(self, size: int) -> Array:
        return np.frombuffer(self.take(size), np.uint8)

    def small(self, n: int, bits: int) -> Array:
        """Integers that share bytes."""
        data = self.octets(-(-n * bits // 8))
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        shared = (data[:, None] >> shifts & (1 << bits) - 1).ravel()
        checks.check_small_padding(shared[n:])
        return shared[:n]

    def planes(self, n: int, size: int) -> Array:
        """Integers of `size` bytes: all lowest bytes first."""
        total = np.zeros(n, np.uint64)
        for k in range(size):
            total |= self.octets(n).astype(np.uint64) << np.uint64(8 * k)
        return total

    def low(self, n: int, code: int) -> Array:
        """The low bits of a bucket."""
        fours = code >> 2
        low = self.planes(n, fours // 2)
        if fours % 2:
            low |= self.small(n, 4).astype(np.uint64) << np.uint64(4 * fours - 4)
        return low

    def integers(self, known: Array, size: int) -> Array:
        """Integers of `size` bytes, as many as there are contexts."""
        counts = [n for n in np.bincount(known, minlength=128).tolist() if n]
        codes = list(self.take(len(counts)))
        for code in codes:
            checks.check_code(code, 8 * size)
        buckets = list(zip(codes, counts, strict=True))
        lows = [self.low(n, code) for code, n in buckets]
        small = [self.small(n, 8 >> (code & 3)) for code, n in buckets]
        escapes = [(1 << (8 >> (code & 3))) - 1 for code in codes]
        escaped = [x == escape for x, escape in zip(small, escapes, strict=True)]
        excess = self.planes(sum(int(x.sum()) for x in escaped), size)
        by_context: list[Array] = []
        for (code, _), low, x, escape, where in zip(buckets, lows, small, escapes, escaped, strict=True):
            own, excess = excess[: where.sum()], excess[where.sum() :]
            checks.check_high(x, own, escape, (2 ** (8 * size) - 1) >> 4 * (code >> 2))
            high = x.astype(np.uint64)
            high[where] += own
            by_context.append(high << np.uint64(4 * (code >> 2)) | low)
        result = np.empty(len(known), np.uint64)
        result[np.argsort(known, kind="stable")] = np.concatenate(by_context)
        return result


# --- 15.5 chunks ---


def chunk_rows(columns: int) -> int:
    return max(1, checks.CHUNK_ELEMENTS // columns)


def decode_chunk(data: bytes, predicted: Predict, shape: tuple[int, int], dtype: str) -> Array:
    """The elements of a chunk of some rows and columns."""
    if not data:
        return predicted(None, 1.0)
    (rows, columns), n, w = shape, prod(shape), element_size(dtype)
    limit = 11 + 5 * rows + columns + n * (2 * w + 1) + n * 9 + 512
    content = Content(checks.inflate_chunk(data, limit))
    flags, offset = content.take(1)[0], int.from_bytes(content.take(2), "little", signed=True)
    checks.check_chunk_head(flags, offset)
    t = np.frombuffer(content.take(4), "<f4") if flags & 16 else np.ones(1, "<f4")
    a = np.frombuffer(content.take(4 * rows), "<f4") if flags & 8 else None
    checks.check_factors(t)
    checks.check_factors(t if a is None else a)
    p = predicted(a, float(t[0]))
    result = (decode_few if flags & 4 else decode_many)(content, flags, offset, p, dtype)
    content.end()
    return result


def decode_many(content: Content, flags: int, offset: int, p: Array, dtype: str) -> Array:
    """Without flag 4."""
    rows, columns = p.shape
    s = content.octets(rows) if flags & 1 else None
    t = content.octets(columns) if flags & 2 else None
    coded = np.ix_(np.ones(rows, bool) if s is None else s > 0, np.ones(columns, bool) if t is None else t > 0)
    side_s, side_t = np.zeros(rows, np.uint8) if s is None else s, np.zeros(columns, np.uint8) if t is None else t
    known = contexts(p, dtype, offset, side_s[:, None], side_t[None])[coded]
    checks.check_coded(known.size)
    z = content.integers(known.ravel(), p.itemsize).astype(f"<u{p.itemsize}").reshape(known.shape)
    result: Array = p.copy()
    result[coded] = from_distances(z, p[coded], dtype)
    return result


def decode_few(content: Content, flags: int, offset: int, p: Array, dtype: str) -> Array:
    """With flag 4."""
    result: Array = p.copy()
    n = int.from_bytes(content.take(4), "little")
    checks.check_position_count(n, p.size)
    if n:
        between = content.integers(np.zeros(n, np.int64), 4)
        at = np.cumsum(between.astype(np.int64) + 1) - 1
        checks.check_positions(at, p.size)
        own, zero = p.ravel()[at], np.zeros(1, np.uint8)
        less = content.integers(contexts(own, dtype, offset, zero, zero), p.itemsize)
        checks.check_distances(less, 8 * p.itemsize)
        result.reshape(-1)[at] = from_distances((less + np.uint64(1)).astype(f"<u{p.itemsize}"), own, dtype)
    return result

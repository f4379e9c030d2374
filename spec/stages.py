"""The stages of decoding, sections 4 to 7 of dtscodec.md in their order: functions of JSON, bytes and numbers.

None of them knows the file. `vectors/stages` has a table for most, so a port can begin here."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import checks
import numpy as np
from checks import BITS, CHUNK, Array

STORED = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}  # numpy has no BF16: its bits are kept instead
UPPER = [0.1279296875, 0.388671875, 0.65625, 0.94140625, 1.2578125, 1.6171875, 2.0625, 2.734375]
FIXED = np.array([-x for x in reversed(UPPER)] + UPPER)  # values of 4-bit codes


# --- 3.4 digests ---


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def pack_id(head: bytes, rows: list[bytes]) -> bytes:
    """Of the first 8 + N bytes and the rows of `digests` after row 0."""
    return sha256(head + b"".join(rows))


# --- 4. index ---


@dataclass(slots=True)
class Block:
    """The keys of section 4.3, defaults filled in by `parse_tensor`; then what follows from them."""

    kind: str
    height: int = 0
    base: Any = ""  # [name, first row] or None
    rows: int = 0
    cols: int = 0
    to: str = ""
    planes: list[int] | None = None
    bits: int = 0
    per: str = ""
    bands: list[list[int]] = field(default_factory=list)  # of `values` as well: one of one component
    levels: str = ""
    rounding: str = ""
    start: int = 0  # its first row in the tensor
    columns: int = 0
    size: int = 0  # bytes that it decodes to
    bitmaps_at: int = 0  # where its part of each stream begins
    numbers_at: int = 0
    raw_at: int = 0
    codes_at: list[int] = field(default_factory=list)  # of each band


@dataclass
class Entry:
    """The keys of section 4.2."""

    name: str
    dtype: str
    shape: list[int]
    blocks: list[Any]  # of `Block`, once parsed
    split: int = 1


def parse_tensor(keys: dict[str, Any], prefix: list[str]) -> Entry:
    t, start = Entry(**keys), 0
    own = prefix[1] + t.name[len(prefix[0]) :] if t.name.startswith(prefix[0]) else t.name
    t.blocks = [Block(**block) for block in t.blocks]
    for b in t.blocks:
        b.start, b.height, b.columns = start, b.height or prod(t.shape[: t.split]), prod(t.shape[t.split :])
        b.size = b.height * b.columns * BITS[t.dtype] // 8
        b.rows, b.cols = b.rows or b.height, b.cols or b.columns
        b.bands = [[1, b.bits]] if b.kind == "values" else b.bands
        if b.kind in ("tie", "raw"):
            b.base = None
        elif isinstance(b.base, str):
            b.base = [b.base or own, start]
        if b.planes is not None:
            checks.check_planes(b.planes, b.size, plane_count(t.dtype), t.name)
        start += b.height
    return t


# --- 5. streams: where the parts of blocks lie ---


def bitmap_axes(b: Block) -> list[tuple[int, int]]:
    """How many rows there are and how many are coded; the same of columns."""
    return [(b.height, b.rows), (b.columns, b.cols)]


def bitmap_size(n: int, count: int) -> int:
    return -(-n // 8) if count < n else 0


def number_shapes(b: Block) -> Iterator[list[tuple[int, ...]]]:
    """For each band: levels of u (of all elements for `values`), levels of v, scales."""
    for r, bits in b.bands:
        tables = 0 if bits != 2 else r if b.levels else 1
        if b.kind == "lowrank":
            yield [(tables, 4), (tables, 4), (0 if bits == 16 else r,)]
        else:
            yield [(tables, 4), (0, 4), (0 if bits in (2, 16) else b.rows if b.per else 1,)]


def band_size(b: Block, k: int) -> int:
    r, bits = b.bands[k]
    if b.kind == "values":
        return vector_size(b.rows * b.cols, bits)
    return r * (vector_size(b.rows, bits) + vector_size(b.cols, bits))


def place_streams(blocks: list[Block]) -> dict[str, int]:
    """Tells the blocks where their parts of the streams begin; gives how long the streams are, files apart."""
    ends = {"rows": 0, "numbers": 0, "codes": 0, "raw": 0}
    for b in blocks:
        b.bitmaps_at, b.numbers_at, b.raw_at = ends["rows"], ends["numbers"], ends["raw"]
        ends["rows"] += sum(bitmap_size(n, count) for n, count in bitmap_axes(b))
        ends["numbers"] += (b.kind == "lowrank") + sum(prod(shape) for band in number_shapes(b) for shape in band)
        if b.kind == "raw":
            ends["raw"] += b.size if b.planes is None else sum(b.planes)
    for k in range(16):
        for b in blocks:
            if k < len(b.bands):
                b.codes_at.append(ends["codes"])
                ends["codes"] += band_size(b, k)
    return ends


# --- 5.1 bitmaps ---


def block_bitmaps(b: Block, bitmaps: bytes) -> Iterator[bytes]:
    """The parts of the stream that are the block's: for rows and for columns, empty where all are coded."""
    at = b.bitmaps_at
    for n, count in bitmap_axes(b):
        size = bitmap_size(n, count)
        yield bitmaps[at : at + size]
        at += size


def unpack_bitmap(bitmap: bytes, n: int) -> Array:
    """The elements that are set, of n; all if there is no bitmap."""
    if not bitmap:
        return np.arange(n)
    return np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little"))


# --- 5.2 numbers ---


def block_numbers(b: Block, numbers: Array) -> Iterator[list[Array]]:
    """The parts of the stream that are the block's: arrays as in `number_shapes`."""
    at = b.numbers_at + (b.kind == "lowrank")  # the norm is first
    for band in number_shapes(b):
        parts = []
        for shape in band:
            parts.append(numbers[at : at + prod(shape)].reshape(shape))
            at += prod(shape)
        yield parts


# --- 5.3 codes ---


def vector_size(n: int, bits: int) -> int:
    return -(-n * bits // 128) * 16


def unpack_codes(vectors: Array, n: int, bits: int) -> Array:
    """The n codes of each vector; each row of `vectors` is the bytes of one."""
    if bits < 8:  # several codes in a byte, the first one lowest
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (vectors[:, :, None] >> shifts & (1 << bits) - 1).reshape(len(vectors), -1)
    else:
        codes = np.ascontiguousarray(vectors).view("<u2" if bits == 16 else "u1")
    checks.check_code_padding(codes[:, n:])
    return codes[:, :n]


def code_values(codes: Array, bits: int, levels: Array) -> Array:
    """The values in F64 of rows of codes; for 2 bits each row has its table in `levels`, or all have the only one."""
    if bits == 2:
        return np.take_along_axis(np.broadcast_to(levels, (len(codes), 4)), codes.astype(np.intp), 1)
    if bits == 4:
        return np.asarray(FIXED[codes])
    values = codes.view("i1" if bits == 8 else "<f2")
    checks.check_code_values(values)
    return values.astype(np.float64)


# --- 5.4 planes ---


def plane_count(dtype: str) -> int:
    return max(1, BITS[dtype] // 8)


def plane_sizes(size: int, dtype: str) -> list[int]:
    """Plain lengths of the planes of `size` bytes, chunk by chunk."""
    k = plane_count(dtype)
    return [min(CHUNK, size - chunk) // k for chunk in range(0, size, CHUNK) for _ in range(k)]


def join_planes(planes: list[bytes], dtype: str) -> bytes:
    k = plane_count(dtype)
    chunks = []
    for i in range(0, len(planes), k):
        rows = np.frombuffer(b"".join(planes[i : i + k]), np.uint8).reshape(k, -1)
        chunks.append(rows.T.tobytes())
    return b"".join(chunks)


# --- 6.1 conversions ---


def widen(stored: Array, dtype: str) -> Array:
    """Numbers from their stored form: BF16 as F32, others as they are."""
    return (stored.astype("<u4") << 16).view("<f4") if dtype == "BF16" else stored


@np.errstate(all="ignore")  # infinities and NaNs are nothing to warn of
def narrow(values: Array, dtype: str) -> Array:
    """Rounds numbers to their stored form; to 16 bits by way of F32."""
    if dtype == "F64":
        return values.astype("<f8")
    single = values.astype("<f4")
    if dtype != "BF16":
        return single.astype(STORED[dtype])
    bits = single.view("<u4")
    rounded = bits + (0x7FFF + (bits >> 16 & 1)) >> 16  # up from the half, at the half itself only if that gives even
    return np.where(np.isnan(single), bits >> 16 | 0x40, rounded).astype("<u2")


def convert(data: bytes, source: str, target: str) -> bytes:
    """Bytes of one dtype to bytes of another: exact if they are equal."""
    return data if source == target else narrow(widen(np.frombuffer(data, STORED[source]), source), target).tobytes()


@np.errstate(all="ignore")
def add_delta(old: Array, delta: Array, dtype: str) -> Array:
    """Step 6 of section 8: numbers of the base and a delta, to the stored form of the result."""
    return narrow(add_wide(old, delta, dtype), dtype)


def add_wide(old: Array, delta: Array, dtype: str) -> Array:
    working = np.float64 if dtype == "F64" else np.float32
    return np.asarray(old.astype(working) + delta.astype(working))


# --- 6.6 dithered rounding ---


def thresholds(rows: Array, cols: Array) -> Array:
    """Of the elements in some rows and columns of a block, in the form that `np.ix_` gives."""
    x = (rows % 64 * 0x9E3779B1 + cols & 0xFFFFFFFF).astype(np.uint32)
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return np.asarray((x ^ x >> 16) >> 16)


@np.errstate(all="ignore")
def add_dithered(old: Array, delta: Array, rows: Array, cols: Array) -> Array:
    """As `add_delta`, to BF16."""
    single = add_wide(old, delta, "BF16")
    bits = single.view("<u4")
    return np.where(np.isnan(single), bits >> 16 | 0x40, bits + thresholds(rows, cols) >> 16).astype("<u2")


# --- 6.4, 6.5 deltas ---


def values_delta(b: Block, numbers: list[Array], codes: bytes) -> Array:
    """In F32, a row for each coded row."""
    levels, _, scales = numbers
    vector = unpack_codes(np.frombuffer(codes, np.uint8)[None], b.rows * b.cols, b.bits)
    values = code_values(vector, b.bits, levels).reshape(b.rows, b.cols)
    if len(scales):  # one, or one for each row
        values = values * scales[:, None]
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def components(b: Block, numbers: list[list[Array]], codes: list[bytes]) -> tuple[Array, Array]:
    """u s and v of all bands of a `lowrank` block, a row for each component."""
    us, vs = [], []
    for (r, bits), (u_levels, v_levels, scales), data in zip(b.bands, numbers, codes, strict=True):
        records, size = np.frombuffer(data, np.uint8).reshape(r, -1), vector_size(b.rows, bits)
        u = code_values(unpack_codes(records[:, :size], b.rows, bits), bits, u_levels)
        us.append(u * scales[:, None] if len(scales) else u)
        vs.append(code_values(unpack_codes(records[:, size:], b.cols, bits), bits, v_levels))
    return np.concatenate(us), np.concatenate(vs)


def ordered_sum(u: Array, v: Array) -> Array:
    """The sum of u v^T over the components in order, in F64; a few rows at a time, to stay in the cache."""
    total = np.zeros((u.shape[1], v.shape[1]))
    step = max(1, 2**15 // v.shape[1])
    for i in range(0, len(total), step):
        for a, b in zip(u[:, i : i + step], v, strict=True):
            total[i : i + step] += a[:, None] * b
    return total


def block_delta(b: Block, numbers: list[list[Array]], codes: list[bytes]) -> Array:
    """From the numbers and the codes of each band."""
    if b.kind == "values":
        return values_delta(b, numbers[0], codes[0])
    return ordered_sum(*components(b, numbers, codes))


# --- 7. base identity ---


def leaf(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    dimensions = ",".join(str(d) for d in shape)
    return sha256(f"dtscodec-tensor-1\n{dtype}\n{dimensions}\n".encode() + data)


def base_digest(leaves: dict[str, bytes]) -> bytes:
    parts = [b"dtscodec-base-1\n"]
    for name in sorted(leaves, key=str.encode):
        parts += [struct.pack("<I", len(name.encode())), name.encode(), leaves[name]]
    return sha256(b"".join(parts))

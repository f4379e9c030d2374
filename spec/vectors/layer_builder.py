"""Residual layers for `builder.py`, from plain descriptions: one element at a time, in integers and exact fractions."""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from builder import (
    PRECISION,
    WIDTH,
    Block,
    Maker,
    Parts,
    Place,
    T,
    base_digest,
    canonical,
    code_value,
    convert,
    delta_of,
    leaf,
    nearest,
    pack_float,
    plain_frame,
    unpack_floats,
)

MANTISSA = {"F8_E5M2": 2, "F8_E4M3": 3, "F16": 10, "BF16": 7, "F32": 23, "F64": 52, "C64": 23}
Elements = list[int]  # their bits, unsigned
Choose = Callable[[int, Elements], int]  # the code of a context and its integers


# --- elements ---


def size_of(dtype: str) -> int:
    return 4 if dtype == "C64" else max(1, int(WIDTH[dtype]) // 8)


def columns_of(entry: dict[str, Any]) -> int:
    dtype, split = entry["dtype"], entry.get("split", 1)
    if WIDTH[dtype] < 8:
        return 1
    columns: int = math.prod(entry["shape"][split:])
    return columns * (2 if dtype == "C64" else 1)


def split_elements(data: bytes, dtype: str) -> Elements:
    w = size_of(dtype)
    return list(data) if w == 1 else [int.from_bytes(data[i : i + w], "little") for i in range(0, len(data), w)]


def join_elements(elements: Elements, dtype: str) -> bytes:
    w = size_of(dtype)
    return bytes(elements) if w == 1 else b"".join(i.to_bytes(w, "little") for i in elements)


# --- 15.2 prediction ---


def exact_delta(b: Block, numbers: list[float], rows: int, cols: int) -> list[list[float]]:
    """The delta of a `lowrank` block, by integers."""
    us, vs, left = [], [], numbers[1:]
    for bits, components in b.bands:
        tables = 0 if bits != 2 else len(components) if "levels" in b.keys else 1
        levels = [left[4 * i : 4 * i + 4] for i in range(2 * tables)]
        scales = [1.0] * len(components) if bits == 16 else left[8 * tables :][: len(components)]
        left = left[8 * tables + (0 if bits == 16 else len(components)) :]
        for k, (codes_u, codes_v) in enumerate(components):
            u_levels, v_levels = (levels[k % tables], levels[tables + k % tables]) if tables else ([], [])
            us.append([code_value(c, bits, u_levels) * scales[k] for c in codes_u])
            vs.append([code_value(c, bits, v_levels) for c in codes_v])
    return product(us, vs, rows, cols)


def product(us: list[list[float]], vs: list[list[float]], rows: int, cols: int) -> list[list[float]]:
    """Section 15.2: a row of `us` and `vs` for each component."""
    k = (53 - math.ceil(math.log2(len(us)))) // 2
    e, f = (math.frexp(max(abs(x) for row in m for x in row))[1] for m in (us, vs))
    whole_u, whole_v = (
        [[round(Fraction(x) * Fraction(2) ** (k - y)) for x in row] for row in m] for m, y in ((us, e), (vs, f))
    )
    unit = Fraction(2) ** (e + f - 2 * k)
    sums = [[sum(u[i] * v[j] for u, v in zip(whole_u, whole_v, strict=True)) for j in range(cols)] for i in range(rows)]
    return [[float(x * unit) for x in row] for row in sums]


@dataclass
class Piece:
    """What the elements of one block are predicted from, one after another."""

    bits: Elements | None  # none where the base has another dtype
    numbers: list[float] | None = None  # none where factors do not matter
    delta: list[float] | None = None

    @property
    def count(self) -> int:
        return len(self.bits if self.numbers is None else self.numbers)  # type: ignore[arg-type]


def piece_of(b: Block, p: Place, numbers: list[float], with_delta: bool) -> Piece:
    if b.kind == "raw":
        return Piece(split_elements(b.data, p.dtype))
    bits = split_elements(p.base, p.dtype) if p.base_dtype == p.dtype else None
    if p.dtype not in PRECISION:
        return Piece(bits)
    piece = Piece(bits, unpack_floats(p.base, p.base_dtype))
    if with_delta and b.kind in ("values", "lowrank"):
        rows, cols = b.rows or range(p.height), b.cols or range(p.columns)
        own = exact_delta(b, numbers, len(rows), len(cols)) if b.kind == "lowrank" else delta_of(b, p, numbers)
        total = [0.0] * (p.height * p.columns)
        for i, row in zip(rows, own, strict=True):
            for j, d in zip(cols, row, strict=True):
                total[i * p.columns + j] = d
        piece.delta = total
    return piece


def predict(piece: Piece, dtype: str, columns: int, a: list[float] | None, t: float) -> Elements:
    """All elements of a block; `a` has a factor for each of its rows."""
    if piece.numbers is None or (piece.delta is None and a is None and piece.bits is not None):
        assert piece.bits is not None
        return piece.bits
    result = []
    for at, number in enumerate(piece.numbers):
        x = number if a is None else (1.0 + a[at // columns]) * number
        if piece.delta is not None:
            x = x + t * piece.delta[at]
        y = convert(x, dtype)
        if math.isfinite(y):
            result.append(int.from_bytes(pack_float(y, dtype), "little"))
        else:
            result.append(piece.bits[at] if piece.bits is not None else 0)
    return result


# --- 15.3 distances, 15.4 contexts and codes ---


def signed(x: int, bits: int) -> int:
    x %= 2**bits
    return x - 2**bits if x >= 2 ** (bits - 1) else x


def distance(i: int, p: int, dtype: str) -> int:
    """z of an element and its prediction."""
    bits = 8 * size_of(dtype)
    i, p = signed(i, bits), signed(p, bits)
    if dtype in MANTISSA:
        ordered = [x if x >= 0 else x ^ (2 ** (bits - 1) - 1) for x in (i, p)]
        d = ordered[1] - ordered[0] if p < 0 else ordered[0] - ordered[1]
    else:
        d = i - p
    d = signed(d, bits)
    return 2 * d if d >= 0 else -2 * d - 1


def context(p: int, dtype: str, offset: int, s: int, t: int) -> int:
    exponent = 0
    if dtype in MANTISSA:
        exponent = max(1, (p & 2 ** (8 * size_of(dtype) - 1) - 1) >> MANTISSA[dtype])
    return max(0, min(offset + s + t - 2 * exponent, 127))


def usual_code(_: int, integers: Elements) -> int:
    """As few bits as the largest integer needs, or nearly."""
    most = max(integers)
    if most <= 15:
        return 2 if most <= 3 else 1
    return 4 * max(0, (most.bit_length() - 8 + 3) // 4)


def share(integers: Elements, bits: int) -> bytes:
    """As one large number for each byte."""
    per = 8 // bits
    groups = [integers[i : i + per] for i in range(0, len(integers), per)]
    return bytes(sum(x << k * bits for k, x in enumerate(group)) for group in groups)


def write_integers(integers: Elements, contexts: list[int], size: int, choose: Choose = usual_code) -> bytes:
    """Section 15.4, of integers of `size` bytes."""
    known = sorted(set(contexts))
    buckets = [[z for z, c in zip(integers, contexts, strict=True) if c == k] for k in known]
    codes = [choose(k, bucket) for k, bucket in zip(known, buckets, strict=True)]
    lows, shared, escapes = b"", b"", []
    for code, bucket in zip(codes, buckets, strict=True):
        fours, bits = code >> 2, 8 >> (code & 3)
        for k in range(fours // 2):
            lows += bytes(z >> 8 * k & 255 for z in bucket)
        if fours % 2:
            lows += share([z >> 4 * fours - 4 & 15 for z in bucket], 4)
        most = 2**bits - 1
        shared += share([min(z >> 4 * fours, most) for z in bucket], bits)
        escapes += [(z >> 4 * fours) - most for z in bucket if z >> 4 * fours >= most]
    planes = b"".join(bytes(x >> 8 * k & 255 for x in escapes) for k in range(size))
    return bytes(codes) + lows + shared + planes


# --- 15.5 chunks ---


@dataclass
class Chunk:
    """How a chunk is written; the flags follow."""

    offset: int = 0
    t: float | None = None
    a: list[float] | None = None
    rows: list[int] | None = None  # scales
    columns: list[int] | None = None
    positions: bool = False
    is_empty: bool = False
    choose: Choose = usual_code
    choose_gaps: Choose = usual_code
    edit: Callable[[bytes], bytes] = lambda content: content
    frame: Callable[[bytes], bytes] = plain_frame

    def write(self, elements: Elements, predicted: Elements, dtype: str, columns: int) -> bytes:
        if self.is_empty:
            assert elements == predicted
            return b""
        flags = (self.rows is not None) + 2 * (self.columns is not None) + 4 * self.positions
        flags += 8 * (self.a is not None) + 16 * (self.t is not None)
        head = struct.pack("<Bh", flags, self.offset)
        head += b"".join(struct.pack("<f", x) for x in ([] if self.t is None else [self.t]) + (self.a or []))
        write = self._few if self.positions else self._many
        return self.frame(self.edit(head + write(elements, predicted, dtype, columns)))

    def _many(self, elements: Elements, predicted: Elements, dtype: str, columns: int) -> bytes:
        contexts, integers = [], []
        for at, (i, p) in enumerate(zip(elements, predicted, strict=True)):
            s = None if self.rows is None else self.rows[at // columns]
            t = None if self.columns is None else self.columns[at % columns]
            if s == 0 or t == 0:
                assert i == p
                continue
            contexts.append(context(p, dtype, self.offset, s or 0, t or 0))
            integers.append(distance(i, p, dtype))
        sides = bytes(self.rows or []) + bytes(self.columns or [])
        return sides + write_integers(integers, contexts, size_of(dtype), self.choose)

    def _few(self, elements: Elements, predicted: Elements, dtype: str, columns: int) -> bytes:
        places = [at for at, (i, p) in enumerate(zip(elements, predicted, strict=True)) if i != p]
        body = struct.pack("<I", len(places))
        if places:
            between = [at - before - 1 for at, before in zip(places, [-1, *places], strict=False)]
            body += write_integers(between, [0] * len(between), 4, self.choose_gaps)
            contexts = [context(predicted[at], dtype, self.offset, 0, 0) for at in places]
            less = [distance(elements[at], predicted[at], dtype) - 1 for at in places]
            body += write_integers(less, contexts, size_of(dtype), self.choose)
        return body


EMPTY = Chunk(is_empty=True)


# --- the layer ---


@dataclass
class Exact:
    """A tensor of the fine-tune: its elements, from their prediction, and how they are written."""

    change: Callable[[Elements], Elements]
    chunks: tuple[Chunk, ...]
    delta: bool = False


class ExactMaker(Maker):
    """A `Maker` of packs with a residual layer: `exact` says what tensors are, all others are as predicted."""

    def __init__(self, base: dict[str, T] | None = None, numbers: str = "F32", summary: Any = None) -> None:
        super().__init__(base, numbers, summary)
        self.exacts: dict[str, Exact] = {}
        self.weights: dict[str, tuple[bytes, bytes]] = {}  # what is stored, and its stored form
        self.tensors: dict[str, T] = {}  # the fine-tune's

    def exact(self, name: str, change: Callable[[Elements], Elements], *chunks: Chunk, delta: bool = False) -> None:
        self.exacts[name] = Exact(change, chunks, delta)

    def weigh(self, name: str, data: bytes, frame: Callable[[bytes], bytes] | None = None) -> None:
        """Add a weight file by its length and header, or an index of shards."""
        self.weights[name] = data, frame(data) if frame else data

    def finish(self) -> Parts:
        parts = super().finish()
        ordered = [self.entries[name] for name in sorted(self.entries, key=str.encode)]
        tensors: dict[str, dict[str, Any]] = {}
        chunks: dict[str, list[bytes]] = {}
        for entry, blocks in ordered:
            if blocks[0].kind != "tie":
                tensors[entry["name"]], chunks[entry["name"]] = self._add_exact(entry, blocks)
        for entry, [b, *_] in ordered:
            if b.kind == "tie":
                self.tensors[entry["name"]] = self.tensors[b.keys["to"]]
                tensors[entry["name"]], chunks[entry["name"]] = {}, []
            tensors[entry["name"]]["leaf"] = leaf(self.tensors[entry["name"]]).hex()
        names = [entry["name"] for entry, _ in ordered]
        weights = [{"name": n, "size": len(d), "stored": len(s)} for n, (d, s) in sorted(self.weights.items())]
        parts.layer = {"tensors": [tensors[name] for name in names]} | ({"weights": weights} if weights else {})
        parts.residual = b"".join(chunk for name in names for chunk in chunks[name])
        parts.residual += b"".join(stored for _, (_, stored) in sorted(self.weights.items()))
        parts.summary |= {"requires": ["residual"], "content": base_digest({n: leaf(self.tensors[n]) for n in names})}
        return parts

    def _add_exact(self, entry: dict[str, Any], blocks: list[Block]) -> tuple[dict[str, Any], list[bytes]]:
        name, dtype, columns = entry["name"], entry["dtype"], columns_of(entry)
        exact = self.exacts.get(name, Exact(lambda predicted: predicted, ()))
        pieces, start = [], 0
        for b in blocks:
            place, _ = self._place(entry, b, start)
            start += place.height
            numbers = [nearest(x or 0.0, self.numbers) for x in b.numbers]
            pieces.append(piece_of(b, place, numbers, exact.delta))
        count = sum(piece.count for piece in pieces)
        step = max(1, 2**20 // columns) * columns if columns else 1
        written = exact.chunks or (EMPTY,) * -(-count // step)
        rows: list[list[float] | None] = [None] * len(pieces)
        if any(c.a is not None for c in written):
            rows = list(self._row_factors(pieces, written, step, columns))
        # A factor of the delta belongs to a chunk: of each chunk's prediction of the whole tensor, its own rows count.
        predicted: Elements = []
        for k, c in enumerate(written):
            t = 1.0 if c.t is None else nearest(c.t, "F32")
            whole = [i for p, a in zip(pieces, rows, strict=True) for i in predict(p, dtype, columns, a, t)]
            predicted += whole[k * step : (k + 1) * step]
        elements = exact.change(predicted)
        self.tensors[name] = T(dtype, tuple(entry["shape"]), join_elements(elements, dtype))
        stored = [
            c.write(elements[k * step : (k + 1) * step], predicted[k * step : (k + 1) * step], dtype, columns)
            for k, c in enumerate(written)
        ]
        sizes = {"chunks": [len(s) for s in stored]} if any(stored) else {}
        return sizes | ({"prediction": "delta"} if exact.delta else {}), stored

    def _row_factors(
        self, pieces: list[Piece], chunks: tuple[Chunk, ...], step: int, columns: int
    ) -> Iterator[list[float] | None]:
        """For each block the factors of its rows, of all chunks; chunks without them have none in any vector."""
        total = [nearest(x, "F32") for c in chunks for x in c.a or [0.0] * (step // columns)]
        for p in pieces:
            count = p.count // columns
            yield total[:count]
            total = total[count:]


def weight_header(tensors: dict[str, T], metadata: dict[str, str] | None = None, spaces: int = 0) -> bytes:
    """Length and header of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, t in tensors.items():
        header[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
    text = canonical(header)
    text += b" " * (-len(text) % 8 + spaces)
    return struct.pack("<Q", len(text)) + text

"""Builds packs from plain descriptions, with what they decode to, and shares no code with any decoder.

Results come from exact rational rounding and Python floats, one element at a time. Nothing here checks anything: the
invalid vectors are edits of `Parts`. Frames are written by hand (stored and run-length blocks of RFC 8878), so that the
bytes do not depend on a zstd version; a few frames of the real compressor are pinned in `frames.json`."""

import base64
import hashlib
import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

PRECISION = {"F16": (11, -14, 15), "BF16": (8, -126, 127), "F32": (24, -126, 127), "F64": (53, -1022, 1023)}
LETTER = {"F16": "<e", "F32": "<f", "F64": "<d"}
BITS = {4: "F4", 6: "F6_E2M3 F6_E3M2", 8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ"}
BITS |= {16: "I16 U16 F16 BF16", 32: "I32 U32 F32", 64: "I64 U64 F64 C64"}
WIDTH = {dtype: bits for bits, dtypes in BITS.items() for dtype in dtypes.split()}
UPPER = [0.1279296875, 0.388671875, 0.65625, 0.94140625, 1.2578125, 1.6171875, 2.0625, 2.734375]
FIXED = [-x for x in reversed(UPPER)] + UPPER
FRAMES = Path(__file__).with_name("frames.json")
OWN = object()  # a block whose base is left out


class T(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


# --- numbers ---


def nearest(x: float, dtype: str) -> float:
    """`x` rounded to nearest, ties to even, by exact arithmetic."""
    if x == 0 or not math.isfinite(x):
        return x
    digits, low, high = PRECISION[dtype]
    unit = Fraction(2) ** (max(math.frexp(x)[1] - 1, low) - digits + 1)
    rounded = round(Fraction(x) / unit) * unit
    return math.copysign(math.inf, x) if abs(rounded) >= Fraction(2) ** (high + 1) else math.copysign(float(rounded), x)


def convert(x: float, dtype: str) -> float:
    """Section 6.1: to 16 bits by way of F32."""
    return x if dtype == "F64" else nearest(nearest(x, "F32"), dtype)


def pack_float(x: float, dtype: str) -> bytes:
    return struct.pack("<f", x)[2:] if dtype == "BF16" else struct.pack(LETTER[dtype], x)


def unpack_floats(data: bytes, dtype: str) -> list[float]:
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    return [x for (x,) in struct.iter_unpack(LETTER[dtype], data)]


def floats(dtype: str, shape: tuple[int, ...], values: list[float]) -> T:
    return T(dtype, shape, b"".join(pack_float(convert(x, dtype), dtype) for x in values))


def noise(rng: random.Random, dtype: str, *shape: int) -> T:
    """Any bytes; for floats multiples of 1/64 that are not large."""
    n = math.prod(shape)
    if dtype in PRECISION:
        return floats(dtype, shape, [rng.randrange(-1000, 1000) / 64 for _ in range(n)])
    size = n * WIDTH[dtype] // 8
    return T(dtype, shape, bytes(rng.randrange(2 if dtype == "BOOL" else 256) for _ in range(size)))


# --- JSON, zstd, hashes ---


def canonical(value: Any) -> bytes:
    def ordered(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: ordered(v[k]) for k in sorted(v, key=lambda k: k.encode("utf-16-be", "surrogatepass"))}
        return [ordered(x) for x in v] if isinstance(v, list | tuple) else v

    return json.dumps(ordered(value), ensure_ascii=False, separators=(",", ":")).encode()


def frame_header(size: int) -> bytes:
    """Single segment, content size in 4 bytes."""
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", size)


def frame_block(data: bytes, last: bool) -> bytes:
    run = len(data) > 1 and data == data[:1] * len(data)
    return struct.pack("<I", len(data) << 3 | run << 1 | last)[:3] + (data[:1] if run else data)


def plain_frame(data: bytes) -> bytes:
    pieces = [data[i : i + 2**17] for i in range(0, len(data), 2**17)] or [b""]
    return frame_header(len(data)) + b"".join(frame_block(p, p is pieces[-1]) for p in pieces)


def windowed(frame: bytes, descriptor: int) -> bytes:
    """The blocks of a `plain_frame` in a frame that asks for a window: 0x88 is 128 MiB, 0x89 is 144 MiB."""
    return frame[:4] + bytes([0x80, descriptor]) + frame[5:]


pins: dict[str, str] = json.loads(FRAMES.read_text()) if FRAMES.exists() else {}
pins_used: dict[str, str] = {}
pins_seen: dict[str, tuple[bytes, bytes, bytes]] = {}  # what they hold, the frames, and their prefixes


def pinned_frame(data: bytes, checksum: bool = False, window: int = 0, prefix: bytes = b"") -> bytes:
    """A frame of the real compressor, as it was when first written."""
    key = hashlib.sha256(repr((checksum, window)).encode() + prefix + data).hexdigest()[:24]
    if key not in pins:
        import zstandard

        options = {"window_log": window} if window else {}
        params = zstandard.ZstdCompressionParameters.from_level(19, write_checksum=checksum, **options)
        raw = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        compressor = zstandard.ZstdCompressor(dict_data=raw, compression_params=params)
        pins[key] = base64.b64encode(compressor.compress(data)).decode()
    pins_used[key] = pins[key]
    pins_seen[key] = data, base64.b64decode(pins[key]), prefix
    return pins_seen[key][1]


def leaf(t: T) -> bytes:
    lines = ["dtscodec-tensor-1", t.dtype, ",".join(str(d) for d in t.shape), ""]
    return hashlib.sha256("\n".join(lines).encode() + t.data).digest()


def base_digest(leaves: dict[str, bytes]) -> str:
    total = hashlib.sha256(b"dtscodec-base-1\n")
    for name in sorted(leaves, key=str.encode):
        total.update(struct.pack("<I", len(name.encode())) + name.encode() + leaves[name])
    return total.hexdigest()


def safetensors(tensors: dict[str, T], metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, t in tensors.items():
        header[name] = {"data_offsets": [at, at + len(t.data)], "dtype": t.dtype, "shape": t.shape}
        at += len(t.data)
    text = canonical(header)
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values())


# --- the file ---


@dataclass
class Arena:
    name: str
    dtype: str
    shape: list[int]
    data: bytes


@dataclass
class Parts:
    """All of a pack before it is a file. The last fields are what an invalid vector does behind this level."""

    summary: Any
    index: Any  # an object, or text as bytes
    leaves: dict[str, bytes]
    bitmaps: bytes = b""
    numbers: bytes = b""
    numbers_dtype: str = "F32"
    codes: bytes = b""
    raw: bytes = b""
    extra: dict[str, bytes] = field(default_factory=dict)
    width: int = 4
    layer: Any = None  # the index of the residual layer: an object, or text as bytes
    residual: bytes = b""
    frame: Callable[[bytes], bytes] = plain_frame
    on_index: Callable[[bytes], bytes] = lambda frame: frame
    on_layer: Callable[[bytes], bytes] = lambda frame: frame
    on_rows: Callable[[bytes], bytes] = lambda frame: frame
    on_arenas: Callable[[list[Arena]], Any] = lambda arenas: None  # after padding
    on_header: Callable[[dict[str, Any]], Any] = lambda header: None
    on_text: Callable[[bytes], bytes] = lambda text: text  # the header with its spaces
    on_signed: Callable[[bytes], bytes] = lambda data: data

    def file(self) -> bytes:
        arenas, more = self._arenas(), int(self.layer is not None)
        while True:  # the digests move what follows them, and so its padding
            count = arenas[0].shape[0]
            self._pad(arenas)
            blocks = -(-sum(len(a.data) for a in arenas[1:]) // self._block())
            if count == 1 + blocks + more:
                break
            arenas = self._arenas(1 + blocks + more)
        arenas += self._layer_arenas() if more else []
        self.on_arenas(arenas)
        return self.on_signed(self._sign(self._header(arenas), arenas))

    def _layer_arenas(self) -> list[Arena]:
        index = self.on_layer(self.frame(self.layer if isinstance(self.layer, bytes) else canonical(self.layer)))
        blocks = -(-(len(index) + len(self.residual)) // 2**20)
        arenas = [Arena("residual-digests", "U8", [blocks, 32], bytes(32 * blocks))]
        arenas += [Arena("residual-index", "U8", [len(index)], index)]
        return arenas + ([Arena("residual", "U8", [len(self.residual)], self.residual)] if self.residual else [])

    def _block(self) -> int:
        block = self.summary.get("block") if isinstance(self.summary, dict) else None
        return block if isinstance(block, int) and block > 0 else 2**16

    def _arenas(self, rows: int = 2) -> list[Arena]:
        index = self.index if isinstance(self.index, bytes) else canonical(self.index)
        leaves = [self.leaves[name][: self.width] for name in sorted(self.leaves, key=str.encode)]
        u8 = {"base": b"".join(leaves), "index": self.on_index(self.frame(index))}
        u8["rows"] = self.on_rows(self.frame(self.bitmaps)) if self.bitmaps else b""
        arenas = [Arena("digests", "U8", [rows, 32], bytes(32 * rows))]
        arenas += [Arena(name, "U8", [len(data)], data) for name, data in u8.items()]
        arenas[1].shape = [len(leaves), self.width]
        arenas.append(Arena("numbers", self.numbers_dtype, [], self.numbers))
        u8 = {"codes": self.codes, "raw": self.raw} | self.extra
        return [a for a in arenas + [Arena(name, "U8", [len(data)], data) for name, data in u8.items()] if a.data]

    def _pad(self, arenas: list[Arena]) -> None:
        end = 0
        for a, following in zip(arenas, [*arenas[1:], None], strict=True):
            if following and following.name in ("numbers", "codes", "raw"):
                a.data += bytes(-(end + len(a.data)) % 32)
            end += len(a.data)
            if a.name not in ("digests", "base"):
                a.shape = [len(a.data) // {"F32": 4, "BF16": 2}.get(a.dtype, 1)]

    def _header(self, arenas: list[Arena]) -> bytes:
        summary = self.summary if isinstance(self.summary, str) else canonical(self.summary).decode()
        header: dict[str, Any] = {"__metadata__": {"dtscodec": summary}}
        at = 0
        for a in arenas:
            header[a.name] = {"data_offsets": [at, at + len(a.data)], "dtype": a.dtype, "shape": a.shape}
            at += len(a.data)
        self.on_header(header)
        text = canonical(header)
        text = self.on_text(text + b" " * (-(8 + len(text)) % 32))
        return struct.pack("<Q", len(text)) + text

    def _sign(self, head: bytes, arenas: list[Arena]) -> bytes:
        size = len(arenas[0].data)
        names = [a.name for a in arenas]
        at = names.index("residual-digests") if "residual-digests" in names else len(arenas)
        front, layer = (b"".join(a.data for a in part) for part in (arenas[1:at], arenas[at + 1 :]))
        rows = digests(front, self._block())
        if at < len(arenas):
            own = fitted(digests(layer, 2**20), len(arenas[at].data))
            rows, layer = rows + hashlib.sha256(own).digest(), own + layer
        rows = fitted(rows, size - 32)
        return head + hashlib.sha256(head + rows).digest() + rows + front + layer


def digests(data: bytes, block: int) -> bytes:
    return b"".join(hashlib.sha256(data[i : i + block]).digest() for i in range(0, len(data), block))


def fitted(rows: bytes, size: int) -> bytes:
    """Where an invalid vector has another number of rows than digest blocks."""
    return (rows + bytes(size))[:size]


# --- blocks ---


@dataclass
class Place:
    """Where a block is decoded: its tensor, its size, the base's rows."""

    dtype: str
    height: int
    columns: int
    base_dtype: str
    base: bytes


@dataclass
class Block:
    kind: str
    keys: dict[str, Any] = field(default_factory=dict)
    base: Any = OWN
    height: int | None = None
    rows: list[int] | None = None
    cols: list[int] | None = None
    numbers: list[float | None] = field(default_factory=list)  # None: the norm
    bands: list[tuple[int, list[list[list[int]]]]] = field(default_factory=list)  # bits, components, vectors, codes
    data: bytes = b""
    planes: bool = False
    stored: list[bytes] = field(default_factory=list)  # the planes as they lie in the pack

    def json(self, alone: bool) -> dict[str, Any]:
        result = {"kind": self.kind} | self.keys
        result |= {} if self.base is OWN else {"base": self.base}
        result |= {} if alone else {"height": self.height}
        return result | {k: len(v) for k, v in (("rows", self.rows), ("cols", self.cols)) if v is not None}


def same(**more: Any) -> Block:
    return Block("same", **more)


def tie(to: str) -> Block:
    return Block("tie", {"to": to})


def raw(data: bytes, **more: Any) -> Block:
    return Block("raw", data=data, **more)


def values(bits: int, codes: list[int], numbers: list[float], per: bool = False, **more: Any) -> Block:
    keys = {"bits": bits} | ({"per": "row"} if per else {})
    return Block("values", keys, numbers=[*numbers], bands=[(bits, [[codes]])], **more)


def lowrank(
    bands: list[tuple[int, list[list[list[int]]]]], numbers: list[float], vector: bool = False, **more: Any
) -> Block:
    keys: dict[str, Any] = {"bands": [[len(c), bits] for bits, c in bands]} | ({"levels": "vector"} if vector else {})
    return Block("lowrank", keys, numbers=[None, *numbers], bands=bands, **more)


def dithered(block: Block) -> Block:
    block.keys["rounding"] = "dithered"
    return block


def some_codes(rng: random.Random, n: int, bits: int) -> list[int]:
    """Codes of `bits` bits; for 16 bits, F16 of modest size."""
    if bits == 16:
        return [int.from_bytes(struct.pack("<e", rng.randrange(-999, 999) / 256), "little") for _ in range(n)]
    return [rng.randrange(2**bits) for _ in range(n)]


def some_levels(rng: random.Random) -> list[float]:
    return sorted(rng.randrange(-200, 200) / 128 for _ in range(4))


def some_values(rng: random.Random, bits: int, h: int, w: int, per: bool = False, **more: Any) -> Block:
    height, columns = len(more.get("rows") or range(h)), len(more.get("cols") or range(w))
    scales = [rng.randrange(1, 200) / 4096 for _ in range(height if per else 1)]
    numbers = {2: some_levels(rng), 16: []}.get(bits, scales)
    return values(bits, some_codes(rng, height * columns, bits), numbers, per, **more)


def some_lowrank(
    rng: random.Random, bands: list[tuple[int, int]], h: int, w: int, vector: bool = False, **more: Any
) -> Block:
    height, columns = len(more.get("rows") or range(h)), len(more.get("cols") or range(w))
    numbers: list[float] = []
    made = []
    for r, bits in bands:
        for _ in range({2: 2 * (r if vector else 1)}.get(bits, 0)):
            numbers += some_levels(rng)
        numbers += [] if bits == 16 else [rng.randrange(1, 200) / 1024 for _ in range(r)]
        made.append((bits, [[some_codes(rng, n, bits) for n in (height, columns)] for _ in range(r)]))
    return lowrank(made, numbers, vector, **more)


# --- streams of a block, and what it decodes to ---


def pack_codes(codes: list[int], bits: int) -> bytes:
    """As one large number: element i times 2^(i bits)."""
    size = -(-len(codes) * bits // 128) * 16
    return sum(c << i * bits for i, c in enumerate(codes)).to_bytes(size, "little")


def bitmap(chosen: list[int] | None, n: int) -> bytes:
    return b"" if chosen is None else sum(1 << i for i in chosen).to_bytes(-(-n // 8), "little")


def split_planes(data: bytes, k: int) -> list[bytes]:
    chunks = [data[i : i + 2**20] for i in range(0, len(data), 2**20)]
    return [chunk[p::k] for chunk in chunks for p in range(k)]


def code_value(code: int, bits: int, levels: list[float]) -> float:
    if bits == 8:
        return float(code - 256 if code > 127 else code)
    return unpack_floats(code.to_bytes(2, "little"), "F16")[0] if bits == 16 else (FIXED if bits == 4 else levels)[code]


def delta_of_values(b: Block, numbers: list[float], rows: int, cols: int) -> list[list[float]]:
    bits, [[codes]] = b.bands[0]
    x = [[code_value(codes[i * cols + j], bits, numbers) for j in range(cols)] for i in range(rows)]
    if bits in (4, 8):
        scales = numbers if "per" in b.keys else numbers * rows
        x = [[nearest(s * y, "F32") for y in row] for s, row in zip(scales, x, strict=True)]
    return x


def delta_of_lowrank(b: Block, numbers: list[float], rows: int, cols: int) -> list[list[float]]:
    total, left = [[0.0] * cols for _ in range(rows)], numbers[1:]
    for bits, components in b.bands:
        tables = 0 if bits != 2 else len(components) if "levels" in b.keys else 1
        levels = [left[4 * i : 4 * i + 4] for i in range(2 * tables)]
        scales = [1.0] * len(components) if bits == 16 else left[8 * tables :][: len(components)]
        left = left[8 * tables + (0 if bits == 16 else len(components)) :]
        for k, (codes_u, codes_v) in enumerate(components):
            u_levels, v_levels = (levels[k % tables], levels[tables + k % tables]) if tables else ([], [])
            u = [code_value(c, bits, u_levels) * scales[k] for c in codes_u]
            v = [code_value(c, bits, v_levels) for c in codes_v]
            for i in range(rows):
                total[i] = [t + u[i] * y for t, y in zip(total[i], v, strict=True)]
    return total


def round_dithered(total: float, i: int, j: int) -> float:
    """A number of F32 to BF16, by the threshold of row i and column j."""
    x = (i % 64 * 0x9E3779B1 + j) % 2**32
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor % 2**32
    (bits,) = struct.unpack("<I", struct.pack("<f", total))
    bits += (x ^ x >> 16) >> 16
    return float(struct.unpack("<f", struct.pack("<I", bits >> 16 << 16))[0])


def apply_delta(b: Block, delta: list[list[float]], p: Place) -> bytes:
    old, working = unpack_floats(p.base, p.base_dtype), "F64" if p.dtype == "F64" else "F32"
    new = [convert(x, p.dtype) for x in old]
    for i, row in zip(b.rows or range(p.height), delta, strict=True):
        for j, d in zip(b.cols or range(p.columns), row, strict=True):
            at = i * p.columns + j
            total = nearest(nearest(old[at], working) + nearest(d, working), working)
            new[at] = round_dithered(total, i, j) if "rounding" in b.keys else convert(total, p.dtype)
    kept = b"".join(pack_float(x, p.dtype) for x in new)
    if p.base_dtype != p.dtype:
        return kept
    size = WIDTH[p.dtype] // 8  # what is not coded keeps its bytes, NaNs as well
    rows, cols = set(b.rows or range(p.height)), set(b.cols or range(p.columns))
    coded = [i in rows and j in cols for i in range(p.height) for j in range(p.columns)]
    return b"".join((kept if c else p.base)[i * size : (i + 1) * size] for i, c in enumerate(coded))


def decode_block(b: Block, p: Place, numbers: list[float]) -> bytes:
    if b.kind == "raw":
        return b.data
    if b.kind == "same":
        same_type = p.dtype == p.base_dtype
        old = [] if same_type else unpack_floats(p.base, p.base_dtype)
        return p.base if same_type else b"".join(pack_float(convert(x, p.dtype), p.dtype) for x in old)
    return apply_delta(b, delta_of(b, p, numbers), p)


def delta_of(b: Block, p: Place, numbers: list[float]) -> list[list[float]]:
    make = delta_of_values if b.kind == "values" else delta_of_lowrank
    return make(b, numbers, len(b.rows or range(p.height)), len(b.cols or range(p.columns)))


class Maker:
    """A pack under construction: add tensors and files, then `finish`."""

    def __init__(self, base: dict[str, T] | None = None, numbers: str = "F32", summary: Any = None) -> None:
        self.base = base or {}
        self.numbers = numbers
        self.summary: dict[str, Any] = {"block": 65536, "version": 1} | (summary or {})
        self.index: dict[str, Any] = {}
        self.entries: dict[str, tuple[dict[str, Any], list[Block]]] = {}
        self.files: dict[str, tuple[bytes, bytes] | str] = {}  # content and stored form, or digest
        self.base_files: dict[str, bytes] | None = None  # of the base's directory, if it has one
        self.changed: set[str] = set()  # names of the files that have one of those as prefix
        self.expected: dict[str, T] = {}
        self.frame: Callable[[bytes], bytes] = plain_frame

    def add(self, name: str, dtype: str, shape: tuple[int, ...], *blocks: Block, split: int = 1) -> None:
        entry = {"name": name, "dtype": dtype, "shape": list(shape)} | ({"split": split} if split > 1 else {})
        for b in blocks:
            b.height = math.prod(shape[:split]) if len(blocks) == 1 else b.height
            if b.planes:
                planes = split_planes(b.data, max(1, WIDTH[dtype] // 8))
                b.stored = [min(p, self.frame(p), key=len) for p in planes]
                b.keys["planes"] = [len(p) for p in b.stored]
        self.entries[name] = entry, list(blocks)

    def carry(self, name: str, content: bytes, frame: Callable[[bytes], bytes] | None = None) -> None:
        self.files[name] = content, frame(content) if frame else content

    def change(self, name: str, base_file: bytes, content: bytes, frame: bytes) -> None:
        self.base_files = (self.base_files or {}) | {name: base_file}
        self.changed.add(name)
        self.files[name] = content, frame

    def finish(self) -> Parts:
        ordered = [self.entries[name] for name in sorted(self.entries, key=str.encode)]
        index = self.index | {"tensors": [e | {"blocks": [b.json(len(bs) == 1) for b in bs]} for e, bs in ordered]}
        parts = Parts(self.summary | {"tensors": len(ordered)}, index, {}, numbers_dtype=self.numbers, frame=self.frame)
        for entry, blocks in ordered:
            self._add_tensor(parts, entry, blocks)
        for entry, [b, *_] in ordered:
            if b.kind == "tie":
                self.expected[entry["name"]] = self.expected[b.keys["to"]]
        for k in range(16):
            bands = [b.bands[k] for _, blocks in ordered for b in blocks if k < len(b.bands)]
            parts.codes += b"".join(pack_codes(c, bits) for bits, r in bands for record in r for c in record)
        self._add_files(parts)
        if parts.leaves:
            parts.summary["base"] = {"digest": base_digest(parts.leaves)} | self.summary.get("base", {})
        return parts

    def _add_tensor(self, parts: Parts, entry: dict[str, Any], blocks: list[Block]) -> None:
        result, start = b"", 0
        for b in blocks:
            place, used = self._place(entry, b, start)
            start += place.height
            parts.leaves |= {name: leaf(self.base[name]) for name in used}
            parts.bitmaps += bitmap(b.rows, place.height) + bitmap(b.cols, place.columns)
            parts.raw += b"".join(b.stored) if b.planes else b.data
            numbers = [nearest(x or 0.0, self.numbers) for x in b.numbers]
            if b.kind == "lowrank":
                square = sum(x * x for row in delta_of(b, place, numbers) for x in row)
                numbers[0] = nearest(math.sqrt(square), self.numbers)
            parts.numbers += b"".join(pack_float(x, self.numbers) for x in numbers)
            result += decode_block(b, place, numbers) if b.kind != "tie" else b""
        self.expected[entry["name"]] = T(entry["dtype"], tuple(entry["shape"]), result)

    def _add_files(self, parts: Parts) -> None:
        files: list[dict[str, Any]] = []
        for name in sorted(self.files, key=str.encode):
            f = self.files[name]
            if isinstance(f, str):
                files.append({"name": name, "digest": f})
            else:
                files.append({"name": name, "size": len(f[0]), "stored": len(f[1])})
                parts.raw += f[1]
            if name in self.changed:
                files[-1]["digest"] = hashlib.sha256((self.base_files or {})[name]).hexdigest()
        parts.index |= {"files": files} if files else {}

    def _place(self, entry: dict[str, Any], b: Block, start: int) -> tuple[Place, list[str]]:
        dtype, name, split = entry["dtype"], entry["name"], entry.get("split", 1)
        height, columns = b.height or 0, math.prod(entry["shape"][split:])
        if b.kind in ("raw", "tie") or b.base is None:
            return Place(dtype, height, columns, dtype, bytes(height * columns * WIDTH[dtype] // 8)), []
        a, z = self.index.get("prefix", ["", ""])
        other: Any = z + name[len(a) :] if name.startswith(a) else name
        other, first = (other, start) if b.base is OWN else b.base if isinstance(b.base, list) else (b.base, start)
        t = self.base[other]
        row = columns * WIDTH[t.dtype]  # in bits
        data = t.data[first * row // 8 : (first + height) * row // 8]
        return Place(dtype, height, columns, t.dtype, data), [other]

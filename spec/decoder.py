"""A plain decoder of dtscodec packs, in the order of dtscodec.md: the oracle for faster ones. Checks name their rules.

Low-rank deltas are summed component by component in F64 as section 8 says, a few rows at a time to stay in cache."""

import hashlib
import json
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

Array = NDArray[Any]
Checks = dict[str, Callable[[Any], object]]
DIMS = {"digests": 2, "base": 2, "index": 1, "rows": 1, "numbers": 1, "codes": 1, "raw": 1}  # arenas in file order
ALIGNED = ("numbers", "codes", "raw")
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8}
BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32}
BITS |= {"F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64}
STORED = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}  # numpy has no BF16: its bits are kept instead
UPPER = [0.1279296875, 0.388671875, 0.65625, 0.94140625, 1.2578125, 1.6171875, 2.0625, 2.734375]
FIXED = np.array([-x for x in reversed(UPPER)] + UPPER)
CODED = {"height", "base", "rows", "cols"}
KEYS = {"same": {"height", "base"}, "tie": {"to"}, "raw": {"height", "planes"}}
KEYS |= {"values": CODED | {"bits", "per"}, "lowrank": CODED | {"bands", "levels"}}
SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab", ".spm")


class Refused(ValueError):
    def __init__(self, reason: str, where: str, detail: object) -> None:
        super().__init__(f"{reason}: {where}: {str(detail)[:200]}")
        self.reason = reason


class Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def need(ok: object, reason: str, where: str, detail: object) -> None:
    if not ok:
        raise Refused(reason, where, detail)


# --- JSON (4.1) and zstd ---


def whole(v: Any, low: int = 0, high: int = 2**53) -> bool:
    return type(v) is int and low <= v <= high


def wholes(v: Any, shortest: int = 0, longest: int = 2**32) -> bool:
    return isinstance(v, list) and shortest <= len(v) <= longest and all(map(whole, v))


def text(v: Any, low: int = 1) -> bool:
    return isinstance(v, str) and len(v) >= low


def is_hex(v: Any) -> bool:
    return text(v, 64) and len(v) == 64 and set(v) <= set("0123456789abcdef")


def is_name(v: Any) -> bool:  # [I4] but for the order
    return text(v) and len(v.encode()) <= 1024 and v != "__metadata__"


def ascending(v: Any) -> bool:
    return isinstance(v, list) and all(map(text, v)) and all(a.encode() < b.encode() for a, b in pairwise(v))


ARENA: Checks = {"dtype": lambda v: text(v, 0), "shape": wholes, "data_offsets": lambda v: wholes(v, 2, 2)}


def check(v: Any, reason: str, where: str, must: Checks, may: Checks, unknown: str = "unknown") -> None:
    need(isinstance(v, dict), reason, where, "not an object")
    need(v.keys() <= must.keys() | may.keys(), unknown, where, list(v))  # [S2] [I3]
    for key, ok in (must | may).items():
        need(ok(v[key]) if key in v else key in may, reason, where, key)


def in_order(v: Any, depth: int = 8) -> Any:
    """`v` with keys sorted by UTF-16 units (RFC 8785); what 4.1 has no place for is an error."""
    if v is False or (type(v) is int and abs(v) >= 2**53) or (isinstance(v, dict | list) and not depth):
        raise ValueError("false, a large number, or nested too deep")
    if isinstance(v, dict):
        return {k: in_order(v[k], depth - 1) for k in sorted(v, key=lambda k: k.encode("utf-16-be"))}
    return [in_order(x, depth - 1) for x in v] if isinstance(v, list) else v


def no_fraction(token: str) -> None:
    raise ValueError(f"{token} is no integer")


def canonical(data: bytes, reason: str) -> Any:
    try:
        value = in_order(json.loads(data.decode(), parse_float=no_fraction, parse_constant=no_fraction))
        again = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:  # also for bad UTF-8 and lone surrogates
        raise Refused(reason, "JSON", error) from None
    need(again == data, reason, "JSON", "not canonical")
    return value


def inflate(data: bytes, where: str, limit: int, size: int = -1, reason: str = "zstd") -> tuple[bytes, int]:
    """The content of the zstd frame at the start of `data`, `size` bytes if given, and the frame's length."""
    try:
        frame = zstandard.get_frame_parameters(data)
        need(data[:4] == b"\x28\xb5\x2f\xfd" and frame.dict_id == 0, "zstd", where, "not a plain frame")
        need(frame.content_size < 2**63, "zstd", where, "no content size")
        need(frame.content_size <= limit, "limit", where, f"{frame.content_size} bytes inflated")
        need(size in (-1, frame.content_size), reason, where, f"{frame.content_size} bytes, not {size}")
        at, blocks, last = zstandard.frame_header_size(data), 0, 0
        while not last:  # a block gives at most 128 KiB; its 3 bytes are 1 bit last, 2 bits type (1: run), 21 bits size
            head = int.from_bytes(data[at : at + 3], "little")
            at, blocks, last = at + 3 + (1 if head >> 1 & 3 == 1 else head >> 3), blocks + 1, head & 1
            need(at + 4 * frame.has_checksum <= len(data), "zstd", where, "the frame ends too early")
        at += 4 * frame.has_checksum
        need(0 < frame.content_size <= blocks << 17, "zstd", where, "a content size that the blocks cannot have")
        return zstandard.ZstdDecompressor().decompress(data[:at]), at
    except zstandard.ZstdError as error:
        raise Refused("zstd", where, error) from None


def whole_frame(data: bytes, size: int, where: str, reason: str) -> bytes:
    content, used = inflate(data, where, 2**30, size, reason)
    need(used == len(data), "zstd", where, "bytes after the frame")
    return content


# --- 3. container ---


class Arena(NamedTuple):
    dtype: str
    shape: list[int]
    begin: int  # in the file
    end: int


def parse_header(data: bytes) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(data[:8], "little")
    need(len(data) >= 8, "truncated", "file", "no length")  # [C1]
    need(size <= 65528 and size % 32 == 24, "header", "length", size)  # [C2]
    need(len(data) >= 8 + size, "truncated", "header", f"{len(data)} bytes of {8 + size}")  # [C1]
    content = data[8 : 8 + size].rstrip(b" ")
    header = canonical(content, "header")  # [C3]
    need(isinstance(header, dict) and size - len(content) < 32, "header", "header", "no object, or spaces")  # [C3]
    for name, value in ({"__metadata__": None} | header).items():
        must: Checks = {"dtscodec": lambda v: text(v, 0)} if name == "__metadata__" else ARENA
        check(value, "header", name, must, {}, "header")  # [C4]
    return header, 8 + size


def parse_summary(data: bytes) -> dict[str, Any]:
    summary: dict[str, Any] = canonical(data, "summary")  # [S2]
    need(isinstance(summary, dict), "summary", "summary", "not an object")
    need(whole(summary.get("version"), 1, 1), "version", "summary", summary.get("version"))  # [S1]
    block: Checks = {"block": lambda v: whole(v, 2**16, 2**24) and v & v - 1 == 0}
    names: Checks = dict.fromkeys(("requires", "optional"), lambda v: v and ascending(v))
    may = names | {"base": lambda v: True, "task": text, "encoder": text}
    check(summary, "summary", "summary", {"version": whole, "tensors": whole} | block, may)  # [S2]
    if "base" in summary:
        check(summary["base"], "summary", "base", {"digest": is_hex}, {"repo": text, "revision": text})  # [S2]
    need("requires" not in summary, "feature", "summary", summary.get("requires"))  # [S3]
    return summary


def place_arenas(header: dict[str, Any], start: int, optional: list[str], size: int) -> dict[str, Arena]:
    found = {n: Arena(a["dtype"], a["shape"], *a["data_offsets"]) for n, a in header.items() if n != "__metadata__"}
    for name in found:
        need(name in DIMS or (name[:2] == "x." and name[2:] in optional), "unknown", name, "an arena")  # [C5] [C8]
    need({"digests", "index"} <= found.keys(), "layout", "header", "an arena is missing")  # [C5]
    rank, end = list(DIMS), 0
    for name, a in sorted(found.items(), key=lambda i: (rank.index(i[0]) if i[0] in DIMS else 7, i[1].begin)):
        width = {"numbersBF16": 2, "numbersF32": 4}.get(name + a.dtype, a.dtype == "U8" and name != "numbers")
        need(width and len(a.shape) == DIMS.get(name, len(a.shape)), "layout", name, "dtype or shape")  # [C5]
        last = a.shape[-1] if DIMS.get(name) == 2 else 32
        need(last == 32 or (name == "base" and 4 <= last <= 32), "layout", name, a.shape)  # [C5]
        need(a.begin == end < a.end == end + prod(a.shape) * width, "layout", name, "place or size")  # [C5]
        need(name not in ALIGNED or (start + end) % 32 == 0, "layout", name, "not aligned")  # [C6]
        found[name], end = a._replace(begin=start + a.begin, end=start + a.end), a.end
    need(size >= start + end, "truncated", "file", f"{size} bytes of {start + end}")  # [C1]
    need(size == start + end, "layout", "file", f"{size - start - end} bytes too many")  # [C1]
    return found


# --- 4. index: tensors and blocks stay objects of the JSON, with defaults filled in and what follows from them ---


def is_band(v: Any) -> bool:
    return wholes(v, 2, 2) and v[0] > 0 and v[1] in (2, 4, 8, 16)


def is_base(v: Any, own: str, start: int) -> bool:
    """`null`, a name, or a name and a row, whichever is the shortest that says it (4.4)."""
    if isinstance(v, list):
        return len(v) == 2 and is_name(v[0]) and whole(v[1]) and v[1] != start
    return v is None or (is_name(v) and v != own)


def plain_planes(size: int, k: int) -> list[int]:
    return [min(2**20, size - chunk) // k for chunk in range(0, size, 2**20) for _ in range(k)]


def parse_tensor(t: Any, prefix: list[str]) -> None:
    must: Checks = {"name": is_name, "dtype": lambda v: text(v) and v in BITS, "shape": lambda v: wholes(v, 0, 8)}
    must["blocks"] = lambda v: isinstance(v, list) and v
    check(t, "index", "tensor", must, {"split": lambda v: whole(v, 2, len(t["shape"]))})  # [I3] [I4] [T1]
    name, split, shape = t["name"], t.setdefault("split", 1), t["shape"]
    need(prod(d for d in shape if d) <= 2**48, "limit", name, "elements")  # [T3]
    t |= {"bits": BITS[t["dtype"]], "height": prod(shape[:split]), "columns": prod(shape[split:])}
    own = prefix[1] + name[len(prefix[0]) :] if name.startswith(prefix[0]) else name
    start = 0
    for b in t["blocks"]:
        need(isinstance(b, dict) and text(b.get("kind")), "index", name, "kind")  # [B3]
        need(b["kind"] in KEYS and b.keys() <= KEYS[b["kind"]] | {"kind"}, "unknown", name, list(b))  # [I3]
        need(b["kind"] != "tie" or len(t["blocks"]) == 1, "index", name, "a tie among blocks")  # [B4]
        check_block(b, t, own, start)
        fill_block(b, t, own, start)
        start += b["height"]
    need(start == t["height"], "index", name, f"{start} rows of {t['height']}")  # [B1]


def check_block(b: dict[str, Any], t: dict[str, Any], own: str, start: int) -> None:
    kind, name, height = b["kind"], t["name"], b.get("height", t["height"])
    must: Checks = {"kind": text} | ({"height": lambda v: whole(v, 1)} if len(t["blocks"]) > 1 else {})
    own_keys: dict[str, Checks] = {
        "tie": {"to": is_name},
        "values": {"bits": lambda v: is_band([1, v])},
        "lowrank": {"bands": lambda v: isinstance(v, list) and 0 < len(v) <= 16 and all(map(is_band, v))},
    }
    may: Checks = {"rows": lambda v: whole(v, 1, height - 1), "cols": lambda v: whole(v, 1, t["columns"] - 1)}
    may |= {"base": lambda v: is_base(v, own, start), "planes": wholes}
    may |= {"per": lambda v: v == "row" and b["bits"] in (4, 8), "levels": lambda v: v == "vector"}
    check(b, "index", name, must | own_keys.get(kind, {}), may, "index")  # [B3]
    coded = kind in ("values", "lowrank")
    need(not coded or (t["dtype"] in STORED and height * t["columns"]), "index", name, "cannot be coded")  # [B2]


def fill_block(b: dict[str, Any], t: dict[str, Any], own: str, start: int) -> None:
    height, base = b.setdefault("height", t["height"]), b.get("base", own)
    base = None if b["kind"] in ("tie", "raw") or base is None else base if isinstance(base, list) else [base, start]
    b |= {"start": start, "base": base, "rows": b.get("rows", height), "cols": b.get("cols", t["columns"])}
    whole_bytes = all(n * t["columns"] * t["bits"] % 8 == 0 for n in (height, base[1] if base else 0))
    need(whole_bytes, "index", t["name"], "rows do not fill bytes")  # [T2]
    b["bands"] = b.get("bands", [[1, b["bits"]]] if "bits" in b else [])
    need(sum(r for r, _ in b["bands"]) <= 65535, "limit", t["name"], "components")  # [T3]
    b["size"] = height * t["columns"] * t["bits"] // 8
    if "planes" in b:
        need(len(b["planes"]) == -(-b["size"] // 2**20) * max(1, t["bits"] // 8), "index", t["name"], "planes")  # [P1]
        pairs = list(zip(b["planes"], plain_planes(b["size"], max(1, t["bits"] // 8)), strict=True))
        need(all(stored <= plain for stored, plain in pairs), "index", t["name"], "a long plane")  # [P1]


def check_file(f: Any) -> None:
    carried: Checks = {"size": whole, "stored": whole}
    named: Checks = {"digest": is_hex}
    need(isinstance(f, dict), "index", "file", "not an object")
    check(f, "index", "file", (named if "digest" in f else carried) | {"name": lambda v: text(v, 0)}, {})  # [I3]
    name = f["name"]
    need(len(name.encode()) <= 1024, "index", "file", name)  # [I4]
    need(all(p and p[0] != "." for p in name.split("/")), "file", name, "a component")  # [F1]
    need(not any(c in "\\:" or c < " " for c in name), "file", repr(name), "a character")  # [F1]
    need(name.endswith(SUFFIXES) and not name.endswith(".index.json"), "file", name, "a suffix")  # [F1]
    need(f.get("stored", 0) <= f.get("size", 0) <= 2**30, "file", name, "size or stored")  # [F2]


# --- 5. streams ---


def vector_sizes(b: dict[str, Any], bits: int) -> list[int]:
    """Bytes of the vectors of a record: of u and v, or of all elements."""
    counts = [b["rows"] * b["cols"]] if b["kind"] == "values" else [b["rows"], b["cols"]]
    return [-(-n * bits // 128) * 16 for n in counts]


def number_counts(b: dict[str, Any]) -> list[tuple[int, int, int]]:
    """For each band: level tables of u (or of all elements), level tables of v, scales."""
    if b["kind"] == "values":
        return [{2: (1, 0, 0), 16: (0, 0, 0)}.get(b["bits"], (0, 0, b["rows"] if "per" in b else 1))]
    tables = [(r if "levels" in b else 1) if bits == 2 else 0 for r, bits in b["bands"]]
    return [(k, k, 0 if bits == 16 else r) for k, (r, bits) in zip(tables, b["bands"], strict=True)]


def code_values(data: Array, n: int, bits: int, levels: Array, where: str) -> Array:
    """The values of n codes in each row of `data`, in F64."""
    if bits < 8:
        data = (data[:, :, None] >> np.arange(0, 8, bits, dtype=np.uint8) & (1 << bits) - 1).reshape(len(data), -1)
    codes = np.ascontiguousarray(data).view("<u2" if bits == 16 else "u1")
    need(not codes[:, n:].any(), "padding", where, "of a vector")  # [E1]
    if bits == 2:
        return np.take_along_axis(np.broadcast_to(levels, (len(codes), 4)), codes[:, :n].astype(np.intp), 1)
    values = FIXED[codes] if bits == 4 else codes.view("i1" if bits == 8 else "<f2").astype(np.float64)
    need(np.isfinite(values).all(), "numbers", where, "a code")  # [E2]
    return values[:, :n]


# --- 6. conversions and sums ---


def widen(stored: Array, dtype: str) -> Array:
    return (stored.astype("<u4") << 16).view("<f4") if dtype == "BF16" else stored


@np.errstate(all="ignore")  # infinities and NaNs are nothing to warn of
def narrow(values: Array, dtype: str) -> Array:
    """Rounds to the stored form of `dtype`; to 16 bits by way of F32 (6.1)."""
    if dtype == "F64":
        return values.astype("<f8")
    single = values.astype("<f4")
    if dtype != "BF16":
        return single.astype(STORED[dtype])
    bits = single.view("<u4")
    rounded = bits + (0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(single), bits >> 16 | 0x40, rounded).astype("<u2")


def convert(data: bytes, source: str, target: str) -> bytes:
    return data if source == target else narrow(widen(np.frombuffer(data, STORED[source]), source), target).tobytes()


def ordered_sum(u: Array, v: Array) -> Array:
    """The sum of u v^T over components in F64, in order."""
    total = np.zeros((u.shape[1], v.shape[1]))
    step = max(1, 2**15 // v.shape[1])
    for i in range(0, len(total), step):
        for a, b in zip(u[:, i : i + step], v, strict=True):
            total[i : i + step] += a[:, None] * b
    return total


# --- 7. base identity ---


def leaf(t: Tensor) -> bytes:
    head = f"dtscodec-tensor-1\n{t.dtype}\n{','.join(map(str, t.shape))}\n"
    return hashlib.sha256(head.encode() + t.data).digest()


def base_digest(leaves: dict[str, bytes]) -> str:
    parts = [struct.pack("<I", len(name)) + name + x for name, x in sorted((n.encode(), x) for n, x in leaves.items())]
    return hashlib.sha256(b"dtscodec-base-1\n" + b"".join(parts)).hexdigest()


# --- 8. decoding ---


class Pack:
    """Steps 1 and 2 of section 8; then the others for each tensor asked for."""

    def __init__(self, data: bytes) -> None:
        header, start = parse_header(data)
        self.summary = parse_summary(header["__metadata__"]["dtscodec"].encode())
        self._data, self._arenas = data, place_arenas(header, start, self.summary.get("optional", []), len(data))
        self._good, self._leaves = set[int](), dict[str, tuple[Tensor, bytes]]()
        self._check_id(start)
        content, used = inflate(self._arena("index"), "index", 2**26)  # [I1]
        self._parse_index(canonical(content, "index"))  # [I2]
        self._place_streams()
        self._check_totals(used)
        self._check_bitmaps()
        self._check_numbers()

    def _check_id(self, start: int) -> None:
        a, block = self._arenas["digests"], self.summary["block"]
        count = -(-(len(self._data) - a.end) // block)
        need(a.shape[0] == 1 + count, "layout", "digests", f"{a.shape[0]} rows")  # [D1]
        self._rows = [self._data[i : i + 32] for i in range(a.begin, a.end, 32)]
        self.id = hashlib.sha256(self._data[:start] + b"".join(self._rows[1:])).hexdigest()
        need(self.id == self._rows[0].hex(), "checksum", "header", "the pack id is wrong")  # [D2]

    def _arena(self, name: str, begin: int = 0, size: int | None = None) -> bytes:
        """Bytes of an arena, all if no size is given, after a check of the digest blocks they lie in."""
        if name not in self._arenas:
            return b""
        a, first, block = self._arenas[name], self._arenas["digests"].end, self.summary["block"]
        begin, end = a.begin + begin, a.end if size is None else a.begin + begin + size
        for i in set(range((begin - first) // block, -(-(end - first) // block))) - self._good:
            digest = hashlib.sha256(self._data[first + i * block : first + (i + 1) * block]).digest()
            need(digest == self._rows[i + 1], "checksum", name, f"digest block {i}")  # [D3]
            self._good.add(i)
        return self._data[begin:end]

    def _parse_index(self, index: Any) -> None:
        may: Checks = {"absent": lambda v: v and ascending(v) and all(map(is_name, v))}  # [I4]
        may["prefix"] = lambda v: isinstance(v, list) and len(v) == 2 and all(text(x, 0) for x in v) and v[0] != v[1]
        may["metadata"] = lambda v: isinstance(v, dict) and v and all(text(x, 0) for x in v.values())
        may["files"] = lambda v: isinstance(v, list) and v
        check(index, "index", "index", {"tensors": lambda v: isinstance(v, list)}, may)  # [I3]
        for t in index["tensors"]:
            parse_tensor(t, index.get("prefix", ["", ""]))
        self.names = [t["name"] for t in index["tensors"]]
        self.absent, self.metadata = index.get("absent", []), index.get("metadata", {})
        self._tensors = {t["name"]: t for t in index["tensors"]}
        self._blocks = [b for t in index["tensors"] for b in t["blocks"]]
        need(len(self.names) <= 2**20 and len(self._blocks) <= 2**22, "limit", "index", "tensors or blocks")  # [T3]
        need(len(self.names) == self.summary["tensors"], "summary", "tensors", len(self.names))  # [S2]
        for t in (t for t in index["tensors"] if t["blocks"][0]["kind"] == "tie"):
            to = self._tensors.get(t["blocks"][0]["to"], t)  # a tie to nothing is as bad as one to itself
            same = (to["dtype"], to["shape"]) == (t["dtype"], t["shape"])
            need(same and to["blocks"][0]["kind"] != "tie", "index", t["name"], "tie")  # [B4]
        self._files = index.get("files", [])
        need(len(self._files) <= 2**16, "limit", "files", len(self._files))  # [T3]
        for f in self._files:
            check_file(f)
        for names in (self.names, [f["name"] for f in self._files]):
            need(ascending(names), "index", "index", "names do not ascend")  # [I4]

    def _place_streams(self) -> None:
        """Gives each block where its part of each stream begins, and each stream its length."""
        bitmaps = numbers = raw = codes = 0
        for t in self._tensors.values():
            for b in t["blocks"]:
                b |= {"bitmaps": bitmaps, "numbers": numbers, "raw": raw, "codes": []}
                bitmaps += sum(-(-n // 8) for n, count in self._axes(b, t) if count < n)
                numbers += (b["kind"] == "lowrank") + sum(4 * (u + v) + s for u, v, s in number_counts(b))
                raw += sum(b.get("planes", [b["size"]])) if b["kind"] == "raw" else 0
        for k in range(16):
            for b in (b for b in self._blocks if k < len(b["bands"])):
                b["codes"].append(codes)
                codes += b["bands"][k][0] * sum(vector_sizes(b, b["bands"][k][1]))
        self._files_at = raw
        self._sizes = {"rows": bitmaps, "numbers": numbers, "codes": codes}
        self._sizes["raw"] = raw + sum(f.get("stored", 0) for f in self._files)

    def _axes(self, b: dict[str, Any], t: dict[str, Any]) -> list[tuple[int, int]]:
        return [(b["height"], b["rows"]), (t["columns"], b["cols"])]

    def _check_totals(self, index_size: int) -> None:
        self._base_names = sorted({b["base"][0] for b in self._blocks if b["base"]}, key=str.encode)
        need(bool(self._base_names) == ("base" in self.summary), "totals", "summary", "base")  # [H1]
        self._bitmaps, frame_size, expected = b"", 0, self._sizes["rows"]
        need(expected == 0 or "rows" in self._arenas, "totals", "rows", "missing")  # [W2]
        if "rows" in self._arenas:
            self._bitmaps, frame_size = inflate(self._arena("rows"), "rows", 2**30, expected, "totals")  # [W2]
        there = {name: self._arenas.get(name, Arena("", [0], 0, 0)) for name in DIMS}
        need(there["base"].shape[0] == len(self._base_names), "totals", "base", there["base"].shape)  # [H1]
        sizes = self._sizes | {"index": index_size, "rows": frame_size}
        sizes["numbers"] *= 2 if there["numbers"].dtype == "BF16" else 4
        for name, size in sizes.items():
            a = there[name]
            padded = any(there[x].begin == a.end for x in ALIGNED)  # the next arena is one of the three
            pad = -(a.begin + size) % 32 if a.dtype and padded else 0
            need(a.end - a.begin == size + pad, "totals", name, f"not {size} + {pad} bytes")  # [C7]
            need(not any(self._arena(name, size, pad)), "padding", name, "after its content")  # [C7]

    def _check_bitmaps(self) -> None:
        for name, t in self._tensors.items():
            for b in t["blocks"]:
                for bitmap, (n, count) in zip(self._pair_of_bitmaps(b, t), self._axes(b, t), strict=True):
                    bits = int.from_bytes(bitmap, "little")
                    right = bits.bit_length() <= n and bits.bit_count() == count
                    need(count == n or right, "rows", name, f"not {count} of {n}")  # [W1]

    def _pair_of_bitmaps(self, b: dict[str, Any], t: dict[str, Any]) -> Iterator[bytes]:
        at = b["bitmaps"]
        for n, count in self._axes(b, t):
            size = -(-n // 8) if count < n else 0
            yield self._bitmaps[at : at + size]
            at += size

    @np.errstate(all="ignore")
    def _check_numbers(self) -> None:
        dtype = self._arenas["numbers"].dtype if self._sizes["numbers"] else "F32"
        stored = np.frombuffer(self._arena("numbers"), STORED[dtype])[: self._sizes["numbers"]]
        self._numbers = widen(stored, dtype).astype(np.float64)
        need(np.isfinite(self._numbers).all(), "numbers", "numbers", "not finite")  # [N1]
        for name, t in self._tensors.items():
            for b in t["blocks"]:
                good = b["kind"] != "lowrank" or self._numbers[b["numbers"]] >= 0
                need(good, "numbers", name, "a norm below zero")  # [N2]
                for *tables, _ in self._band_numbers(b):
                    ascend = all((np.diff(levels) >= 0).all() for levels in tables)
                    need(ascend, "numbers", name, "levels do not ascend")  # [N2]

    def _band_numbers(self, b: dict[str, Any]) -> Iterator[list[Array]]:
        """For each band: level tables of u, level tables of v, scales."""
        at = b["numbers"] + (b["kind"] == "lowrank")
        for counts in number_counts(b) if b["bands"] else []:
            parts = []
            for shape in ((counts[0], 4), (counts[1], 4), (counts[2],)):
                parts.append(self._numbers[at : at + prod(shape)].reshape(shape))
                at += prod(shape)
            yield parts

    def _elements(self, b: dict[str, Any], name: str) -> Array:
        """The delta of a `values` block."""
        (size,) = vector_sizes(b, b["bits"])
        data = np.frombuffer(self._arena("codes", b["codes"][0], size), np.uint8)[None]
        levels, _, scales = next(self._band_numbers(b))
        values = code_values(data, b["rows"] * b["cols"], b["bits"], levels, name).reshape(b["rows"], b["cols"])
        return (values * scales[:, None] if len(scales) else values).astype(np.float32)

    def _components(self, b: dict[str, Any], name: str) -> tuple[Array, Array]:
        """u s and v of a `lowrank` block, a row for each component."""
        us, vs = [], []
        for (r, bits), at, numbers in zip(b["bands"], b["codes"], self._band_numbers(b), strict=True):
            u_levels, v_levels, scales = numbers
            first, second = vector_sizes(b, bits)
            data = np.frombuffer(self._arena("codes", at, r * (first + second)), np.uint8).reshape(r, -1)
            u = code_values(data[:, :first], b["rows"], bits, u_levels, name)
            us.append(u * scales[:, None] if len(scales) else u)
            vs.append(code_values(data[:, first:], b["cols"], bits, v_levels, name))
        return np.concatenate(us), np.concatenate(vs)

    def _raw(self, b: dict[str, Any], k: int, name: str) -> bytes:
        if "planes" not in b:
            return self._arena("raw", b["raw"], b["size"])
        at, planes = b["raw"], []
        for stored, plain in zip(b["planes"], plain_planes(b["size"], k), strict=True):
            plane = self._arena("raw", at, stored)
            planes.append(plane if stored == plain else whole_frame(plane, plain, name, "zstd"))  # [P2]
            at += stored
        chunks = [np.frombuffer(b"".join(planes[i : i + k]), np.uint8) for i in range(0, len(planes), k)]
        return b"".join(chunk.reshape(k, -1).T.tobytes() for chunk in chunks)

    def _base_rows(self, t: dict[str, Any], b: dict[str, Any], base: dict[str, Tensor]) -> tuple[str, bytes]:
        if b["base"] is None:
            return t["dtype"], bytes(b["size"])
        (other, first), name, split = b["base"], t["name"], t["split"]
        need(other in base, "base-tensor", name, f"the base has no {other!r}")  # [R1]
        x = base[other]
        height, columns, bits = prod(x.shape[:split]), prod(x.shape[split:]), BITS.get(x.dtype, 0)
        need(height * columns * bits == len(x.data) * 8, "base-tensor", name, f"{other!r} is no tensor")
        need(len(x.shape) >= split if t["shape"] else not x.shape, "base-tensor", name, x.shape)  # [R1]
        need(columns == t["columns"] and first + b["height"] <= height, "base-tensor", name, x.shape)  # [R1]
        good = x.dtype == t["dtype"] or (x.dtype in STORED and t["dtype"] in STORED)
        need(good, "base-tensor", name, f"{x.dtype} to {t['dtype']}")  # [R2]
        self._check_leaf(other, x)
        return x.dtype, x.data[first * columns * bits // 8 : (first + b["height"]) * columns * bits // 8]

    def _check_leaf(self, name: str, x: Tensor) -> None:
        if name not in self._leaves or self._leaves[name][0] is not x:
            at, width, digest = self._base_names.index(name), self._arenas["base"].shape[1], leaf(x)
            need(digest[:width] == self._arena("base", at * width, width), "base-leaf", name, digest.hex())  # [H2]
            self._leaves[name] = x, digest

    def _indices(self, b: dict[str, Any], t: dict[str, Any]) -> tuple[Array, ...]:
        pairs = zip(self._pair_of_bitmaps(b, t), self._axes(b, t), strict=True)
        maps = [(np.frombuffer(bitmap, np.uint8), n) for bitmap, (n, _) in pairs]
        bits = [np.unpackbits(m, bitorder="little") if m.size else np.ones(n, bool) for m, n in maps]
        return np.ix_(*map(np.flatnonzero, bits))

    @np.errstate(all="ignore")
    def _block(self, t: dict[str, Any], b: dict[str, Any], base: dict[str, Tensor]) -> bytes:
        dtype, name = t["dtype"], t["name"]
        if b["kind"] == "raw":
            return self._raw(b, max(1, t["bits"] // 8), name)
        source, data = self._base_rows(t, b, base)
        kept = convert(data, source, dtype)
        if b["kind"] == "same":
            return kept
        delta = self._elements(b, name) if b["kind"] == "values" else ordered_sum(*self._components(b, name))
        place, working = self._indices(b, t), np.float64 if dtype == "F64" else np.float32
        old = widen(np.frombuffer(data, STORED[source]).reshape(b["height"], -1)[place], source).astype(working)
        result = np.frombuffer(kept, STORED[dtype]).reshape(b["height"], -1).copy()
        result[place] = narrow(old + delta.astype(working), dtype)
        return bytes(result.data)

    def decode_tensor(self, name: str, base: dict[str, Tensor] | None = None, max_bytes: int = 2**36) -> Tensor:
        t = self._tensors[name]
        size = prod(t["shape"]) * t["bits"] // 8
        need(size <= max_bytes, "limit", name, f"{size} bytes")  # [L2]
        if t["blocks"][0]["kind"] == "tie":
            return self.decode_tensor(t["blocks"][0]["to"], base, max_bytes)
        data = b"".join(self._block(t, b, base or {}) for b in t["blocks"])
        return Tensor(t["dtype"], tuple(t["shape"]), data)

    def level_b_bound(self, name: str) -> Array:
        """[L1] By how much another decoder may differ at each element, apart from the unit in the last place."""
        t = self._tensors[self._tensors[name]["blocks"][0].get("to", name)]
        bound = np.zeros((t["height"], t["columns"]))
        for b in (b for b in t["blocks"] if b["kind"] == "lowrank"):
            (u, v), (rows, cols) = self._components(b, name), self._indices(b, t)
            e = 2.0**-53 if t["dtype"] == "F64" else 2.0**-24
            bound[b["start"] + rows, cols] = (len(u) + 4) * e * ordered_sum(abs(u), abs(v))
        return bound

    def files(self) -> dict[str, bytes | str]:
        """Content of the files that are carried, the SHA-256 of those that are named."""
        result: dict[str, bytes | str] = {}
        at = self._files_at
        for f in self._files:
            stored, size = f.get("stored", 0), f.get("size", 0)
            data = self._arena("raw", at, stored)
            content = data if stored == size else whole_frame(data, size, f["name"], "file")  # [F2]
            result[f["name"]] = f.get("digest", content)
            at += stored
        return result

    def check_base(self) -> None:
        """After all tensors have been decoded."""
        if self._base_names:
            digest = base_digest({name: self._leaves[name][1] for name in self._base_names})
            need(digest == self.summary["base"]["digest"], "base-digest", "base", digest)  # [H3]


def decode(
    data: bytes, base: dict[str, Tensor] | None = None, max_bytes: int = 2**36
) -> tuple[dict[str, Tensor], dict[str, bytes | str]]:
    pack = Pack(data)
    tensors = {name: pack.decode_tensor(name, base, max_bytes) for name in pack.names}
    pack.check_base()
    return tensors, pack.files()


# --- plain safetensors, for the base and the result ---


def read_safetensors(data: bytes) -> dict[str, Tensor]:
    start, tensors = 8 + int.from_bytes(data[:8], "little"), {}
    try:
        for name, a in json.loads(data[8:start]).items():
            if name != "__metadata__":
                check(a, "header", name, ARENA, {}, "header")
                begin, end = a["data_offsets"]
                tensors[name] = Tensor(a["dtype"], tuple(a["shape"]), data[start + begin : start + end])
    except (ValueError, AttributeError, RecursionError) as error:
        raise Refused("header", "safetensors", error) from None
    return tensors


def write_safetensors(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, t in tensors.items():
        header[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(t.data for t in tensors.values())


def main() -> None:
    """decoder.py PACK BASE.safetensors OUT.safetensors, with - for no base."""
    pack, base, out = map(Path, sys.argv[1:])
    try:
        tensors, _ = decode(pack.read_bytes(), {} if str(base) == "-" else read_safetensors(base.read_bytes()))
    except Refused as error:
        sys.exit(str(error))
    out.write_bytes(write_safetensors(tensors, Pack(pack.read_bytes()).metadata))


if __name__ == "__main__":
    main()

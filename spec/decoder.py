"""A plain decoder of dtscodec packs, in the order of dtscodec.md: the oracle for faster ones.

Here are the file (section 3) and the steps that put a tensor together (section 8). The stages between (4 to 7) are
functions of `stages.py`; what must be refused is in `checks.py`, with the strict readers of JSON and zstd frames."""

import json
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import checks
import numpy as np
import stages
from checks import BITS, Array, Refused
from stages import STORED, Block, Entry

__all__ = ["Pack", "Refused", "Tensor", "decode", "read_safetensors", "write_safetensors"]


class Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


Base = dict[str, Tensor]


# --- 3. container ---


class Container:
    """The arenas of a file; their bytes are handed out after a check of the digest blocks that they lie in."""

    def __init__(self, data: bytes) -> None:
        start = 8 + int.from_bytes(data[:8], "little")
        checks.check_sizes(len(data), start - 8)
        text = data[8:start].rstrip(b" ")
        header = checks.canonical_json(text, "header", "C3")
        checks.check_header(header, start - 8 - len(text))
        self.summary = checks.canonical_json(header.pop("__metadata__")["dtscodec"].encode(), "summary", "S2")
        checks.check_summary(self.summary)
        checks.check_arenas(header, start, self.summary.get("optional", []), len(data))
        self.header, self.data, self.block = header, data, self.summary["block"]
        self.places = {name: (start + a["data_offsets"][0], start + a["data_offsets"][1]) for name, a in header.items()}
        begin, self.first = self.places["digests"]  # the first digest block begins where this arena ends
        self.rows = [data[i : i + 32] for i in range(begin, self.first, 32)]
        checks.check_digest_rows(len(self.rows), len(data) - self.first, self.block)
        checks.check_pack_id(stages.pack_id(data[:start], self.rows[1:]), self.rows[0])
        self.verified: set[int] = set()

    def dtype(self, name: str) -> str:
        """Of an arena, or U8 if it is left out."""
        return str(self.header[name]["dtype"]) if name in self.header else "U8"

    def read(self, name: str, at: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of an arena from `at` on, or all of them; nothing of an arena that is left out."""
        begin, end = self.places.get(name, (self.first, self.first))
        begin, end = begin + at, end if size is None else begin + at + size
        for i in range((begin - self.first) // self.block, -(-(end - self.first) // self.block)):
            if i not in self.verified:
                piece = self.data[self.first + i * self.block : self.first + (i + 1) * self.block]
                checks.check_digest(stages.sha256(piece), self.rows[1 + i], i)
                self.verified.add(i)
        return self.data[begin:end]


# --- 8. decoding ---


class Pack:
    """Steps 1 and 2 for the whole pack; then the others for each tensor asked for."""

    def __init__(self, data: bytes) -> None:
        # Step 1.
        self._file = Container(data)
        self.summary = self._file.summary
        # Step 2: the index, then what it says of the streams.
        stored = {name: self._file.read(name) for name in ("base", "index", "rows", "numbers")}
        content, index_size = checks.inflate(stored["index"], "I1", limit=2**26)
        index = checks.canonical_json(content, "index", "I2")
        checks.check_index(index, self.summary["tensors"])
        self.absent, self.metadata = index.get("absent", []), index.get("metadata", {})
        self.stem, self.folders = index.get("stem", "model"), index.get("folders", [])
        self._files = index.get("files", [])
        self._entries = {t["name"]: stages.parse_tensor(t, index.get("prefix", ["", ""])) for t in index["tensors"]}
        self.names = list(self._entries)
        blocks = [b for t in self._entries.values() for b in t.blocks]
        self._ends = stages.place_streams(blocks)
        checks.check_bitmaps_there(bool(stored["rows"]), self._ends["rows"])
        self._bitmaps, rows_size = b"", 0
        if stored["rows"]:
            self._bitmaps, rows_size = checks.inflate(stored["rows"], "W2", 2**27, self._ends["rows"], "totals")
        self._check_lengths(index_size, rows_size)
        self._base_names = sorted({b.base[0] for b in blocks if b.base}, key=str.encode)
        self._leaves: dict[str, tuple[Tensor, bytes]] = {}  # of base tensors that were used
        checks.check_base_used(self.summary, self._file.header, len(self._base_names))
        self._read_numbers(stored["numbers"])
        for b in blocks:
            self._check_block_streams(b)

    def _check_lengths(self, index_size: int, rows_size: int) -> None:
        sizes = self._ends | {"index": index_size, "rows": rows_size}
        sizes["numbers"] *= 2 if self._file.dtype("numbers") == "BF16" else 4
        sizes["raw"] += sum(f.get("stored", 0) for f in self._files)
        checks.check_totals(self._file.places, sizes)
        for name, size in sizes.items():
            checks.check_padding(self._file.read(name, size), name)

    def _read_numbers(self, stored: bytes) -> None:
        """Into F64, without the padding after them."""
        dtype = "BF16" if self._file.dtype("numbers") == "BF16" else "F32"
        numbers = stages.widen(np.frombuffer(stored, STORED[dtype])[: self._ends["numbers"]], dtype)
        checks.check_finite(numbers)
        self._numbers = numbers.astype(np.float64)

    def _check_block_streams(self, b: Block) -> None:
        bitmaps = stages.block_bitmaps(b, self._bitmaps)
        for bitmap, (n, count) in zip(bitmaps, stages.bitmap_axes(b), strict=True):
            checks.check_bitmap(bitmap, n, count)
        if b.kind == "lowrank":
            checks.check_norm(self._numbers[b.numbers_at])
        for u_levels, v_levels, _ in stages.block_numbers(b, self._numbers):
            checks.check_levels(u_levels)
            checks.check_levels(v_levels)

    def _coded(self, b: Block) -> tuple[Array, ...]:
        """Which rows and columns are coded, in the form that numpy wants."""
        bitmaps = stages.block_bitmaps(b, self._bitmaps)
        axes = zip(bitmaps, stages.bitmap_axes(b), strict=True)
        return np.ix_(*(stages.unpack_bitmap(bitmap, n) for bitmap, (n, _) in axes))

    def _numbers_and_codes(self, b: Block) -> tuple[list[list[Array]], list[bytes]]:
        """Of each band of a coded block; for step 3, this reads the codes."""
        codes = [self._file.read("codes", at, stages.band_size(b, k)) for k, at in enumerate(b.codes_at)]
        return list(stages.block_numbers(b, self._numbers)), codes

    def _raw(self, b: Block, dtype: str) -> bytes:
        """The bytes of a `raw` block (5.4)."""
        at, planes = b.raw_at, []
        if b.planes is None:
            return self._file.read("raw", at, b.size)
        for size, plain in zip(b.planes, stages.plane_sizes(b.size, dtype), strict=True):
            plane = self._file.read("raw", at, size)
            planes.append(plane if size == plain else checks.inflate_all(plane, "P2", plain, "zstd"))
            at += size
        return stages.join_planes(planes, dtype)

    def _base_rows(self, t: Entry, b: Block, base: Base) -> tuple[str, bytes]:
        """Step 4: the rows of the base of a block, and their dtype."""
        if b.base is None:
            return t.dtype, bytes(b.size)
        name, first = b.base
        checks.check_base_tensor(t, b, base)
        x = base[name]
        if name not in self._leaves or self._leaves[name][0] is not x:
            width = self._file.header["base"]["shape"][1]
            stored = self._file.read("base", self._base_names.index(name) * width, width)
            self._leaves[name] = x, stages.leaf(*x)
            checks.check_leaf(self._leaves[name][1], stored, name)
        row = b.columns * BITS[x.dtype]  # in bits
        return x.dtype, x.data[first * row // 8 : (first + b.height) * row // 8]

    def _decode_block(self, t: Entry, b: Block, base: Base) -> bytes:
        if b.kind == "raw":
            return self._raw(b, t.dtype)
        source, data = self._base_rows(t, b, base)
        kept = stages.convert(data, source, t.dtype)
        if b.kind == "same":
            return kept
        delta = stages.block_delta(b, *self._numbers_and_codes(b))  # steps 3 and 5
        coded = self._coded(b)  # the rest stays as it is kept
        old = stages.widen(np.frombuffer(data, STORED[source]).reshape(b.height, -1)[coded], source)
        result: Array = np.frombuffer(kept, STORED[t.dtype]).reshape(b.height, -1).copy()
        if b.rounding:  # step 6
            result[coded] = stages.add_dithered(old, delta, *coded)
        else:
            result[coded] = stages.add_delta(old, delta, t.dtype)
        return result.tobytes()

    def decode_tensor(self, name: str, base: Base | None = None, max_bytes: int = 2**36) -> Tensor:
        """Steps 3 to 6; `base` has the tensors of the base by name."""
        t = self._entries[name]
        checks.check_memory(prod(t.shape) * BITS[t.dtype] // 8, max_bytes, name)
        if t.blocks[0].kind == "tie":
            return self.decode_tensor(t.blocks[0].to, base, max_bytes)
        data = b"".join(self._decode_block(t, b, base or {}) for b in t.blocks)
        return Tensor(t.dtype, tuple(t.shape), data)

    def level_b_bound(self, name: str) -> Array:
        """[L1] By how much another decoder may differ at each element, apart from the unit in the last place."""
        t = self._entries[self._entries[name].blocks[0].to or name]  # a tie is as good as what it names
        bound = np.zeros((prod(t.shape[: t.split]), prod(t.shape[t.split :])))
        for b in t.blocks:
            if b.kind == "lowrank":
                u, v = stages.components(b, *self._numbers_and_codes(b))
                rows, cols = self._coded(b)
                e, f = (2.0**-53, 2.0**-1022) if t.dtype == "F64" else (2.0**-24, 2.0**-126)
                below = (len(u) + 1) * (1 + abs(v).max()) * f  # what products below the normal range may lose
                bound[b.start + rows, cols] = (len(u) + 4) * e * stages.ordered_sum(abs(u), abs(v)) + below
        return bound

    def check_base(self) -> None:
        """Step 7, after all tensors have been decoded."""
        if self._base_names:
            digest = stages.base_digest({name: self._leaves[name][1] for name in self._base_names})
            checks.check_base_digest(digest.hex(), self.summary["base"]["digest"])

    def files(self, base_files: dict[str, bytes] | None = None) -> dict[str, bytes | str]:
        """Step 8: content of the files; without the base's, the SHA-256 of the one that a file needs instead."""
        result: dict[str, bytes | str] = {}
        at = self._ends["raw"]
        for f in self._files:
            stored = self._file.read("raw", at, f.get("stored", 0))
            at += len(stored)
            result[f["name"]] = self._restore(f, stored, base_files)
        return result

    def _restore(self, f: dict[str, Any], stored: bytes, base_files: dict[str, bytes] | None) -> bytes | str:
        if "digest" not in f:  # carried
            plain = f["stored"] == f["size"]
            return stored if plain else checks.inflate_all(stored, "F2", f["size"], "file")
        if "size" in f:  # changed
            checks.check_changed(stored, f["size"])
        if base_files is None:
            return str(f["digest"])
        prefix = base_files.get(f["name"], b"")
        checks.check_base_file(f, f["name"] in base_files, len(prefix), stages.sha256(prefix).hex())
        return checks.inflate_all(stored, "F2", f["size"], "file", prefix) if "size" in f else prefix


def decode(
    data: bytes, base: Base | None = None, max_bytes: int = 2**36, base_files: dict[str, bytes] | None = None
) -> tuple[dict[str, Tensor], dict[str, bytes | str]]:
    """All tensors, of `max_bytes` together, and all files; `base_files` are those of the base's directory."""
    pack, tensors = Pack(data), {}
    for name in pack.names:
        tensors[name] = pack.decode_tensor(name, base, max_bytes)
        max_bytes -= len(tensors[name].data)
    pack.check_base()
    return tensors, pack.files(base_files)


# --- plain safetensors, for the base and the result ---


def read_safetensors(data: bytes) -> Base:
    """Any safetensors file; one that is broken is refused as a pack would be."""
    start, tensors = 8 + int.from_bytes(data[:8], "little"), {}
    try:
        header = json.loads(data[8:start])
    except (ValueError, RecursionError) as error:
        raise Refused("header", "C3", error) from None
    checks.need(isinstance(header, dict), "header", "C3", "no object")
    header.pop("__metadata__", None)
    for name, a in header.items():
        checks.check_entry(name, a)
        begin, end = a["data_offsets"]
        tensors[name] = Tensor(a["dtype"], tuple(a["shape"]), data[start + begin : start + end])
    return tensors


def write_safetensors(tensors: Base, metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, t in tensors.items():
        header[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(t.data for t in tensors.values())


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: decoder.py PACK BASE.safetensors OUT.safetensors, with - for no base")
    pack, base, out = map(Path, sys.argv[1:])
    try:
        data = pack.read_bytes()
        tensors, _ = decode(data, {} if str(base) == "-" else read_safetensors(base.read_bytes()))
    except Refused as error:
        sys.exit(str(error))
    out.write_bytes(write_safetensors(tensors, Pack(data).metadata))


if __name__ == "__main__":
    main()

"""A plain decoder of dtscodec packs, in the order of dtscodec.md: the oracle for faster ones.

Here are the file (section 3) and the steps that put a tensor together (sections 8 and 15). The stages between (4 to 7)
are functions of `stages.py`, those of a residual layer (15) of `residual.py`; what must be refused is in `checks.py`,
with the strict readers of JSON and zstd frames."""

import json
import struct
import sys
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import checks
import numpy as np
import residual
import stages
from checks import BITS, CODED, LAYER, LAYER_BLOCK, Array, Refused
from stages import STORED, Block, Entry

__all__ = ["Pack", "Refused", "Tensor", "decode", "read_safetensors", "strip", "weight_files", "write_safetensors"]


class Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


Base = dict[str, Tensor]


# --- 3. container ---


class Covered:
    """Bytes of a file from `first` to `last`, handed out after a check of the digest blocks that they lie in."""

    def __init__(self, data: bytes, first: int, last: int, block: int, rows: list[bytes]) -> None:
        checks.check_digest_rows(len(rows), last - first, block)
        self._data, self._first, self._last, self._block, self._rows = data, first, last, block, rows
        self._verified: set[int] = set()

    def read(self, begin: int, end: int) -> bytes:
        for i in range((begin - self._first) // self._block, -(-(end - self._first) // self._block)):
            if i not in self._verified:
                start = self._first + i * self._block
                piece = self._data[start : min(start + self._block, self._last)]
                checks.check_digest(stages.sha256(piece), self._rows[i], i)
                self._verified.add(i)
        return self._data[begin:end]


class Container:
    """The arenas of a file, by range."""

    def __init__(self, data: bytes) -> None:
        start = 8 + int.from_bytes(data[:8], "little")
        checks.check_sizes(len(data), start - 8)
        text = data[8:start].rstrip(b" ")
        header = checks.canonical_json(text, "header", "C3")
        checks.check_header(header, start - 8 - len(text))
        self.summary = checks.canonical_json(header.pop("__metadata__")["dtscodec"].encode(), "summary", "S2")
        checks.check_summary(self.summary)
        checks.check_arenas(header, start, self.summary, len(data))
        self.header, self.data = header, data
        self.places = {name: (start + a["data_offsets"][0], start + a["data_offsets"][1]) for name, a in header.items()}
        own, *rows = self._digests("digests")
        self.first = self.places["digests"][1]  # the first digest block begins where this arena ends
        self.end = self.places[LAYER[0]][0] if LAYER[0] in header else len(data)  # of the front
        self.front_rows = rows[: len(rows) - (LAYER[0] in header)]
        self._front = Covered(data, self.first, self.end, self.summary["block"], self.front_rows)
        self._layer: Covered | None = None
        if LAYER[0] in header:
            self._layer = Covered(data, self.places[LAYER[0]][1], len(data), LAYER_BLOCK, self._digests(LAYER[0]))
        checks.check_pack_id(stages.pack_id(data[:start], rows), own)
        self._layer_row = rows[-1]

    def _digests(self, name: str) -> list[bytes]:
        begin, end = self.places[name]
        return [self.data[i : i + 32] for i in range(begin, end, 32)]

    def check_layer_digests(self) -> None:
        """Before anything of the residual layer is read."""
        checks.check_layer_digests(stages.sha256(b"".join(self._digests(LAYER[0]))), self._layer_row)

    def dtype(self, name: str) -> str:
        """Of an arena, or U8 if it is left out."""
        return str(self.header[name]["dtype"]) if name in self.header else "U8"

    def read(self, name: str, at: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of an arena from `at` on, or all of them; nothing of an arena that is left out."""
        if name not in self.places:
            return b""
        begin, end = self.places[name]
        begin, end = begin + at, end if size is None else begin + at + size
        covered = self._layer if name in LAYER else self._front
        assert covered is not None
        return covered.read(begin, end)

    def front(self) -> bytes:
        """The file without its residual layer."""
        header = {name: dict(a) for name, a in self.header.items() if name not in LAYER}
        summary = {key: v for key, v in self.summary.items() if key not in ("requires", "content")}
        less = 32 if LAYER[0] in self.header else 0
        header["digests"]["shape"] = [1 + len(self.front_rows), 32]
        for name, a in header.items():
            begin, end = a["data_offsets"]
            a["data_offsets"] = [begin - less if name != "digests" else 0, end - less]
        text = json_text(header | {"__metadata__": {"dtscodec": json_text(summary)}}).encode()
        text += b" " * (-(8 + len(text)) % 32)
        head = struct.pack("<Q", len(text)) + text
        body = self._front.read(self.first, self.end)
        return head + stages.pack_id(head, self.front_rows) + b"".join(self.front_rows) + body


def json_text(value: Any) -> str:
    return json.dumps(checks.in_order(value), ensure_ascii=False, separators=(",", ":"))


# --- 8. decoding ---


class Residual(NamedTuple):
    """What the index of a residual layer says of a tensor, and where its chunks begin in the arena `residual`."""

    leaf: str
    chunks: list[int]
    at: int
    delta: bool


class Pack:
    """Steps 1 and 2 for the whole pack; then the others for each tensor asked for."""

    def __init__(self, data: bytes, lossy: bool = False) -> None:
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
        # Section 15, unless only the front is wanted.
        self._residuals: dict[str, Residual] = {}
        self._weights: list[tuple[dict[str, Any], int]] = []  # with the place of each in the arena `residual`
        self.is_exact = checks.has_layer(self.summary) and not lossy
        if self.is_exact:
            self._read_layer()

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
        """Steps 3 to 6, or section 15 in their place; `base` has the tensors of the base by name."""
        t = self._entries[name]
        checks.check_memory(prod(t.shape) * BITS[t.dtype] // 8, max_bytes, name)
        if t.blocks[0].kind == "tie":
            return self.decode_tensor(t.blocks[0].to, base, max_bytes)
        exact = self.is_exact and prod(t.shape) > 0
        data = self._decode_exact(t, base or {}) if exact else self._decode_front(t, base or {})
        result = Tensor(t.dtype, tuple(t.shape), data)
        if self.is_exact:
            checks.check_tensor_leaf(stages.leaf(*result).hex(), self._residuals[name].leaf, name)
        return result

    def _decode_front(self, t: Entry, base: Base) -> bytes:
        return b"".join(self._decode_block(t, b, base) for b in t.blocks)

    # Section 15

    def _read_layer(self) -> None:
        """15.1: index and digest of the content."""
        self._file.check_layer_digests()
        stored = self._file.read(LAYER[1])
        content, size = checks.inflate(stored, "I1", limit=2**28)
        checks.check_totals(self._file.places, {LAYER[1]: size})
        index = checks.canonical_json(content, "index", "X1")
        entries = self._entries.values()
        ties = {t.name: t.blocks[0].to for t in entries if t.blocks[0].kind == "tie"}
        checks.check_layer_index(index, [None if t.name in ties else residual.element_matrix(t) for t in entries])
        at = 0
        for t, own in zip(entries, index["tensors"], strict=True):
            chunks = own.get("chunks", [])
            self._residuals[t.name] = Residual(own["leaf"], chunks, at, "prediction" in own)
            at += sum(chunks)
        for f in index.get("weights", []):
            self._weights.append((f, at))
            at += f["stored"]
        begin, end = self._file.places.get(LAYER[2], (0, 0))
        checks.check_layer_total(at, end - begin)
        leaves = {name: bytes.fromhex(own.leaf) for name, own in self._residuals.items()}
        checks.check_content(stages.base_digest(leaves).hex(), self.summary["content"])
        for name, to in ties.items():
            checks.check_tied_leaf(self._residuals[name].leaf, self._residuals[to].leaf, name)

    def _decode_exact(self, t: Entry, base: Base) -> bytes:
        """15.5: the chunks of a tensor."""
        own = self._residuals[t.name]
        rows, columns = residual.element_matrix(t)
        sources = [self._source(t, b, base, own.delta) for b in t.blocks]
        parts, at, step = [], own.at, residual.chunk_rows(columns)
        for i, first in enumerate(range(0, rows, step)):
            last = min(first + step, rows)
            size = own.chunks[i] if own.chunks else 0
            predicted = partial(residual.predict, sources, t.dtype, first, last)
            chunk = self._file.read(LAYER[2], at, size)
            parts.append(residual.decode_chunk(chunk, predicted, (last - first, columns), t.dtype).tobytes())
            at += size
        return b"".join(parts)

    def _source(self, t: Entry, b: Block, base: Base, with_delta: bool) -> residual.Source:
        """15.2: what a block is predicted from."""
        columns = residual.element_matrix(t)[1]
        source, data = (t.dtype, self._raw(b, t.dtype)) if b.kind == "raw" else self._base_rows(t, b, base)
        bits = residual.as_elements(data, t.dtype, columns) if source == t.dtype else None
        if b.kind == "raw" or t.dtype not in STORED:
            assert bits is not None  # [R2]
            return residual.Source(len(bits), bits)
        numbers = residual.as_numbers(data, source, columns)
        delta = None
        if with_delta and b.kind in CODED:
            delta = np.zeros_like(numbers)
            streams = self._numbers_and_codes(b)
            if b.kind == "lowrank":
                delta[self._coded(b)] = residual.exact_product(*stages.components(b, *streams))
            else:
                delta[self._coded(b)] = stages.block_delta(b, *streams)
        return residual.Source(len(numbers), bits, numbers, delta)

    def weight_headers(self) -> dict[str, bytes]:
        """15.1: of each weight file what the pack stores."""
        stored = {f["name"]: (f, self._file.read(LAYER[2], at, f["stored"])) for f, at in self._weights}
        headers = {name: self._restore(f, data, None) for name, (f, data) in stored.items()}
        found = [x for name, data in headers.items() for x in self._tensors_of(name, as_bytes(data)).items()]
        tensors = {t.name: (t.dtype, tuple(t.shape)) for t in self._entries.values()}
        if headers:
            checks.check_weight_tensors(found, tensors)
        return {name: as_bytes(data) for name, data in headers.items()}

    def _tensors_of(self, name: str, header: bytes) -> dict[str, Any]:
        """The tensors of a weight file by their names in the pack; an index of shards has none."""
        if not name.endswith(".safetensors"):
            return {}
        folder = max((f + "/" for f in self.folders if name.startswith(f + "/")), key=len, default="")
        return {folder + key: x for key, x in checks.weight_header(header, name).items()}

    def weight_files(self, tensors: Base) -> dict[str, bytes]:
        """15.1: weight files, from the tensors of the pack."""
        result = {}
        for name, header in self.weight_headers().items():
            result[name] = header + b"".join(tensors[key].data for key in self._tensors_of(name, header))
        return result

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


def as_bytes(content: bytes | str) -> bytes:
    assert isinstance(content, bytes)
    return content


def decode(
    data: bytes,
    base: Base | None = None,
    max_bytes: int = 2**36,
    base_files: dict[str, bytes] | None = None,
    lossy: bool = False,
) -> tuple[dict[str, Tensor], dict[str, bytes | str]]:
    """All tensors, of `max_bytes` together, and all files; `base_files` are those of the base's directory.

    A residual layer makes the tensors exact; with `lossy` they are what the front decodes to."""
    pack, tensors = Pack(data, lossy), {}
    for name in pack.names:
        tensors[name] = pack.decode_tensor(name, base, max_bytes)
        max_bytes -= len(tensors[name].data)
    pack.check_base()
    pack.weight_headers()
    return tensors, pack.files(base_files)


def weight_files(data: bytes, base: Base | None = None, max_bytes: int = 2**36) -> dict[str, bytes]:
    """The fine-tune's weight files by name; none if the pack does not have their headers."""
    tensors, _ = decode(data, base, max_bytes)
    return Pack(data).weight_files(tensors)


def strip(data: bytes) -> bytes:
    """The pack without its residual layer."""
    return Container(data).front()


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

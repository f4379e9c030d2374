"""What a decoder of dtscodec packs must refuse, in the order of dtscodec.md: each check cites the rule it stands for.

`decoder.py` calls these at the steps of section 8. A check changes nothing and gives nothing back, but for the strict
readers of frames and of JSON, `inflate` and `canonical_json`."""

import json
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

Array = NDArray[Any]

ARENAS = ("digests", "base", "index", "rows", "numbers", "codes", "raw")  # in file order
LAYER = ("residual-digests", "residual-index", "residual")  # after all others, in file order
ALIGNED = ("numbers", "codes", "raw")
FEATURES = ("residual",)  # that a pack may require
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8}
BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32}
BITS |= {"F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64}
FLOATS = ("F16", "BF16", "F32", "F64")  # dtypes that can be coded
CODED = ("values", "lowrank")
KEYS = {"same": {"height", "base"}, "tie": {"to"}, "raw": {"height", "planes"}}  # of each kind, beside `kind`
KEYS["values"] = {"height", "base", "rows", "cols", "bits", "per"}
KEYS["lowrank"] = {"height", "base", "rows", "cols", "bands", "levels", "rounding"}
SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab", ".spm")
BLOCK_LIMIT = 2**17  # RFC 8878: what one block of a zstd frame can hold
WINDOW_LIMIT = 2**27
CHUNK = 2**20  # section 5.4
CHANGED_LIMIT = 2**26  # of a changed file, and of the base's
LAYER_BLOCK = 2**20  # digest blocks of the residual layer
CHUNK_ELEMENTS = 2**20  # section 15.5


class Refused(ValueError):
    """A pack, or a base, that a decoder must refuse: with a reason of section 11 and the rule that says so."""

    def __init__(self, reason: str, rule: str, detail: object) -> None:
        super().__init__(f"{reason} [{rule}]: {str(detail)[:200]}")
        self.reason = reason
        self.rule = rule


def need(ok: object, reason: str, rule: str, detail: object) -> None:
    if not ok:
        raise Refused(reason, rule, detail)


# --- kinds of JSON values; `bool` is an `int` to Python, but not to the specification ---


def is_whole(v: Any, low: int = 0, high: int = 2**53) -> bool:
    return type(v) is int and low <= v <= high


def is_wholes(v: Any, shortest: int = 0, longest: int = 2**32) -> bool:
    return isinstance(v, list) and shortest <= len(v) <= longest and all(is_whole(x) for x in v)


def is_text(v: Any) -> bool:
    return isinstance(v, str) and v != ""


def is_hex(v: Any) -> bool:
    return isinstance(v, str) and len(v) == 64 and set(v) <= set("0123456789abcdef")


def is_name(v: Any) -> bool:
    """[I4] but for the order."""
    return is_text(v) and len(v.encode()) <= 1024 and v != "__metadata__"


def ascend(names: list[str]) -> bool:
    return all(a.encode() < b.encode() for a, b in pairwise(names))


# --- 3.1 file ---


def check_sizes(file_size: int, header_size: int) -> None:
    need(file_size >= 8, "truncated", "C1", f"a file of {file_size} bytes")
    need(header_size <= 65528 and (8 + header_size) % 32 == 0, "header", "C2", f"a header of {header_size} bytes")
    need(file_size >= 8 + header_size, "truncated", "C1", f"{file_size} bytes of {8 + header_size}")


def check_header(header: Any, spaces: int) -> None:
    need(spaces < 32, "header", "C3", f"{spaces} spaces")
    need(isinstance(header, dict), "header", "C3", "no object")
    metadata = header.get("__metadata__")
    good = isinstance(metadata, dict) and metadata.keys() == {"dtscodec"} and isinstance(metadata["dtscodec"], str)
    need(good, "header", "C4", "__metadata__")
    for name, entry in header.items():
        if name != "__metadata__":
            check_entry(name, entry)


def check_entry(name: str, entry: Any) -> None:
    """One tensor of a safetensors header."""
    good = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
    need(good, "header", "C4", f"{name!r}: not an object of dtype, shape and data_offsets")
    good = isinstance(entry["dtype"], str) and is_wholes(entry["shape"]) and is_wholes(entry["data_offsets"], 2, 2)
    need(good, "header", "C4", f"{name!r}: dtype, shape or data_offsets")


# --- 3.2 arenas ---


def check_arenas(entries: dict[str, Any], start: int, summary: dict[str, Any], file_size: int) -> None:
    layer, optional = LAYER if has_layer(summary) else (), summary.get("optional", [])
    for name in entries:
        known = name in (*ARENAS, *layer) or (name[:2] == "x." and name[2:] in optional)
        need(known, "unknown", "C8", f"arena {name!r}")
    for name in ("digests", "index", *layer[:2]):
        need(name in entries, "layout", "C5", f"no {name}")
    placed = sorted(entries, key=lambda name: list(entries[name]["data_offsets"]))
    skipped = [name for name in placed if name not in (*ARENAS, *layer)]
    front, ours = ([name for name in names if name in entries] for names in (ARENAS, layer))
    need([n for n in placed if n not in skipped] == front + ours, "layout", "C5", f"order: {placed}")
    need(placed == front + skipped + ours, "layout", "C8", f"{skipped} not between front and residual layer")
    end = 0
    for name in placed:
        check_arena(name, entries[name], end)
        end = entries[name]["data_offsets"][1]
        aligned = name not in ALIGNED or (start + entries[name]["data_offsets"][0]) % 32 == 0
        need(aligned, "layout", "C6", f"{name} is not aligned")
    need(file_size >= start + end, "truncated", "C1", f"{file_size} bytes of {start + end}")
    need(file_size == start + end, "layout", "C1", f"{file_size} bytes, not {start + end}")


def check_arena(name: str, entry: dict[str, Any], begin: int) -> None:
    dtype, shape = entry["dtype"], entry["shape"]
    if name in (*ARENAS, *LAYER):
        need(dtype in (("F32", "BF16") if name == "numbers" else ("U8",)), "layout", "C5", f"{name}: {dtype}")
        rows = name in ("digests", "base", "residual-digests")
        need(len(shape) == (2 if rows else 1), "layout", "C5", f"{name}: {shape}")
        widths = {"digests": (32, 32), "base": (4, 32), "residual-digests": (32, 32)}.get(name, (0, 2**53))
        need(widths[0] <= shape[-1] <= widths[1], "layout", "C5", f"{name}: {shape}")
    else:
        need(dtype == "U8", "layout", "C8", f"{name}: {dtype}")
    size = prod(shape) * BITS[dtype] // 8
    need(entry["data_offsets"] == [begin, begin + size], "layout", "C5", f"{name}: not {size} bytes from {begin}")
    need(size > 0, "layout", "C5", f"{name} is empty")


# --- 3.3 summary ---


def check_summary(summary: Any) -> None:
    need(isinstance(summary, dict), "summary", "S2", "no object")
    need(is_whole(summary.get("version"), 1, 1), "version", "S1", f"version {summary.get('version')}")
    check_features(summary, "requires")  # unknown ones may have keys of their own
    need(all(x in FEATURES for x in summary.get("requires", [])), "feature", "S3", summary.get("requires"))
    keys = {"version", "requires", "optional", "block", "tensors", "base", "task", "encoder", "claim", "content"}
    need(summary.keys() <= keys, "unknown", "S2", f"a key of {sorted(summary)}")
    block = summary.get("block")
    need(is_whole(block, 2**16, 2**24) and block & block - 1 == 0, "summary", "S2", f"block {block}")
    need(is_whole(summary.get("tensors")), "summary", "S2", f"tensors {summary.get('tensors')}")
    check_features(summary, "optional")
    for key in ("task", "encoder"):
        need(key not in summary or is_text(summary[key]), "summary", "S2", key)
    if "base" in summary:
        check_summary_base(summary["base"])
    if "claim" in summary:
        check_claim(summary["claim"])
    good = is_hex(summary.get("content")) if has_layer(summary) else "content" not in summary
    need(good, "summary", "S2", "content")


def has_layer(summary: dict[str, Any]) -> bool:
    return "residual" in summary.get("requires", [])


def check_features(summary: dict[str, Any], key: str) -> None:
    v = summary.get(key, ["any"])
    need(isinstance(v, list) and v and all(is_text(x) for x in v) and ascend(v), "summary", "S2", key)


def check_summary_base(base: Any) -> None:
    need(isinstance(base, dict), "summary", "S2", "base is no object")
    keys = {"digest", "repo", "revision", "dequantized", "pack"}
    need(base.keys() <= keys, "unknown", "S2", f"a key of base: {sorted(base)}")
    need(is_hex(base.get("digest")), "summary", "S2", "digest of base")
    for key in ("repo", "revision"):
        need(key not in base or is_text(base[key]), "summary", "S2", f"{key} of base")
    need(base.get("dequantized", "F32") in ("BF16", "F16", "F32"), "summary", "S2", "dequantized of base")
    need("pack" not in base or is_hex(base["pack"]), "summary", "S2", "pack of base")


def check_claim(claim: Any) -> None:
    need(isinstance(claim, dict), "summary", "S4", "claim is no object")
    counts = ["bound", "figure", "limit", "confidence", "samples", "predictions"]
    need(claim.keys() <= {"measure", "digest", *counts}, "unknown", "S4", f"a key of claim: {sorted(claim)}")
    need(all(is_whole(claim.get(key)) for key in counts) and is_hex(claim.get("digest")), "summary", "S4", "claim")
    bound, figure, limit, confidence, samples, predictions = (claim[key] for key in counts)
    if claim.get("measure") == "kl":
        need(figure <= limit <= bound, "summary", "S4", "a KL that misses its bound")
    else:
        need(claim.get("measure") == "agreement", "summary", "S4", "measure of claim")
        need(bound <= limit <= figure <= 10**9, "summary", "S4", "an agreement that misses its bound")
    need(0 < confidence < 10**9 and 0 < samples <= predictions, "summary", "S4", "confidence or counts of claim")


# --- 3.4 digests ---


def check_digest_rows(rows: int, covered: int, block: int) -> None:
    """`covered` bytes are cut into digest blocks."""
    count = -(-covered // block)
    need(rows == count, "layout", "D1", f"{rows} rows for {count} digest blocks")


def check_pack_id(computed: bytes, stored: bytes) -> None:
    need(computed == stored, "checksum", "D2", f"the pack id is {computed.hex()}")


def check_layer_digests(computed: bytes, stored: bytes) -> None:
    need(computed == stored, "checksum", "D4", f"the digest of residual-digests is {computed.hex()}")


def check_digest(computed: bytes, stored: bytes, i: int) -> None:
    need(computed == stored, "checksum", "D3", f"digest block {i}")


# --- 4. frames ---


def frame_sizes(
    data: bytes, rule: str, limit: int | None = None, size: int | None = None, wrong_size: str = "zstd"
) -> tuple[int, int]:
    """How long the content of the zstd frame is that `data` begins with, and the frame; checks all that they tell."""
    try:
        frame = zstandard.get_frame_parameters(data)
        need(data[:4] == b"\x28\xb5\x2f\xfd", "zstd", rule, "a skippable frame")
        need(frame.dict_id == 0, "zstd", rule, "a dictionary")
        need(frame.content_size < 2**63, "zstd", rule, "no content size")
        need(limit is None or frame.content_size <= limit, "limit", rule, f"{frame.content_size} bytes inflated")
        need(size in (None, frame.content_size), wrong_size, rule, f"{frame.content_size} bytes inflated, not {size}")
        need(frame.window_size <= WINDOW_LIMIT, "zstd", rule, f"a window of {frame.window_size} bytes")
        blocks, end = frame_blocks(data, zstandard.frame_header_size(data), rule)
        end += 4 * frame.has_checksum
        # No memory is taken for content that a frame cannot have, whatever it states.
        need(frame.content_size <= blocks * BLOCK_LIMIT, "zstd", rule, f"{frame.content_size} bytes in {blocks} blocks")
        need(end <= len(data), "zstd", rule, "the frame ends too early")
    except zstandard.ZstdError as error:
        raise Refused("zstd", rule, error) from None
    return frame.content_size, end


def inflate(
    data: bytes,
    rule: str,
    limit: int | None = None,
    size: int | None = None,
    wrong_size: str = "zstd",
    prefix: bytes = b"",
) -> tuple[bytes, int]:
    """Content and length of the zstd frame that `data` begins with: at most `limit` bytes, or exactly `size`."""
    expected, end = frame_sizes(data, rule, limit, size, wrong_size)
    raw = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
    try:
        decompressor = zstandard.ZstdDecompressor(dict_data=raw, max_window_size=WINDOW_LIMIT)
        with decompressor.stream_reader(data[:end]) as reader:
            content = reader.read(expected + 1)  # one more: this reads on to the end of the frame
    except zstandard.ZstdError as error:
        raise Refused("zstd", rule, error) from None
    need(len(content) == expected, "zstd", rule, f"{len(content)} bytes, not {expected}")
    return content, end


def frame_blocks(data: bytes, at: int, rule: str) -> tuple[int, int]:
    """How many blocks a frame has, and where the last one ends; the first one begins at `at`."""
    blocks, last = 0, False
    while not last:
        need(at + 3 <= len(data), "zstd", rule, "the frame ends too early")
        head = int.from_bytes(data[at : at + 3], "little")  # from the lowest bit: 1 bit last, 2 bits type, 21 bits size
        at += 3 + (1 if head >> 1 & 3 == 1 else head >> 3)  # type 1 is one byte, repeated
        blocks, last = blocks + 1, bool(head & 1)
    return blocks, at


def inflate_all(data: bytes, rule: str, size: int, wrong_size: str, prefix: bytes = b"") -> bytes:
    """The `size` bytes of the zstd frame that `data` is."""
    content, used = inflate(data, rule, None, size, wrong_size, prefix)
    need(used == len(data), "zstd", rule, f"{len(data) - used} bytes after the frame")
    return content


# --- 4.1 canonical JSON ---


def canonical_json(data: bytes, reason: str, rule: str) -> Any:
    """What `data` says, if it is the canonical form of it."""
    try:
        value = in_order(json.loads(data.decode(), parse_float=refuse_token, parse_constant=refuse_token))
        again = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:  # also for bytes that are not UTF-8, and for half surrogate pairs
        raise Refused(reason, rule, f"JSON: {error}") from None
    need(again == data, reason, rule, "JSON that is not canonical")
    return value


def in_order(v: Any, depth: int = 8) -> Any:
    """`v` with keys in the order of RFC 8785: by UTF-16 code units."""
    if v is False or (type(v) is int and abs(v) >= 2**53):
        raise ValueError(f"{v!r:.40} has no place here")
    if isinstance(v, dict | list) and depth == 0:
        raise ValueError("nested too deep")
    if isinstance(v, dict):
        return {key: in_order(v[key], depth - 1) for key in sorted(v, key=lambda k: k.encode("utf-16-be"))}
    return [in_order(x, depth - 1) for x in v] if isinstance(v, list) else v


def refuse_token(token: str) -> None:
    raise ValueError(f"{token:.40} is no integer")


# --- 4. index ---


def check_index(index: Any, tensors: int) -> None:
    """Everything that the index alone can tell, but for `planes`; `tensors` is what the summary says."""
    check_keys(index, "the index", {"tensors", "prefix", "absent", "metadata", "files", "stem", "folders"})
    check_index_values(index)
    entries, absent, files = index["tensors"], index.get("absent", []), index.get("files", [])
    need(len(entries) <= 2**20, "limit", "T3", f"{len(entries)} tensors")
    need(len(files) <= 2**16, "limit", "T3", f"{len(files)} files")
    for entry in entries:
        check_tensor(entry, index.get("prefix", ["", ""]))
    check_names([entry["name"] for entry in entries])
    check_names(absent)
    blocks = sum(len(entry["blocks"]) for entry in entries)
    need(blocks <= 2**22, "limit", "T3", f"{blocks} blocks")
    need(len(entries) == tensors, "summary", "S2", f"{len(entries)} tensors, not {tensors}")
    check_ties({entry["name"]: entry for entry in entries})
    check_files(files)
    check_weight_files(index.get("stem", "model"), index.get("folders", []), [entry["name"] for entry in entries])


def check_index_values(index: dict[str, Any]) -> None:
    need(isinstance(index.get("tensors"), list), "index", "I5", "tensors")
    prefix = index.get("prefix", ["a", "b"])
    good = isinstance(prefix, list) and len(prefix) == 2 and all(isinstance(x, str) for x in prefix)
    need(good and prefix[0] != prefix[1], "index", "I5", "prefix")
    for key, kind in (("absent", list), ("files", list), ("metadata", dict), ("folders", list)):
        need(key not in index or (isinstance(index[key], kind) and index[key]), "index", "I5", key)
    need(isinstance(index.get("stem", "x"), str) and index.get("stem") != "model", "index", "I5", "stem")
    texts = {"absent": index.get("absent", []), "folders": index.get("folders", [])}
    for key, values in (*texts.items(), ("metadata", index.get("metadata", {}).values())):
        need(all(isinstance(v, str) for v in values), "index", "I5", key)


def check_keys(v: Any, what: str, keys: set[str]) -> None:
    need(isinstance(v, dict), "index", "I5", f"{what} is no object")
    need(v.keys() <= keys, "unknown", "I3", f"a key of {what}: {sorted(v)}")


def check_names(names: list[Any]) -> None:
    need(all(is_name(name) for name in names), "index", "I4", "a name")
    need(ascend(names), "index", "I4", "names do not ascend")


# --- 4.2 tensors ---


def check_tensor(t: Any, prefix: list[str]) -> None:
    check_keys(t, "a tensor", {"name", "dtype", "shape", "split", "blocks"})
    name, dtype, shape, blocks = t.get("name"), t.get("dtype"), t.get("shape"), t.get("blocks")
    need(isinstance(name, str), "index", "I5", f"name {name}")
    need(is_name(name), "index", "I4", f"name {name!r}")
    need(isinstance(dtype, str) and dtype in BITS, "index", "T1", f"{name}: dtype {dtype}")
    need(is_wholes(shape, 0, 8), "index", "T1", f"{name}: shape {shape}")
    good = "split" not in t or is_whole(t["split"], 2, len(shape))  # 1 is the default, which is left out
    need(good, "index", "T1", f"{name}: split")
    need(prod(d for d in shape if d) <= 2**48, "limit", "T3", f"{name}: elements")
    need(isinstance(blocks, list) and blocks, "index", "I5", f"{name}: blocks")
    split, start = t.get("split", 1), 0
    height, columns = prod(shape[:split]), prod(shape[split:])
    own_base = prefix[1] + name[len(prefix[0]) :] if name.startswith(prefix[0]) else name
    for b in blocks:
        check_kind(b, name)
        need(b["kind"] != "tie" or len(blocks) == 1, "index", "B4", f"{name}: a tie among blocks")
        check_height(b, name, len(blocks))
        rows = b.get("height", height)
        check_block(b, name, rows, columns)
        check_base(b, name, own_base, start)
        check_elements(dtype, rows * columns, len(blocks), b, name)
        check_bytes(b, name, start, rows, columns * BITS[dtype])
        start += rows
    need(start == height, "index", "B1", f"{name}: {start} rows of {height}")


def check_bytes(b: dict[str, Any], name: str, start: int, rows: int, row_bits: int) -> None:
    base = b.get("base", name)
    before = 0 if base is None or b["kind"] in ("tie", "raw") else base[1] if isinstance(base, list) else start
    need(rows * row_bits % 8 == 0 and before * row_bits % 8 == 0, "index", "T2", f"{name}: rows do not fill bytes")


# --- 4.3 blocks ---


def check_kind(b: Any, name: str) -> None:
    need(isinstance(b, dict) and isinstance(b.get("kind"), str), "index", "B3", f"{name}: a block without kind")
    need(b["kind"] in KEYS, "unknown", "I3", f"{name}: kind {b['kind']!r}")
    need(b.keys() <= KEYS[b["kind"]] | {"kind"}, "unknown", "I3", f"{name}: a key of {sorted(b)}")


def check_height(b: dict[str, Any], name: str, blocks: int) -> None:
    good = "height" not in b if blocks == 1 else is_whole(b.get("height"), 1)
    need(good, "index", "B3", f"{name}: height {b.get('height')}")


def check_block(b: dict[str, Any], name: str, rows: int, columns: int) -> None:
    for key, total in (("rows", rows), ("cols", columns)):
        need(key not in b or is_whole(b[key], 1, total - 1), "index", "B3", f"{name}: {key} of {total}")
    need(b["kind"] != "tie" or is_name(b.get("to")), "index", "B3", f"{name}: to")
    need("planes" not in b or is_wholes(b["planes"]), "index", "P1", f"{name}: planes")
    if b["kind"] == "values":
        need(is_bits(b.get("bits")), "index", "B3", f"{name}: bits")
        need("per" not in b or (b["per"] == "row" and b["bits"] in (4, 8)), "index", "B3", f"{name}: per")
    if b["kind"] == "lowrank":
        bands = b.get("bands")
        good = isinstance(bands, list) and 0 < len(bands) <= 16 and all(is_band(band) for band in bands)
        need(good, "index", "B3", f"{name}: bands")
        need(b.get("levels", "vector") == "vector", "index", "B3", f"{name}: levels")
        need(b.get("rounding", "dithered") == "dithered", "index", "B3", f"{name}: rounding")
        need(sum(r for r, _ in b["bands"]) <= 65535, "limit", "T3", f"{name}: components")


def is_bits(v: Any) -> bool:
    return is_whole(v) and v in (2, 4, 8, 16)


def is_band(v: Any) -> bool:
    return is_wholes(v, 2, 2) and v[0] >= 1 and is_bits(v[1])


def check_elements(dtype: str, elements: int, blocks: int, b: dict[str, Any], name: str) -> None:
    coded = b["kind"] in CODED
    need(not coded or dtype in FLOATS, "index", "B2", f"{name}: {dtype} cannot be coded")
    need("rounding" not in b or dtype == "BF16", "index", "B3", f"{name}: rounding to {dtype}")
    need(elements or (not coded and blocks == 1), "index", "B2", f"{name}: a block without elements")


def check_ties(entries: dict[str, Any]) -> None:
    for name, t in entries.items():
        if t["blocks"][0]["kind"] == "tie":
            to = entries.get(t["blocks"][0]["to"], t)  # a tie to nothing is as bad as one to itself
            equal = to["dtype"] == t["dtype"] and to["shape"] == t["shape"]
            need(equal and to["blocks"][0]["kind"] != "tie", "index", "B4", f"{name}: to")


# --- 4.4 the base of a block ---


def check_base(b: dict[str, Any], name: str, own: str, start: int) -> None:
    """The name and first row that a block refers to, in the shortest form; `own` is the default name."""
    base = b.get("base", own)
    if b["kind"] in ("tie", "raw") or base is None:
        return
    if isinstance(base, list):
        good = len(base) == 2 and isinstance(base[0], str) and is_whole(base[1]) and base[1] != start
        need(good, "index", "B3", f"{name}: base")
        base = base[0]
    else:
        need(isinstance(base, str) and ("base" not in b or base != own), "index", "B3", f"{name}: base")
    need(is_name(base), "index", "I4", f"{name}: base {base!r}")


def check_base_tensor(t: Any, b: Any, tensors: dict[str, Any]) -> None:
    """For a block of a tensor, both as parsed, in the tensors of the base."""
    need(b.base[0] in tensors, "base-tensor", "R1", f"{t.name}: the base has no {b.base[0]!r}")
    base = tensors[b.base[0]]
    elements = prod(base.shape)
    whole = BITS.get(base.dtype, 0) * elements == 8 * len(base.data)
    need(whole, "base-tensor", "R1", f"{t.name}: dtype and shape of its base do not give its size")
    good = any(prod(base.shape[i:]) == b.columns for i in range(len(base.shape) + 1))
    need(good, "base-tensor", "R1", f"{t.name}: the base's shape is {base.shape}")
    good = (b.base[1] + b.height) * b.columns <= elements
    need(good, "base-tensor", "R1", f"{t.name}: the base's shape is {base.shape}")
    good = base.dtype == t.dtype or (base.dtype in FLOATS and t.dtype in FLOATS)  # as a coded block's dtype is (B2)
    need(good, "base-tensor", "R2", f"{t.name}: {base.dtype} to {t.dtype}")


# --- 4.5 files ---


def check_files(files: list[Any]) -> None:
    for f in files:
        check_file(f)
    names = [f["name"] for f in files]
    need(ascend(names), "index", "I4", "names of files do not ascend")
    need(sum(f.get("size", 0) for f in files) <= 2**30, "limit", "T3", "files of more than 1 GiB in all")
    taken = set(names)
    for name in names:
        folders = {name[:i] for i, c in enumerate(name) if c == "/"}
        need(taken.isdisjoint(folders), "file", "F1", f"{name!r}: a folder of it is a file")


def check_file(f: Any) -> None:
    check_keys(f, "a file", {"name", "digest", "size", "stored"})
    named = "digest" in f and f.keys().isdisjoint({"size", "stored"})
    good = named or (is_whole(f.get("size")) and is_whole(f.get("stored")))
    good = good and ("digest" not in f or is_hex(f["digest"]))
    need(isinstance(f.get("name"), str) and good, "index", "I5", "a file's name, digest, size or stored")
    name = f["name"]
    need(len(name.encode()) <= 1024, "limit", "T3", f"{name!r:.40}: a long name")
    need(all(is_component(part) for part in name.split("/")), "file", "F1", f"{name!r}: a component")
    is_index = ".index." in name.split("/")[-1] and name.endswith(".json")
    need(name.endswith(SUFFIXES) and not is_index, "file", "F1", f"{name!r}: a suffix")
    limit = CHANGED_LIMIT if "digest" in f else 2**30
    need(f.get("stored", 0) <= f.get("size", 0) <= limit, "file", "F2", f"{name!r}: size or stored")


def check_changed(frame: bytes, size: int) -> None:
    """What the frame of a changed file tells without its prefix."""
    _, used = frame_sizes(frame, "F2", None, size, "file")
    need(used == len(frame), "zstd", "F2", f"{len(frame) - used} bytes after the frame")


def check_base_file(f: dict[str, Any], there: bool, size: int, computed: str) -> None:
    need(there, "base-file", "F4", f"{f['name']}: the base has no such file")
    need(computed == f["digest"], "base-file", "F4", f"{f['name']}: SHA-256 {computed}")
    need("size" not in f or 8 <= size <= CHANGED_LIMIT, "base-file", "F4", f"{f['name']}: a prefix of {size} bytes")


def is_component(part: str) -> bool:
    return part != "" and part[0] != "." and not any(c in "\\:" or c < " " for c in part)


# --- 4.6 weight files ---


def check_weight_files(stem: str, folders: list[str], names: list[str]) -> None:
    need(len(stem.encode()) <= 1024 and "/" not in stem and is_component(stem), "file", "F3", f"stem {stem!r:.40}")
    check_names(folders)
    for folder in folders:
        parts = folder.split("/")
        good = all(is_component(part) and not part.endswith((*SUFFIXES, ".safetensors")) for part in parts)
        need(good, "file", "F3", f"folder {folder!r:.40}")
    taken = set()
    for name in names:
        within = [folder for folder in folders if name.startswith(folder + "/")]
        if within:
            folder = max(within, key=len)
            taken.add(folder)
            need(is_name(name[len(folder) + 1 :]), "file", "F3", f"{name!r:.40}: its name in the folder")
    need(taken == set(folders), "file", "F3", "a folder without tensors")


# --- 5. streams, and 3.2 again: their lengths ---


def check_totals(arenas: dict[str, tuple[int, int]], sizes: dict[str, int]) -> None:
    """Where each arena begins and ends in the file, and how long its content is."""
    for name, size in sizes.items():
        begin, end = arenas.get(name, (0, 0))
        padded = any(arenas[x][0] == end for x in ALIGNED if x in arenas)  # the next arena is one of the three
        pad = -(begin + size) % 32 if name in arenas and padded else 0
        need(end - begin == size + pad, "totals", "C7", f"{name}: {end - begin} bytes, not {size} + {pad}")


def check_padding(padding: bytes, name: str) -> None:
    need(not any(padding), "padding", "C7", f"after {name}")


def check_bitmaps_there(there: bool, size: int) -> None:
    need(there == (size > 0), "totals", "W2", f"{size} bytes of bitmaps, but {'an' if there else 'no'} arena rows")


def check_bitmap(bitmap: bytes, n: int, count: int) -> None:
    bits = int.from_bytes(bitmap, "little")
    good = count == n or (bits.bit_length() <= n and bits.bit_count() == count)
    need(good, "rows", "W1", f"a bitmap without {count} bits of {n}")


def check_finite(numbers: Array) -> None:
    need(np.isfinite(numbers).all(), "numbers", "N1", "not finite")


def check_norm(norm: float) -> None:
    need(norm >= 0, "numbers", "N2", f"a norm of {norm}")


def check_levels(levels: Array) -> None:
    need((np.diff(levels) >= 0).all(), "numbers", "N2", "levels do not ascend")


def check_code_padding(codes: Array) -> None:
    need(not codes.any(), "padding", "E1", "of a vector")


def check_code_values(values: Array) -> None:
    need(np.isfinite(values).all(), "numbers", "E2", "a code is not finite")


def check_planes(planes: list[int], size: int, k: int, name: str) -> None:
    """`size` bytes in k planes a chunk. How many there are is checked before anything as long is made."""
    need(len(planes) == -(-size // CHUNK) * k, "index", "P1", f"{name}: {len(planes)} planes for {size} bytes")
    for i, stored in enumerate(planes):
        plain = min(CHUNK, size - i // k * CHUNK) // k
        need(stored <= plain, "index", "P1", f"{name}: a plane of {stored} bytes, not {plain}")


# --- 7. base identity, 8. decoding ---


def check_base_used(summary: dict[str, Any], header: dict[str, Any], used: int) -> None:
    need(("base" in summary) == (used > 0), "totals", "H1", "base in the summary")
    leaves = header["base"]["shape"][0] if "base" in header else 0
    need(leaves == used, "totals", "H1", f"{leaves} leaves of {used} base tensors")


def check_leaf(computed: bytes, stored: bytes, name: str) -> None:
    need(computed[: len(stored)] == stored, "base-leaf", "H2", f"{name}: {computed.hex()}")


def check_base_digest(computed: str, stored: str) -> None:
    need(computed == stored, "base-digest", "H3", computed)


def check_memory(size: int, limit: int, name: str) -> None:
    need(size <= limit, "limit", "L2", f"{name}: {size} bytes")


# --- 15.1 residual layer: index and weight files ---


def check_layer_index(index: Any, matrices: list[tuple[int, int] | None]) -> None:
    """`matrices` has rows and columns of elements of each tensor of `index`; nothing for ties."""
    check_layer_keys(index, "the index", {"tensors", "weights"})
    tensors, weights = index.get("tensors"), index.get("weights", [])
    need(isinstance(tensors, list) and isinstance(weights, list), "index", "X1", "tensors or weights")
    need("weights" not in index or weights, "index", "X1", "weights is written although empty")
    need(len(tensors) == len(matrices), "index", "X1", f"{len(tensors)} tensors of {len(matrices)}")
    for t, matrix in zip(tensors, matrices, strict=True):
        check_layer_keys(t, "a tensor", {"leaf", "chunks", "prediction"})
        need(is_hex(t.get("leaf")), "index", "X1", "leaf")
        need(t.get("prediction", "delta") == "delta", "index", "X1", "prediction")
        check_chunk_sizes(t, matrix)
    for f in weights:
        check_layer_keys(f, "a weight file", {"name", "size", "stored"})
        need(isinstance(f.get("name"), str), "index", "X1", "name of a weight file")
        need(all(type(f.get(key)) is int for key in ("size", "stored")), "index", "X1", "size or stored")
    need(ascend([f["name"] for f in weights]), "index", "X1", "names of weight files do not ascend")
    check_weights(weights)


def check_layer_keys(v: Any, what: str, keys: set[str]) -> None:
    need(isinstance(v, dict), "index", "X1", f"{what} is no object")
    need(v.keys() <= keys, "unknown", "X1", f"a key of {what}: {sorted(v)}")


def check_chunk_sizes(t: dict[str, Any], matrix: tuple[int, int] | None) -> None:
    if matrix is None:
        need(t.keys() == {"leaf"}, "index", "X2", "chunks or prediction of a tie")
    elif "chunks" in t:
        (rows, columns), sizes = matrix, t["chunks"]
        need(is_wholes(sizes) and any(sizes), "index", "X2", "chunks")
        need(columns <= 2**31, "index", "X2", f"{columns} columns")
        count = -(-rows // max(1, CHUNK_ELEMENTS // columns)) if columns else 0
        need(len(sizes) == count, "index", "X2", f"{len(sizes)} chunks, not {count}")


def check_layer_total(size: int, there: int) -> None:
    need(size == there, "totals", "X2", f"residual: {there} bytes, not {size}")


def check_content(computed: str, stored: str) -> None:
    need(computed == stored, "content", "X3", computed)


def check_tied_leaf(own: str, other: str, name: str) -> None:
    need(own == other, "content", "X3", f"{name}: not the leaf of what it names")


def check_weights(weights: list[dict[str, Any]]) -> None:
    for f in weights:
        parts = f["name"].split("/")
        good = parts[-1].endswith(".safetensors") or (".index." in parts[-1] and parts[-1].endswith(".json"))
        need(good and all(is_component(part) for part in parts), "file", "X6", f"{f['name']!r:.40}")
        need(len(f["name"].encode()) <= 1024, "file", "X6", f"{f['name']!r:.40}: a long name")
        need(1 <= f["stored"] <= f["size"], "file", "X6", f"{f['name']!r:.40}: size or stored")
    need(sum(f["size"] for f in weights) <= 2**30, "file", "X6", "more than 1 GiB in all")
    taken = {f["name"] for f in weights}
    for name in taken:
        folders = {name[:i] for i, c in enumerate(name) if c == "/"}
        need(taken.isdisjoint(folders), "file", "X6", f"{name!r}: a folder of it is a file")


def weight_header(data: bytes, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtypes and shapes of the tensors of a safetensors file, in the order of their bytes, by its length and header."""
    need(int.from_bytes(data[:8], "little") == len(data) - 8, "file", "X6", f"{name}: length of the header")
    try:
        need(data[8:9] == b"{", "file", "X6", f"{name}: no object")
        header = json.loads(data[8:].decode(), object_pairs_hook=unique_keys, parse_constant=refuse_token)
        metadata = header.pop("__metadata__", {})
        metadata = list(metadata.values()) if isinstance(metadata, dict) else [None]
        need(all(isinstance(v, str) for v in metadata), "file", "X6", f"{name}: __metadata__")
        result, end = {}, 0
        for key, entry in header.items():
            need(is_name(key), "file", "X6", f"{name}: the tensor {key!r:.40}")
            check_entry(key, entry)
            need(entry["dtype"] in BITS, "file", "X6", f"{name}: {key!r:.40}: dtype")
        for key, entry in sorted(header.items(), key=lambda item: list(item[1]["data_offsets"])):
            dtype, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            good = begin == end and 8 * (stop - begin) == prod(shape) * BITS[dtype]
            need(good, "file", "X6", f"{name}: {key!r:.40}: bytes {begin} to {stop}")
            result[key], end = (dtype, tuple(shape)), stop
    except (ValueError, RecursionError) as error:  # no JSON, not UTF-8, half a surrogate pair; what is refused above
        raise Refused("file", "X6", error) from None
    return result


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(len(dict(pairs)) == len(pairs), "file", "X6", "a key twice")
    return dict(pairs)


def check_weight_tensors(found: list[tuple[str, Any]], tensors: dict[str, Any]) -> None:
    """Name, dtype and shape of the tensors of all weight files, and of those of the pack."""
    good = len(found) == len(tensors) and dict(found) == tensors
    need(good, "file", "X6", "weight files do not have each tensor once")


# --- 15.4, 15.5 chunks ---


def inflate_chunk(data: bytes, limit: int) -> bytes:
    try:
        content, used = inflate(data, "X4", limit)
    except Refused as error:
        raise Refused("residual", "X4", error) from None
    need(used == len(data), "residual", "X4", f"{len(data) - used} bytes after the frame")
    return content


def check_chunk_end(at: int, size: int) -> None:
    need(at == size, "residual", "X4", f"{size} bytes of content, not {at}")


def check_chunk_head(flags: int, offset: int) -> None:
    good = flags < 32 and (flags & 4 == 0 or flags & 3 == 0)
    need(good, "residual", "X4", f"flags {flags}")
    need(abs(offset) < 8192, "residual", "X4", f"offset {offset}")


def check_factors(factors: Array) -> None:
    need(np.isfinite(factors).all(), "residual", "X4", "a factor is not finite")


def check_coded(elements: int) -> None:
    need(elements > 0, "residual", "X4", "no element")


def check_code(code: int, bits: int) -> None:
    need(code & 3 < 3 and 4 * (code >> 2) < bits, "residual", "X4", f"the code {code} of integers of {bits} bits")


def check_small_padding(padding: Array) -> None:
    need(not padding.any(), "residual", "X4", "padding of a byte")


def check_high(small: Array, excess: Array, escape: int, limit: int) -> None:
    """Of a bucket: what its shared bytes say, and by how much the others exceed `escape`; all are at most `limit`."""
    need((small[small < escape] <= limit).all(), "residual", "X4", "an integer beyond its bits")
    good = not len(excess) or (limit >= escape and (excess <= np.uint64(limit - escape)).all())
    need(good, "residual", "X4", "an integer beyond its bits")


def check_positions(positions: Array, elements: int) -> None:
    need((positions < elements).all(), "residual", "X4", f"a position beyond {elements} elements")


def check_position_count(count: int, elements: int) -> None:
    need(count <= elements, "residual", "X4", f"{count} positions of {elements} elements")


def check_distances(less: Array, bits: int) -> None:
    """z - 1 of elements at positions."""
    need((less < np.uint64(2**bits - 1)).all(), "residual", "X4", "an integer beyond its bits")


def check_tensor_leaf(computed: str, stored: str, name: str) -> None:
    need(computed == stored, "content", "X5", f"{name}: {computed}")

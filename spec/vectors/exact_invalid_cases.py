"""The packs with a residual layer that every decoder must refuse, as those of `invalid_cases.py`."""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

from builder import Arena, Parts, T, base_digest, canonical, floats, frame_block, frame_header, plain_frame, windowed
from invalid_cases import (
    Base,
    Edit,
    Invalid,
    arenas,
    both,
    claim,
    content,
    cut,
    damage,
    drop,
    entry,
    in_summary,
    longer,
    new_base,
    no_content_size,
    other_base,
    reshape,
    without,
)
from layer_builder import weight_header
from valid_cases import Valid

ALL = "exact-all-kinds"
Json = dict[str, Any]

# fmt: off


# --- edits ---


def layer_of(p: Parts, name: str) -> Json:
    """A tensor of the layer's index."""
    names = [t["name"] for t in p.index["tensors"]]
    found: Json = p.layer["tensors"][names.index(name)]
    return found


def in_layer(**keys: Any) -> Edit:
    return lambda p, base: p.layer.update(keys)


def in_residual(which: str, **keys: Any) -> Edit:
    return lambda p, base: layer_of(p, which).update(keys)


def without_key(name: str, key: str) -> Edit:
    return lambda p, base: layer_of(p, name).pop(key)


def in_weights(**keys: Any) -> Edit:
    return lambda p, base: p.layer["weights"][0].update(keys)


def layer_text(old: str, new: str | bytes) -> Edit:
    def edit(p: Parts, base: Base) -> None:
        text = canonical(p.layer)
        assert old.encode() in text
        p.layer = text.replace(old.encode(), new.encode() if isinstance(new, str) else new, 1)

    return edit


def layer_frame(change: Callable[[bytes], bytes]) -> Edit:
    return lambda p, base: setattr(p, "on_layer", change)


def in_content(name: str, change: Callable[[bytes], bytes]) -> Edit:
    """The content of the only chunk of a tensor."""
    return chunk_frame(name, lambda frame: plain_frame(change(content(frame))))


def chunk_frame(name: str, change: Callable[[bytes], bytes]) -> Edit:
    """The frame of the only chunk of a tensor."""

    def edit(p: Parts, base: Base) -> None:
        at = 0
        for t, own in zip(p.index["tensors"], p.layer["tensors"], strict=True):
            if t["name"] == name:
                [size] = own["chunks"]
                new = change(p.residual[at : at + size])
                p.residual = p.residual[:at] + new + p.residual[at + size :]
                own["chunks"] = [len(new)]
                return
            at += sum(own.get("chunks", []))

    return edit


def leaves_of(p: Parts) -> dict[str, bytes]:
    names = [t["name"] for t in p.index["tensors"]]
    return {n: bytes.fromhex(own["leaf"]) for n, own in zip(names, p.layer["tensors"], strict=True)}


def new_content(p: Parts, base: Base) -> None:
    """The digest of the leaves that the layer has."""
    p.summary["content"] = base_digest(leaves_of(p))


def byte(at: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: at % len(data)] + bytes([value]) + data[at % len(data) + 1 :]


def put(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


def weight_file(change: Callable[[bytes], bytes], stored: Callable[[bytes], bytes] = lambda data: data) -> Edit:
    """The only weight file, which is stored as it is."""

    def edit(p: Parts, base: Base) -> None:
        f = p.layer["weights"][0]
        new = change(p.residual[-f["stored"] :])
        p.residual = p.residual[: -f["stored"]] + stored(new)
        f.update(size=len(new), stored=len(stored(new)))

    return edit


def header_json(change: Callable[[Json], Any]) -> Edit:
    """The header of the only weight file."""

    def edit(data: bytes) -> bytes:
        header = json.loads(data[8:])
        change(header)
        text = canonical(header)
        return struct.pack("<Q", len(text)) + text

    return weight_file(edit)


def header_text(old: bytes, new: bytes) -> Edit:
    def edit(data: bytes) -> bytes:
        assert old in data
        text = data[8:].replace(old, new, 1)
        return struct.pack("<Q", len(text)) + text

    return weight_file(edit)


def layer_row_signed(p: Parts, base: Base) -> None:
    """Another last row of `digests`, below a right pack id."""

    def change(data: bytes) -> bytes:
        start = 8 + int.from_bytes(data[:8], "little")
        rows = data[start + 32 : start + 64] + bytes(32)  # of the one digest block of the front, and of the layer
        return data[:start] + hashlib.sha256(data[:start] + rows).digest() + rows + data[start + 96 :]

    p.on_signed = change


# --- cases ---


def file_cases() -> list[Invalid]:
    x = Invalid
    early = arenas(lambda f, a: a.insert(-3, a.pop(-2)))
    return [
        x("C5", "layout", "layer-no-index", "a residual layer without index", drop("residual-index"), ALL),
        x("C5", "layout", "layer-no-digests", "a residual layer without digests", drop("residual-digests"), ALL),
        x("C5", "layout", "layer-missing", "a pack that requires a residual layer and has none",
          lambda p, base: setattr(p, "layer", None), ALL),
        x("C5", "layout", "layer-swapped", "the index of the layer before its digests", early, ALL),
        x("C5", "layout", "layer-before-raw", "a residual layer before raw",
          arenas(lambda f, a: a.append(a.pop(a.index(f["raw"])))), ALL),
        x("C5", "layout", "layer-digests-narrow", "digests of 16 bytes",
          entry("residual-digests", shape=[2, 16]), ALL),
        x("C5", "layout", "layer-digests-1d", "digests of one dimension", entry("residual-digests", shape=[32]), ALL),
        x("C5", "layout", "layer-dtype", "chunks of dtype I8", entry("residual", dtype="I8"), ALL),
        x("C5", "layout", "layer-2d", "chunks of two dimensions", lambda p, base: two_dimensions(p), ALL),
        x("C5", "layout", "layer-empty", "an arena residual of no bytes",
          arenas(lambda f, a: a.append(Arena("residual", "U8", [0], b""))), "exact-nothing"),
        x("C8", "layout", "layer-optional-after", "an optional arena after the residual layer",
          arenas(lambda f, a: a.append(a.pop(a.index(f["x.some-index"])))), "exact-optional"),
        x("C8", "layout", "layer-optional-within", "an optional arena within the residual layer",
          arenas(lambda f, a: a.insert(-1, a.pop(a.index(f["x.some-index"])))), "exact-optional"),
        x("C8", "unknown", "layer-not-required", "a residual layer that the summary does not know of",
          both(without("summary", "requires"), without("summary", "content")), ALL),
        x("C7", "totals", "layer-index-long", "a zero after the frame of the layer's index",
          longer("residual-index", b"\0"), ALL),
        x("D1", "layout", "layer-digests-many", "a row of the layer's digests too many",
          arenas(lambda f, a: reshape(f["residual-digests"], [2, 32])), ALL),
        x("D1", "layout", "layer-digests-few", "a row of the layer's digests missing",
          arenas(lambda f, a: reshape(f["residual-digests"], [1, 32])), "exact-layer-blocks"),
        x("D1", "layout", "layer-row-missing", "no row of digests for the layer's",
          arenas(lambda f, a: reshape(f["digests"], [2, 32])), ALL),
        x("D1", "layout", "layer-row-alone", "no rows of digests but the pack id",
          arenas(lambda f, a: reshape(f["digests"], [1, 32])), ALL),
        x("D4", "checksum", "damaged-layer-digests", "a bit of the layer's digests", damage("residual-digests"), ALL),
        x("D4", "checksum", "damaged-layer-digests-last", "a bit of the last digest of the layer",
          damage("residual-digests", 63), "exact-layer-blocks"),
        x("D4", "checksum", "layer-row-signed", "a wrong digest of the layer's digests below a right pack id",
          layer_row_signed, ALL),
        x("D2", "checksum", "damaged-layer-row", "a bit of the digest of the layer's digests",
          damage("digests", 95), ALL),
        *(x("D3", "checksum", f"damaged-{name}", f"a bit of {name}", damage(name, 20), ALL)
          for name in ("residual-index", "residual")),
        x("D3", "checksum", "damaged-layer-last", "a bit of the last digest block of the layer",
          damage("residual", 2**20 + 1000), "exact-layer-blocks"),
        x("S2", "summary", "content-missing", "no digest of the content", without("summary", "content"), ALL),
        x("S2", "summary", "content-short", "a digest of the content of 63 digits", in_summary(content="0" * 63), ALL),
        x("S2", "summary", "content-number", "a digest of the content that is a number", in_summary(content=1), ALL),
        x("S2", "summary", "content-uncalled", "a digest of the content without a residual layer",
          in_summary(content="0" * 64)),
        x("S2", "summary", "requires-default", "requires is written although empty", in_summary(requires=[])),
        x("S2", "summary", "requires-twice", "a feature that is required twice",
          in_summary(requires=["residual", "residual"]), ALL),
        x("S2", "summary", "requires-unsorted", "required features that do not ascend",
          in_summary(requires=["residual", "chain"]), ALL),
        x("S2", "summary", "requires-text", "requires is text", in_summary(requires="residual"), ALL),
        x("S2", "summary", "requires-number", "a required feature that is a number", in_summary(requires=[1]), ALL),
        x("S2", "summary", "base-pack-short", "a pack id of 63 digits",
          lambda p, base: p.summary["base"].update(pack="0" * 63), "exact-chain"),
        x("S2", "summary", "base-pack-true", "a pack id that is true",
          lambda p, base: p.summary["base"].update(pack=True), "exact-chain"),
        x("H2", "base-leaf", "layer-base-bytes", "a base of other bytes, from which a tensor is predicted",
          other_base("m.c", floats("BF16", (10, 12), [0.0] * 120)), ALL),
        x("H3", "base-digest", "layer-base-digest", "all leaves of the base are right, the digest is not",
          lambda p, base: p.summary["base"].update(digest="0" * 64), ALL),
        x("R1", "base-tensor", "layer-base-missing", "the base lacks a tensor of which others are predicted",
          new_base("m.b", None), ALL),
        x("S3", "feature", "requires-more", "a feature that nobody knows beside one that is known",
          in_summary(requires=["chain", "residual"]), ALL),
        x("S3", "feature", "requires-with-keys", "a feature that nobody knows, with keys of its own",
          in_summary(requires=["sparse"], more=1, content=5)),
    ]


def two_dimensions(p: Parts) -> None:
    p.on_header = lambda h: h["residual"]["shape"].append(1)


def index_cases() -> list[Invalid]:
    x = Invalid
    return [
        x("I1", "zstd", "layer-index-no-size", "an index of the layer that does not state its size",
          layer_frame(lambda f: no_content_size(content(f))), ALL),
        x("I1", "zstd", "layer-index-window", "an index of the layer that needs a window of 144 MiB",
          layer_frame(lambda f: windowed(f, 0x89)), ALL),
        x("I1", "limit", "layer-index-limit", "an index of the layer of 256 MiB and a byte",
          layer_frame(claim(lambda n: 2**28 + 1)), ALL),
        x("I1", "zstd", "layer-index-claim", "an index of some bytes that claims 256 MiB",
          layer_frame(claim(lambda n: 2**28)), ALL),
        x("X1", "index", "layer-json-space", "a space in the index of the layer", layer_text(",", ", "), ALL),
        x("X1", "index", "layer-json-utf8", "an index of the layer that is not UTF-8",
          layer_text('"model', b'"\xff\xfe'), ALL),
        x("X1", "index", "layer-array", "an index of the layer that is an array",
          lambda p, base: setattr(p, "layer", b"[]"), ALL),
        x("X1", "index", "layer-no-tensors", "an index of the layer without tensors",
          lambda p, base: setattr(p, "layer", b"{}"), "exact-nothing"),
        x("X1", "index", "layer-tensors-object", "tensors of the layer that are an object", in_layer(tensors={}), ALL),
        x("X1", "index", "layer-tensors-few", "a tensor of the layer missing",
          lambda p, base: p.layer["tensors"].pop(), ALL),
        x("X1", "index", "layer-tensors-many", "a tensor of the layer too many",
          lambda p, base: p.layer["tensors"].append({"leaf": "0" * 64}), ALL),
        x("X1", "index", "layer-tensor-text", "a tensor of the layer that is text",
          lambda p, base: p.layer["tensors"].insert(0, "a"), ALL),
        x("X1", "unknown", "layer-key", "an unknown key of the layer's index", in_layer(more=1), ALL),
        x("X1", "unknown", "layer-tensor-key", "an unknown key of a tensor of the layer",
          in_residual("h", name="h"), ALL),
        x("X1", "unknown", "layer-weight-key", "an unknown key of a weight file", in_weights(digest="0" * 64), ALL),
        x("X1", "index", "leaf-missing", "a tensor of the layer without leaf", without_key("h", "leaf"), ALL),
        x("X1", "index", "leaf-short", "a leaf of 63 digits", in_residual("h", leaf="0" * 63), ALL),
        x("X1", "index", "leaf-capitals", "a leaf in capitals", in_residual("h", leaf="AB" * 32), ALL),
        x("X1", "index", "leaf-number", "a leaf that is a number", in_residual("h", leaf=1), ALL),
        x("X1", "index", "prediction-base", "the default of a prediction is written",
          in_residual("h", prediction="base"), ALL),
        x("X1", "index", "prediction-true", "a prediction that is true", in_residual("h", prediction=True), ALL),
        x("X1", "index", "weights-default", "weights is written although empty", in_layer(weights=[]), "exact-ties"),
        x("X1", "index", "weights-text", "weights that are text", in_layer(weights="model"), "exact-ties"),
        x("X1", "index", "weights-null", "a weight file that is null", in_layer(weights=[None]), "exact-ties"),
        x("X1", "index", "weights-no-size", "a weight file without size",
          lambda p, base: p.layer["weights"][0].pop("size"), ALL),
        x("X1", "index", "weights-stored-text", "a length of a weight file that is text", in_weights(stored="9"), ALL),
        x("X1", "index", "weights-name-number", "a weight file's name that is a number", in_weights(name=1), ALL),
        x("X1", "index", "weights-unsorted", "weight files that do not ascend",
          lambda p, base: p.layer["weights"].reverse(), "exact-weights-shards"),
        x("X1", "index", "weights-twice", "a weight file twice",
          lambda p, base: p.layer["weights"][1].update(name=p.layer["weights"][0]["name"]), "exact-weights-shards"),
        x("X2", "index", "chunks-default", "chunks is written although there are none",
          in_residual("h", chunks=[]), ALL),
        x("X2", "index", "chunks-zero", "chunks that are all empty", in_residual("h", chunks=[0]), ALL),
        x("X2", "index", "chunks-negative", "a chunk of -1 bytes", in_residual("a", chunks=[-1]), ALL),
        x("X2", "index", "chunks-text", "chunks that are text", in_residual("a", chunks="9"), ALL),
        x("X2", "index", "chunks-true", "a length of a chunk that is true", in_residual("h", chunks=[True]), ALL),
        x("X2", "index", "chunks-many", "a chunk too many",
          lambda p, base: layer_of(p, "a")["chunks"].append(0), ALL),
        x("X2", "index", "chunks-few", "a chunk missing", lambda p, base: layer_of(p, "long")["chunks"].pop(0),
          "exact-chunks"),
        x("X2", "index", "chunks-tie", "chunks of a tie", in_residual("f", chunks=[9]), ALL),
        x("X2", "index", "prediction-tie", "a prediction of a tie", in_residual("f", prediction="delta"), ALL),
        x("X2", "index", "chunks-no-rows", "a chunk of a tensor without rows", in_residual("t5", chunks=[9]),
          "exact-shapes"),
        x("X2", "index", "chunks-no-columns", "a chunk of a tensor without columns", in_residual("t6", chunks=[9]),
          "exact-shapes"),
        x("X2", "index", "chunks-terabytes", "a chunk of 2^32 columns", terabytes, "exact-nothing"),
        x("X2", "totals", "residual-long", "a byte after chunks and weight files", longer("residual", b"\0"), ALL),
        x("X2", "totals", "residual-short", "a byte of the weight files missing", cut("residual", 1), ALL),
        x("X2", "totals", "residual-missing", "no arena residual", lambda p, base: setattr(p, "residual", b""), ALL),
        x("X2", "totals", "residual-uncalled", "an arena residual that nothing is in",
          lambda p, base: setattr(p, "residual", b"1"), "exact-nothing"),
        x("X3", "content", "content-other", "the digest of other content", in_summary(content="0" * 64), ALL),
        x("X3", "content", "content-names", "the digest of equal tensors under other names", content_of_others, ALL),
        x("X3", "content", "content-leaf", "another leaf than the digest was made of",
          in_residual("h", leaf="0" * 64), ALL),
        x("X3", "content", "content-tie", "a tie with another leaf than what it names",
          both(in_residual("f", leaf="0" * 64), new_content), ALL),
        x("X5", "content", "tensor-leaf", "a tensor that has another leaf",
          both(in_residual("a", leaf="0" * 64), new_content), ALL),
        x("X5", "content", "tensor-leaf-same", "a tensor without chunks that has another leaf",
          both(in_residual("h", leaf="0" * 64), new_content), ALL),
        x("X5", "content", "tensor-leaf-raw", "a raw tensor that has another leaf",
          both(in_residual("e", leaf="0" * 64), in_residual("f", leaf="0" * 64), new_content), ALL),
        x("X5", "content", "tensor-leaf-empty", "a tensor without elements that has another leaf",
          both(in_residual("t5", leaf="0" * 64), new_content), "exact-shapes"),
        x("X5", "content", "tensor-prediction", "a prediction by the delta for one by the base",
          in_residual("d", prediction="delta"), ALL),
        x("X5", "content", "tensor-integer", "other integers in a chunk",
          in_content("g", lambda c: struct.pack("<BhBB", 0, 0, 2, 0)), ALL),
    ]


def terabytes(p: Parts, base: Base) -> None:
    p.index["tensors"] = [{"name": "t", "dtype": "U8", "shape": [1, 2**32], "blocks": [{"kind": "same", "base": None}]}]
    p.summary["tensors"] = 1
    p.layer["tensors"] = [{"leaf": "0" * 64, "chunks": [9]}]
    p.residual = bytes(9)
    new_content(p, base)


def content_of_others(p: Parts, base: Base) -> None:
    p.summary["content"] = base_digest({"x" + name: leaf for name, leaf in leaves_of(p).items()})


def chunk_cases() -> list[Invalid]:
    """In the first pack, `g` has 3 integers of 64 bits: flags, offset, one code, shared bytes, escapes. `b` has
    positions, `a` scales of rows and a factor of the delta, `c` scales of columns and factors of rows."""

    def x(name: str, what: str, edit: Edit, source: str = ALL) -> Invalid:
        return Invalid("X4", "residual", f"chunk-{name}", what, edit, source)

    tiny = struct.pack("<Bh", 0, 0)
    few = struct.pack("<Bh", 4, 0)
    nan, infinity = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))
    planes = bytes(8)
    return [
        x("flag-32", "a flag that nobody knows", in_content("g", byte(0, 32))),
        x("flag-128", "the highest flag", in_content("g", byte(0, 128))),
        x("flags-positions-rows", "positions and scales of rows", in_content("b", byte(0, 5))),
        x("flags-positions-columns", "positions and scales of columns", in_content("b", byte(0, 6))),
        x("offset-high", "an offset of 8,192", in_content("g", put(1, struct.pack("<h", 8192)))),
        x("offset-low", "an offset of -8,192", in_content("g", put(1, struct.pack("<h", -8192)))),
        x("offset-positions", "an offset of 8,192 beside positions", in_content("b", put(1, struct.pack("<h", 8192)))),
        x("code-g", "a code of eight integers a byte", in_content("g", byte(3, 3))),
        x("code-l", "a code of 64 low bits of 64", in_content("g", lambda c: tiny + b"\x40" + bytes(24) + bytes(3))),
        x("code-low-bits", "a code of 8 low bits of 8", in_content("t.I8", lambda c: tiny + b"\x08" + bytes(48)),
          "exact-dtypes"),
        x("code-gaps", "a code of 32 low bits for gaps",
          in_content("b", lambda c: few + struct.pack("<I", 1) + b"\x20" + bytes(5) + bytes([2, 0]))),
        x("delta-factor-nan", "a factor of the delta that is not a number", in_content("a", put(3, nan))),
        x("delta-factor-infinite", "an infinite factor of the delta", in_content("a", put(3, infinity))),
        x("row-factor-nan", "a factor of a row that is not a number", in_content("c", put(3, nan))),
        x("row-factor-infinite", "an infinite factor of the last row", in_content("c", put(39, infinity))),
        x("factor-unused", "an infinite factor that nothing is multiplied by",
          in_content("g", lambda c: byte(0, 16)(c)[:3] + infinity + c[3:])),
        x("no-elements-rows", "no row that is coded", in_content("a", lambda c: c[:7] + bytes(10))),
        x("no-elements-columns", "no column that is coded", in_content("c", lambda c: c[:43] + bytes(12))),
        x("positions-many", "more positions than elements",
          in_content("b", lambda c: few + struct.pack("<I", 121) + b"\x02" + bytes(31) + b"\x02" + bytes(31))),
        x("positions-2-32", "2^32 - 1 positions", in_content("b", put(3, b"\xff\xff\xff\xff"))),
        x("position-beyond", "a position after the last element",
          in_content("b", lambda c: few + struct.pack("<I", 1) + b"\x00" + bytes([120]) + b"\x02" + bytes(1))),
        x("position-far", "a gap of 2^32 - 1", in_content(
          "b", lambda c: few + struct.pack("<I", 1) + b"\0\xff" + struct.pack("<I", 2**32 - 1 - 255) + b"\2\0")),
        x("gap-large", "a gap of 2^32", in_content(
          "b", lambda c: few + struct.pack("<I", 1) + b"\0\xff" + struct.pack("<I", 2**32 - 255) + b"\2\0")),
        x("distance-zero", "an element at a position that is 2^16 steps from its prediction",
          in_content("b", lambda c: few + struct.pack("<IBBBBH", 1, 0, 0, 0, 255, 2**16 - 256))),
        x("h-bits", "an integer of 16 bits whose high bits are more than 12",
          in_content("t.I16", lambda c: tiny + b"\x04" + bytes(12) + b"\xff" + bytes(23) + b"\x01\x0f"),
          "exact-dtypes"),
        x("h-bits-small", "an integer of 8 bits, with 4 low ones and 5 high ones",
          in_content("t.I8", lambda c: tiny + b"\x04" + bytes(12) + b"\x10" + bytes(23)), "exact-dtypes"),
        x("h-bits-escape", "an integer of 8 bits that escapes, with 4 high ones",
          in_content("t.I8", lambda c: tiny + b"\x05" + bytes(12) + b"\x0f" + bytes(11) + b"\x01"), "exact-dtypes"),
        x("z-bits", "an integer of 2^64",
          in_content("g", lambda c: tiny + b"\0\xff\0\0" + struct.pack("<Q", 2**64 - 255))),
        x("z-bits-8", "an integer of 256 in 8 bits",
          in_content("t.U8", lambda c: tiny + b"\0\xff" + bytes(23) + b"\x01"), "exact-dtypes"),
        x("padding-shared", "padding of shared bytes", in_content("g", lambda c: tiny + b"\x02\xc0")),
        x("padding-shared-two", "padding of two integers in a byte", in_content("g", lambda c: tiny + b"\x01\x00\x10")),
        x("padding-low", "padding of low bits", in_content("g", lambda c: tiny + b"\x04\x00\x10" + bytes(3))),
        x("long", "a byte after the content's last part", in_content("g", lambda c: c + b"\0")),
        x("long-none", "bytes after no positions", in_content("b", lambda c: few + bytes(5))),
        x("short", "content that lacks its last byte", in_content("g", lambda c: c[:-1])),
        x("short-escapes", "escapes that lack a plane", in_content("g", lambda c: tiny + b"\x02\x03" + planes[1:])),
        x("short-head", "content of two bytes", in_content("g", lambda c: c[:2])),
        x("short-none", "content of no bytes", in_content("g", lambda c: b"")),
        x("short-rows", "scales of rows that are cut off", in_content("a", lambda c: c[:10])),
        x("short-positions", "a number of positions that is cut off", in_content("b", lambda c: c[:5])),
        x("long-limit", "content of more than there can be", in_content("g", lambda c: c + bytes(700))),
        x("frame-claim", "a frame that states terabytes", chunk_frame("g", claim(lambda n: 2**42))),
        x("frame-bomb", "a frame that holds more than it states", chunk_frame("g", lambda f: f[:9] + b"".join(
            frame_block(bytes(2**17), i == 15) for i in range(16)))),
        x("frame-no-size", "a frame that does not state its size",
          chunk_frame("g", lambda f: no_content_size(content(f)))),
        x("frame-window", "a frame that needs a window of 144 MiB", chunk_frame("g", lambda f: windowed(f, 0x89))),
        x("frame-garbage", "a byte after a chunk's frame", chunk_frame("g", lambda f: f + b"\0")),
        x("frame-two", "a second frame", chunk_frame("g", lambda f: f + plain_frame(b""))),
        x("frame-cut", "a frame that ends early", chunk_frame("g", lambda f: f[:-1])),
        x("frame-none", "a chunk that is not a frame", chunk_frame("g", lambda f: content(f).ljust(20, b"\0"))),
        x("frame-skippable", "a skippable frame", chunk_frame("g", lambda f: b"\x50\x2a\x4d\x18\4\0\0\0" + bytes(4))),
        x("frame-dictionary", "a frame that needs a dictionary",
          chunk_frame("g", lambda f: f[:4] + b"\xa1\x07" + f[5:])),
        x("frame-checksum", "a frame with a wrong checksum",
          chunk_frame("g", lambda f: f[:4] + b"\xa4" + f[5:] + b"1234")),
        x("frame-empty", "a frame of no bytes", chunk_frame("g", lambda f: frame_header(0) + frame_block(b"", True))),
    ]


def weight_cases() -> list[Invalid]:
    def x(name: str, what: str, edit: Edit, source: str = ALL, rules: str = "X6", reason: str = "file") -> Invalid:
        return Invalid(rules, reason, f"weights-{name}", what, edit, source)

    names = {
        "parent": "../model.safetensors", "absolute": "/model.safetensors", "hidden": ".model.safetensors",
        "hidden-folder": ".a/model.safetensors", "double-slash": "a//model.safetensors",
        "backslash": "a\\model.safetensors", "drive": "c:model.safetensors", "control": "a\n.safetensors",
        "suffix": "model.bin", "code": "model.py", "only-suffix": ".safetensors", "capitals": "MODEL.SAFETENSORS",
        "json": "config.json", "folder-index": "a.index.b/config.json", "slash-end": "model.safetensors/",
        "empty": "", "long": "x" * 1013 + ".safetensors",
    }  # fmt: skip
    other = weight_header({"w": T("BF16", (4, 6), bytes(48))})
    return [
        *(x(f"name-{name}", f"a weight file named {text[:24]!r}", in_weights(name=text))
          for name, text in names.items()),
        x("index-alone", "an index of shards and no file of tensors", in_weights(name="model.safetensors.index.json")),
        x("stored-none", "a weight file stored in no bytes", in_weights(stored=0)),
        x("stored-negative", "a weight file stored in -1 bytes", in_weights(stored=-1)),
        x("stored-more", "a weight file stored in more bytes than it has", in_weights(size=9)),
        x("gigabytes", "a weight file of more than 1 GiB", in_weights(size=2**30 + 1)),
        x("gigabytes-all", "weight files of more than 1 GiB in all",
          lambda p, base: [f.update(size=2**29) for f in p.layer["weights"]], "exact-weights-shards"),
        x("folder", "a weight file in a folder that is one", weights_in_file, "exact-weights-folders"),
        x("size", "a frame of fewer bytes than its size",
          both(weight_file(lambda d: d, plain_frame), more_size), "exact-layer-blocks", "F2"),
        x("frame", "a weight file that is neither plain nor a frame", more_size, rules="F2", reason="zstd"),
        x("garbage", "bytes after a weight file's frame", weight_file(lambda d: d, lambda d: plain_frame(d) + b"\0"),
          "exact-layer-blocks", "F2", "zstd"),
        x("claim", "a weight file of some bytes that claims 128 MiB", claimed, rules="F2", reason="zstd"),
        x("short", "a weight file of 7 bytes", weight_file(lambda d: d[:7])),
        x("length", "a length that is not the header's", weight_file(lambda d: b"\1" + d[1:])),
        x("length-huge", "a length of 2^64 - 1", weight_file(lambda d: b"\xff" * 8 + d[8:])),
        x("no-header", "a header of no bytes", weight_file(lambda d: bytes(8))),
        x("space-first", "a space before the header", header_text(b"{", b" {")),
        x("no-json", "a header that is no JSON", header_text(b"}}", b"}")),
        x("utf8", "a header that is not UTF-8", header_text(b'"pt"', b'"\xff"')),
        x("bom", "a byte order mark before the header", header_text(b"{", b"\xef\xbb\xbf{")),
        x("array", "a header that is an array", weight_file(lambda d: struct.pack("<Q", 2) + b"[]")),
        x("nan", "NaN in a header", header_text(b"[3]", b"[NaN]")),
        x("twice", "a tensor twice in a header", header_text(b'{"__m', b'{"a":{},"__m')),
        x("metadata-number", "metadata that is a number", header_json(lambda h: h.update(__metadata__={"a": 1}))),
        x("metadata-text", "metadata that is text", header_json(lambda h: h.update(__metadata__="pt"))),
        x("key", "an unknown key of a tensor", header_json(lambda h: h["a"].update(strides=1))),
        x("no-dtype", "a tensor without dtype", header_json(lambda h: h["a"].pop("dtype"))),
        x("dtype-unknown", "an unknown dtype", header_json(lambda h: h["a"].update(dtype="I128"))),
        x("fraction", "a fraction in a shape", header_text(b"[3]", b"[3.0]")),
        x("negative", "a negative dimension", header_json(lambda h: h["g"].update(shape=[-3]))),
        x("offsets", "three offsets", header_json(lambda h: h["g"]["data_offsets"].append(1))),
        x("gap", "a gap between tensors", header_json(lambda h: moved(h, "h", 1))),
        x("gap-first", "a gap before the first tensor", header_json(lambda h: moved(h, "abcdefgh", 8))),
        x("overlap", "tensors that overlap", header_json(lambda h: moved(h, "h", -2))),
        x("bytes", "offsets of other size than dtype and shape", header_json(lambda h: h["g"].update(shape=[2]))),
        x("tensor-missing", "a tensor that no weight file has", header_json(lambda h: h.pop("h"))),
        x("tensor-more", "a tensor that the pack does not have",
          header_json(lambda h: h.update(x={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}))),
        x("tensor-shape", "a tensor of another shape", header_json(lambda h: h["a"].update(shape=[12, 10]))),
        x("tensor-dtype", "a tensor of another dtype", header_json(lambda h: h["a"].update(dtype="F16"))),
        x("tensor-twice", "a tensor in two weight files", twice(other), "exact-weights-shards"),
        x("tensor-folder", "a tensor of a folder under its full name", full_name, "exact-weights-folders"),
        x("tensor-empty-name", "a tensor without a name",
          header_json(lambda h: h.update({"": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}))),
    ]


def moved(header: Json, names: str, by: int) -> None:
    for name in names:
        header[name]["data_offsets"] = [at + by for at in header[name]["data_offsets"]]


def weights_in_file(p: Parts, base: Base) -> None:
    """The last weight file, in a folder of the name of the one before."""
    p.layer["weights"][-1]["name"] = p.layer["weights"][-2]["name"] + "/model.safetensors"


def more_size(p: Parts, base: Base) -> None:
    p.layer["weights"][0]["size"] += 1


def claimed(p: Parts, base: Base) -> None:
    f = p.layer["weights"][0]
    p.residual = p.residual[: -f["stored"]] + claim(lambda n: 2**27)(plain_frame(b"some"))
    f.update(size=2**27, stored=len(claim(lambda n: 2**27)(plain_frame(b"some"))))


def twice(header: bytes) -> Edit:
    """A weight file more, with a tensor that another one has."""

    def edit(p: Parts, base: Base) -> None:
        p.layer["weights"].append({"name": "more.safetensors", "size": len(header), "stored": len(header)})
        p.residual += header

    return edit


def full_name(p: Parts, base: Base) -> None:
    """The file of a folder, at the place of another folder that is none of the index."""
    for f in p.layer["weights"]:
        f["name"] = f["name"].replace("2_Dense/", "3_Dense/")
    p.layer["weights"].sort(key=lambda f: f["name"])


def exact_invalid_cases(sources: dict[str, Valid]) -> list[Invalid]:
    cases = file_cases() + index_cases() + chunk_cases() + weight_cases()
    for case in cases:
        case.build(sources)
    return cases

"""The packs that every decoder must refuse: small edits of valid ones, signed again unless that is the point."""

import copy
import hashlib
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from builder import (
    Arena,
    Parts,
    T,
    base_digest,
    canonical,
    floats,
    frame_block,
    frame_header,
    leaf,
    pinned_frame,
    plain_frame,
    windowed,
)
from valid_cases import CLAIM, Valid

Base = dict[str, T]
Edit = Callable[[Parts, Base], Any]


@dataclass
class Invalid:
    rules: str
    reason: str
    name: str
    what: str
    edit: Edit
    source: str = "all-kinds"
    data: bytes = b""
    base: Base = field(default_factory=dict)
    differing: dict[str, bytes | None] = field(default_factory=dict)  # files of the base, without their endings
    base_files: dict[str, bytes] | None = None

    def build(self, sources: dict[str, Valid]) -> None:
        maker = sources[self.source].maker
        parts, self.base = copy.deepcopy(sources[self.source].parts), dict(maker.base)
        if maker.base_files is not None:
            files = {name: self.differing.get(name.split(".")[0], data) for name, data in maker.base_files.items()}
            self.base_files = {name: data for name, data in files.items() if data is not None}
        self.edit(parts, self.base)
        self.data = parts.file()


# --- edits ---


def tensor(p: Parts, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(t for t in p.index["tensors"] if t["name"] == name)
    return found


def in_summary(**keys: Any) -> Edit:
    return lambda p, base: p.summary.update(keys)


def in_index(**keys: Any) -> Edit:
    return lambda p, base: p.index.update(keys)


def in_tensor(which: str, **keys: Any) -> Edit:
    return lambda p, base: tensor(p, which).update(keys)


def in_block(name: str, at: int = 0, **keys: Any) -> Edit:
    return lambda p, base: tensor(p, name)["blocks"][at].update(keys)


def without(*path: str) -> Edit:
    """Without a key of the summary, of a tensor or of its first block."""

    def edit(p: Parts, base: Base) -> None:
        where = p.summary if path[0] == "summary" else tensor(p, path[0])
        del (where["blocks"][0] if len(path) == 3 else where)[path[-1]]

    return edit


def index_text(old: str, new: str | bytes) -> Edit:
    def edit(p: Parts, base: Base) -> None:
        text = canonical(p.index)
        assert old.encode() in text
        p.index = text.replace(old.encode(), new.encode() if isinstance(new, str) else new, 1)

    return edit


def index_bytes(text: bytes) -> Edit:
    return lambda p, base: setattr(p, "index", text)


def summary_text(old: str, new: str) -> Edit:
    return lambda p, base: setattr(p, "summary", canonical(p.summary).decode().replace(old, new, 1))


def header_text(old: str, new: str | bytes) -> Edit:
    def change(text: bytes) -> bytes:
        assert old.encode() in text
        text = text.rstrip(b" ").replace(old.encode(), new.encode() if isinstance(new, str) else new, 1)
        return text + b" " * (-(8 + len(text)) % 32)

    return lambda p, base: setattr(p, "on_text", change)


def header_raw(change: Callable[[bytes], bytes]) -> Edit:
    return lambda p, base: setattr(p, "on_text", change)


def header(change: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda p, base: setattr(p, "on_header", change)


def entry(arena: str, **keys: Any) -> Edit:
    return header(lambda h: h[arena].update(keys))


def arenas(change: Callable[[dict[str, Arena], list[Arena]], Any]) -> Edit:
    return lambda p, base: setattr(p, "on_arenas", lambda all_: change({a.name: a for a in all_}, all_))


def longer(name: str, extra: bytes) -> Edit:
    """An arena with more bytes, and a shape that says so."""

    def change(found: dict[str, Arena], _: list[Arena]) -> None:
        found[name].data += extra
        found[name].shape = [len(found[name].data) // {"F32": 4}.get(found[name].dtype, 1)]

    return arenas(change)


def cut(name: str, count: int) -> Edit:
    def change(found: dict[str, Arena], _: list[Arena]) -> None:
        found[name].data = found[name].data[:-count]
        found[name].shape = [len(found[name].data) // {"F32": 4}.get(found[name].dtype, 1)]

    return arenas(change)


def poke(name: str, at: int, value: int = 1) -> Edit:
    """One byte of an arena, before it is signed."""

    def change(found: dict[str, Arena], _: list[Arena]) -> None:
        data = bytearray(found[name].data)
        data[at] = value
        found[name].data = bytes(data)

    return arenas(change)


def reshape(a: Arena, shape: list[int]) -> None:
    a.shape, a.data = shape, bytes(math.prod(shape))


def drop(name: str) -> Edit:
    return arenas(lambda found, all_: all_.remove(found[name]))


def damage(name: str, at: int = 0) -> Edit:
    """One bit of an arena, after it is signed."""

    def edit(p: Parts, base: Base) -> None:
        where: list[int] = []

        def find(all_: list[Arena]) -> None:
            before = [a.name for a in all_].index(name)
            where.append(sum(len(a.data) for a in all_[:before]) + at)

        def flip(data: bytes) -> bytes:
            i = 8 + int.from_bytes(data[:8], "little") + where[0]
            return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]

        p.on_arenas, p.on_signed = find, flip

    return edit


def signed(change: Callable[[bytes], bytes]) -> Edit:
    return lambda p, base: setattr(p, "on_signed", change)


def number(at: int, value: float) -> Edit:
    def edit(p: Parts, base: Base) -> None:
        p.numbers = p.numbers[: 4 * at] + struct.pack("<f", value) + p.numbers[4 * at + 4 :]

    return edit


def stream(name: str, at: int, value: int) -> Edit:
    """One byte of `bitmaps`, `codes` or `raw`."""

    def edit(p: Parts, base: Base) -> None:
        data = bytearray(getattr(p, name))
        data[at] = value
        setattr(p, name, bytes(data))

    return edit


def index_frame(change: Callable[[bytes], bytes]) -> Edit:
    return lambda p, base: setattr(p, "on_index", change)


def rows_frame(change: Callable[[bytes], bytes]) -> Edit:
    return lambda p, base: setattr(p, "on_rows", change)


def new_digest(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Edit:
    """The digest of other leaves than those that the pack has."""
    return lambda p, base: p.summary["base"].update(digest=base_digest(change(p.leaves)))


def new_base(name: str, t: T | None) -> Edit:
    """Another base tensor, or none, with the leaf and the digest of the pack made to match."""

    def edit(p: Parts, base: Base) -> None:
        del base[name]
        if t is not None:
            base[name] = t
            p.leaves[name] = leaf(t)
            p.summary["base"]["digest"] = base_digest(p.leaves)

    return edit


def other_base(name: str, t: T) -> Edit:
    """Another base tensor than the pack was made for."""
    return lambda p, base: base.update({name: t})


def file_named(name: str) -> Edit:
    return lambda p, base: p.index["files"][0].update(name=name)


def in_file(at: int, **keys: Any) -> Edit:
    return lambda p, base: p.index["files"][at].update(keys)


def only(dtype: str, shape: list[int], *blocks: dict[str, Any]) -> Edit:
    """A pack of one tensor with no streams at all."""

    def edit(p: Parts, base: Base) -> None:
        t = {"blocks": [*blocks], "dtype": dtype, "name": "t", "shape": shape}
        p.index, p.summary["tensors"] = {"tensors": [t]}, 1

    return edit


def both(*edits: Edit) -> Edit:
    def edit(p: Parts, base: Base) -> None:
        for e in edits:
            e(p, base)

    return edit


def last_plane(change: Callable[[bytes], bytes]) -> Edit:
    """The second plane of tensor `e`, which is a frame."""

    def edit(p: Parts, base: Base) -> None:
        sizes = tensor(p, "e")["blocks"][0]["planes"]
        old = p.raw[sizes[0] : sum(sizes)]
        new = change(old)
        p.raw = p.raw[: sizes[0]] + new + p.raw[sum(sizes) :]
        sizes[1] = len(new)

    return edit


# --- frames that are wrong ---


def no_content_size(data: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd\x00\x58" + frame_block(data, True)


def claim(change: Callable[[int], int]) -> Callable[[bytes], bytes]:
    """The same blocks, with another content size, in 8 bytes."""

    def edit(frame: bytes) -> bytes:
        return frame[:4] + b"\xe0" + struct.pack("<Q", change(int.from_bytes(frame[5:9], "little"))) + frame[9:]

    return edit


def too_wide(frame: bytes) -> bytes:
    return windowed(frame, 0x89)


def content(frame: bytes) -> bytes:
    """What a frame of `plain_frame` with one stored block holds."""
    return frame[12:]


def bomb(frame: bytes) -> bytes:
    """States as many bytes as before, holds 16 MiB."""
    return frame[:9] + b"".join(frame_block(bytes(2**17), i == 127) for i in range(128))


# fmt: off


def container_cases() -> list[Invalid]:
    x = Invalid
    long_text = both(in_summary(encoder="x" * 65500))
    return [
        x("C1", "truncated", "empty-file", "a file of no bytes", signed(lambda d: b"")),
        x("C1", "truncated", "no-length", "a file of 7 bytes", signed(lambda d: d[:7])),
        x("C1", "truncated", "cut-header", "a file that ends in the header", signed(lambda d: d[:200])),
        x("C1", "truncated", "cut-data", "a file that lacks its last byte", signed(lambda d: d[:-1])),
        x("C1", "truncated", "cut-after-header", "a file that is only a header",
          signed(lambda d: d[: 8 + int.from_bytes(d[:8], "little")])),
        x("C1", "layout", "trailing-byte", "a byte after the last arena", signed(lambda d: d + b"\0")),
        x("C2", "header", "header-too-long", "a header of more than 65,528 bytes", long_text),
        x("C2", "header", "header-length-huge", "a header of 2^62 bytes, or so it says",
          signed(lambda d: struct.pack("<Q", 2**62 + 24) + d[8:])),
        x("C2", "header", "header-not-aligned", "a header one space short",
          header_raw(lambda t: t[:-1] if t[-1:] == b" " else t + b" ")),
        x("C3", "header", "header-spaces", "a header followed by 32 spaces more", header_raw(lambda t: t + b" " * 32)),
        x("C3", "header", "header-leading-space", "a space before the header", header_text('{"__m', ' {"__m')),
        x("C3", "header", "header-inner-space", "a space in the header", header_text('"dtype":', '"dtype": ')),
        x("C3", "header", "header-newline", "a line feed after the header", header_text('}}', '}}\n'), "minimal"),
        x("C3", "header", "header-zero", "zeros for spaces after the header",
          header_raw(lambda t: t.replace(b" ", b"\0")), "minimal"),
        x("C3", "header", "header-unsorted", "keys of the header in another order", header_raw(backwards)),
        x("C3", "header", "header-duplicate", "an arena twice in the header",
          header_text('"index":{', '"index":{},"index":{')),
        x("C3", "header", "header-escape", "a letter of the header as an escape",
          header_text('"index"', '"inde\\u0078"')),
        x("C3", "header", "header-fraction", "a fraction in the header", header_text("[0,", "[0.0,")),
        x("C3", "header", "header-false", "false in the header", header_text("[0,", "[false,")),
        x("C3", "header", "header-utf8", "bytes of the header that are not UTF-8",
          header_text("spec/vectors", b"\xff\xfe")),
        x("C3", "header", "header-surrogate", "half a surrogate pair in the header",
          header_text("spec/vectors", "\\ud800")),
        x("C3", "header", "header-bom", "a byte order mark before the header", header_text('{"__m', '\ufeff{"__m')),
        x("C3", "header", "header-nesting", "arrays in arrays, 100 deep",
          header_text('"base":', '"a":' + "[" * 100 + "]" * 100 + ',"base":')),
        x("C3", "header", "header-no-object", "a header that is an array", header_raw(lambda t: b"[]" + b" " * 22)),
        x("C3", "header", "header-no-json", "a header that is no JSON", header_raw(lambda t: b"{]" + b" " * 22)),
        x("C3", "header", "header-large-integer", "an integer of 2^53", entry("index", data_offsets=[0, 2**53])),
        x("C4", "header", "metadata-missing", "no __metadata__", header(lambda h: h.pop("__metadata__"))),
        x("C4", "header", "metadata-two-keys", "another key in __metadata__",
          header(lambda h: h["__metadata__"].update(format="pt"))),
        x("C4", "header", "metadata-other-key", "a key of another name",
          header(lambda h: h.update(__metadata__={"format": "pt"}))),
        x("C4", "header", "metadata-object", "a summary that is an object",
          header(lambda h: h["__metadata__"].update(dtscodec={}))),
        x("C4", "header", "arena-key", "an unknown key of an arena", entry("index", strides=[1])),
        x("C4", "header", "arena-no-dtype", "an arena without dtype", header(lambda h: h["index"].pop("dtype"))),
        x("C4", "header", "arena-dtype-number", "a dtype that is a number", entry("index", dtype=8)),
        x("C4", "header", "arena-shape-negative", "a negative dimension", entry("index", shape=[-1])),
        x("C4", "header", "arena-shape-text", "a shape that is text", entry("index", shape="1")),
        x("C4", "header", "arena-offsets-three", "three offsets", entry("index", data_offsets=[0, 1, 2])),
        x("C4", "header", "arena-offsets-negative", "a negative offset", entry("index", data_offsets=[-1, 2])),
        x("C4", "header", "arena-null", "an arena that is null", header(lambda h: h.update(index=None))),
        x("C5", "layout", "no-index", "no index", drop("index")),
        x("C5", "layout", "no-digests", "no digests", header(lambda h: h.pop("digests")), "minimal"),
        x("C5", "layout", "arena-dtype", "codes of dtype I8", entry("codes", dtype="I8")),
        x("C5", "layout", "numbers-f16", "numbers of dtype F16", entry("numbers", dtype="F16")),
        x("C5", "layout", "numbers-u8", "numbers of dtype U8", entry("numbers", dtype="U8")),
        x("C5", "layout", "arena-shape", "a shape of other size than the offsets", entry("index", shape=[7])),
        x("C5", "layout", "arena-2d", "codes of two dimensions", header(lambda h: h["codes"]["shape"].append(1))),
        x("C5", "layout", "arena-terabytes", "an arena of terabytes", entry("raw", shape=[2**50])),
        x("C5", "layout", "digests-narrow", "digests of 16 bytes",
          header(lambda h: h["digests"].update(shape=[4, 16]))),
        x("C5", "layout", "base-narrow", "leaves of 3 bytes", lambda p, base: setattr(p, "width", 3)),
        x("C5", "layout", "base-wide", "leaves of 33 bytes",
          arenas(lambda f, a: reshape(f["base"], [1, 33])), "blocks-shrunk"),
        x("C5", "layout", "arenas-gap", "a gap before the last arena", gap),
        x("C5", "layout", "arenas-overlap", "an arena that begins within another", overlap),
        x("C5", "layout", "arenas-swapped", "rows before index", arenas(lambda f, a: a.insert(2, a.pop(3)))),
        x("C5", "layout", "arenas-backwards", "an arena that ends before it begins",
          entry("index", data_offsets=[200, 100])),
        x("C5", "layout", "arena-empty", "an arena of no bytes",
          arenas(lambda f, a: a.append(Arena("rows", "U8", [0], b""))), "minimal"),
        x("C5", "layout", "index-arena-empty", "an index of no bytes",
          arenas(lambda f, a: reshape(f["index"], [0])), "lowrank-worked"),
        x("C8", "unknown", "arena-unknown", "an arena of another name", lambda p, base: p.extra.update(more=b"1")),
        x("C8", "unknown", "arena-not-optional", "an arena x. of a feature that is not named",
          lambda p, base: p.extra.update({"x.other": b"1"}), "optional"),
        x("C8", "layout", "arena-optional-early", "an arena x. before the others",
          arenas(lambda f, a: a.insert(1, a.pop())), "optional"),
        x("C8", "layout", "arena-optional-dtype", "an arena x. of dtype I8",
          entry("x.some-index", dtype="I8"), "optional"),
        x("C6", "layout", "numbers-misaligned", "numbers not at a multiple of 32", cut("rows", 4)),
        x("C6", "layout", "codes-misaligned", "codes not at a multiple of 32", cut("numbers", 4)),
        x("C6", "layout", "raw-misaligned", "raw not at a multiple of 32", cut("codes", 16)),
        x("C7", "totals", "index-long", "32 bytes too many in index", longer("index", bytes(32)), "minimal"),
        x("C7", "totals", "index-unpadded-zero", "a zero after the frame where no padding belongs",
          longer("index", bytes(1)), "minimal"),
        x("C7", "totals", "rows-long", "32 zeros too many in rows", longer("rows", bytes(32))),
        x("C7", "totals", "numbers-long", "32 zeros too many in numbers", longer("numbers", bytes(32))),
        x("C7", "totals", "codes-long", "32 zeros too many in codes", longer("codes", bytes(32))),
        x("C7", "totals", "codes-short", "a code vector missing", lambda p, base: setattr(p, "codes", p.codes[:-64])),
        x("C7", "totals", "raw-long", "a byte too many in raw", longer("raw", b"\0")),
        x("C7", "totals", "raw-short", "a byte missing in raw", cut("raw", 1)),
        x("C7", "totals", "raw-missing", "no raw at all", lambda p, base: setattr(p, "raw", b"")),
        x("C7", "totals", "numbers-missing", "no numbers at all", lambda p, base: setattr(p, "numbers", b"")),
        x("C7", "totals", "numbers-uncalled", "numbers that no block has",
          lambda p, base: setattr(p, "numbers", bytes(4)), "same-null"),
        x("C7", "totals", "raw-terabytes", "a raw block of terabytes",
          only("F32", [2**20, 2**20], {"kind": "raw"}), "minimal"),
        x("C7", "totals", "codes-terabytes", "a coded block of terabytes",
          only("F32", [2**20, 2**20], {"base": None, "bits": 16, "kind": "values"}), "minimal"),
        x("C7", "padding", "padding-index", "padding after index", poke("index", -1), "lowrank-worked"),
        x("C7", "padding", "padding-rows", "padding after rows", poke("rows", -1)),
        x("C7", "padding", "padding-numbers", "padding after numbers", poke("numbers", -1)),
        x("C7", "padding", "padding-codes", "padding after codes", poke("codes", -1)),
    ]


def backwards(text: bytes) -> bytes:
    items = reversed(json.loads(text).items())
    return json.dumps(dict(items), separators=(",", ":")).encode().ljust(len(text))


def gap(p: Parts, base: Base) -> None:
    def change(found: dict[str, Arena], all_: list[Arena]) -> None:
        all_.insert(all_.index(found["raw"]), Arena("gap", "U8", [64], bytes(64)))

    arenas(change)(p, base)
    header(lambda h: h.pop("gap"))(p, base)


def overlap(p: Parts, base: Base) -> None:
    def change(h: dict[str, Any]) -> None:
        h["codes"]["data_offsets"][0] -= 64
        h["codes"]["shape"][0] += 64

    header(change)(p, base)


def claim_cases() -> list[Invalid]:
    def x(name: str, what: str, reason: str = "summary", **changes: Any) -> Invalid:
        return Invalid("S4", reason, name, what, in_summary(claim=CLAIM | changes))

    agreement: dict[str, Any] = {"measure": "agreement", "bound": 96 * 10**7, "limit": 97 * 10**7, "figure": 98 * 10**7}
    return [
        x("claim-key", "an unknown key in the claim", "unknown", author="someone"),
        Invalid("S4", "summary", "claim-text", "a claim that is text", in_summary(claim="good")),
        Invalid("S4", "summary", "claim-empty", "a claim of nothing", in_summary(claim={})),
        x("claim-measure", "a claim of another measure", measure="accuracy"),
        x("claim-measure-number", "a measure that is a number", measure=1),
        x("claim-limit-low", "a limit below the figure", figure=9_600_000),
        x("claim-missed", "a KL above its bound", bound=9_000_000),
        x("claim-negative", "a negative KL", figure=-1),
        x("claim-text-figure", "a figure that is text", figure="0.008"),
        x("claim-true", "a number that is true", samples=True),
        x("claim-agreement-missed", "an agreement below its bound", **{**agreement, "bound": 975_000_000}),
        x("claim-agreement-limit", "a limit above the agreement", **{**agreement, "limit": 990_000_000}),
        x("claim-agreement-over", "an agreement above 1", **{**agreement, "figure": 1_000_000_001}),
        x("claim-sure", "a confidence of 1", confidence=10**9),
        x("claim-unsure", "a confidence of 0", confidence=0),
        x("claim-no-samples", "no samples", samples=0),
        x("claim-few-predictions", "fewer predictions than samples", predictions=127),
        x("claim-digest", "a digest of 63 digits", digest="0123456789abcdef" * 3 + "0123456789abcde"),
        x("claim-digest-number", "a digest that is a number", digest=5),
    ]


def summary_cases() -> list[Invalid]:
    x = Invalid
    digest = "0123456789abcdef" * 4
    return [
        x("S1", "version", "version-2", "version 2", in_summary(version=2)),
        x("S1", "version", "version-0", "version 0", in_summary(version=0)),
        x("S1", "version", "version-missing", "no version", without("summary", "version")),
        x("S1", "version", "version-text", "a version that is text", in_summary(version="1")),
        x("S1", "version", "version-future", "version 2 with much that version 1 does not know",
          both(in_summary(version=2, requires=["chain"], more=1), lambda p, base: p.extra.update(parents=b"1"))),
        x("S2", "unknown", "summary-key", "an unknown key in the summary", in_summary(author="someone")),
        x("S2", "unknown", "summary-base-key", "an unknown key in the base of the summary",
          lambda p, base: p.summary["base"].update(path="model")),
        x("S2", "summary", "summary-space", "a summary that is not canonical", summary_text(":", ": ")),
        x("S2", "summary", "summary-no-json", "a summary that is no JSON",
          lambda p, base: setattr(p, "summary", "dtscodec")),
        x("S2", "summary", "summary-array", "a summary that is an array", lambda p, base: setattr(p, "summary", "[]")),
        x("S2", "summary", "summary-no-block", "no block", without("summary", "block")),
        x("S2", "summary", "summary-no-tensors", "no number of tensors", without("summary", "tensors")),
        x("S2", "summary", "block-no-power", "a digest block of 65,537 bytes", in_summary(block=65537)),
        x("S2", "summary", "block-small", "a digest block of 32 KiB", in_summary(block=2**15)),
        x("S2", "summary", "block-large", "a digest block of 32 MiB", in_summary(block=2**25)),
        x("S2", "summary", "block-text", "a digest block that is text", in_summary(block="65536")),
        x("S2", "summary", "tensors-other", "another number of tensors than in the index", in_summary(tensors=9)),
        x("S2", "summary", "tensors-negative", "a negative number of tensors", in_summary(tensors=-1)),
        x("S2", "summary", "optional-default", "optional is written although empty", in_summary(optional=[])),
        x("S2", "summary", "optional-unsorted", "optional does not ascend", in_summary(optional=["b", "a"])),
        x("S2", "summary", "optional-twice", "a feature twice", in_summary(optional=["a", "a"])),
        x("S2", "summary", "optional-number", "a feature that is a number", in_summary(optional=[1])),
        x("S2", "summary", "task-empty", "a task without a letter", in_summary(task="")),
        x("S2", "summary", "optional-empty", "a feature without a name", in_summary(optional=[""])),
        x("S2", "summary", "task-number", "a task that is a number", in_summary(task=1)),
        x("S2", "summary", "task-null", "a task that is null", in_summary(task=None)),
        x("S2", "summary", "base-text", "a base that is text", in_summary(base=digest)),
        x("S2", "summary", "base-no-digest", "a base without digest",
          in_summary(base={"repo": "a/b", "revision": "c"})),
        x("S2", "summary", "base-digest-short", "a digest of 63 digits",
          lambda p, base: p.summary["base"].update(digest=digest[1:])),
        x("S2", "summary", "base-digest-upper", "a digest in capitals",
          lambda p, base: p.summary["base"].update(digest=p.summary["base"]["digest"].upper())),
        x("S2", "summary", "base-dequantized-dtype", "a base that is dequantized to a dtype that is not coded",
          lambda p, base: p.summary["base"].update(dequantized="F8_E4M3")),
        x("S2", "summary", "base-dequantized-true", "a base that is dequantized to no dtype",
          lambda p, base: p.summary["base"].update(dequantized=True)),
        *claim_cases(),
        x("S3", "feature", "requires", "a feature that nobody knows", in_summary(requires=["chain"])),
        x("D1", "layout", "digests-many", "a row of digests too many",
          arenas(lambda f, a: reshape(f["digests"], [3, 32])), "minimal"),
        x("D1", "layout", "digests-few", "two rows of digests missing",
          arenas(lambda f, a: reshape(f["digests"], [2, 32])), "digest-blocks"),
        x("D2", "checksum", "damaged-id", "a bit of the pack id", damage("digests")),
        x("D2", "checksum", "damaged-row", "a bit of a digest", damage("digests", 32)),
        x("D2", "checksum", "damaged-header", "a letter of the header",
          signed(lambda d: d.replace(b"spec/vectors", b"spec/Vectors"))),
        x("D3", "checksum", "row-signed", "a wrong digest below a right pack id", wrong_row),
        *(x("D3", "checksum", f"damaged-{name}", f"a bit of {name}", damage(name))
          for name in ("base", "index", "rows", "numbers", "codes", "raw")),
        x("D3", "checksum", "damaged-last-block", "a bit of the last digest block",
          damage("raw", 131199), "digest-blocks"),
    ]


def wrong_row(p: Parts, base: Base) -> None:
    def change(data: bytes) -> bytes:
        start = 8 + int.from_bytes(data[:8], "little")
        row = bytes(32)
        return data[:start] + hashlib.sha256(data[:start] + row).digest() + row + data[start + 64 :]

    p.on_signed = change


def index_cases() -> list[Invalid]:
    x, worked = Invalid, "lowrank-worked"
    return [
        x("I1", "zstd", "index-no-size", "a frame that does not state its size",
          index_frame(lambda f: no_content_size(content(f)))),
        x("I1", "zstd", "index-size-more", "a frame that states a byte more",
          index_frame(claim(lambda n: n + 1)), worked),
        x("I1", "zstd", "index-size-less", "a frame that states a byte less",
          index_frame(claim(lambda n: n - 1)), worked),
        x("I1", "zstd", "index-claim", "a frame of some bytes that states 60 MiB",
          index_frame(claim(lambda n: 60 << 20)), worked),
        x("I1", "limit", "index-claim-terabytes", "a frame that states terabytes",
          index_frame(claim(lambda n: 2**42)), worked),
        x("I1", "limit", "index-limit", "an index of 64 MiB and a byte", index_bytes(bytes(2**26 + 1)), worked),
        x("I1", "zstd", "index-bomb", "a frame that holds more than it states", index_frame(bomb), worked),
        x("I1", "zstd", "index-no-frame", "an index that is not compressed", index_frame(content), worked),
        x("I1", "zstd", "index-truncated", "a frame that ends early", index_frame(lambda f: f[:-9]), "minimal"),
        x("I1", "zstd", "index-reserved-block", "a block of a reserved type",
          index_frame(lambda f: f[:9] + bytes([f[9] | 6]) + f[10:]), worked),
        x("I1", "zstd", "index-dictionary", "a frame that needs a dictionary",
          index_frame(lambda f: f[:4] + b"\xa1\x07" + f[5:]), worked),
        x("I1", "zstd", "index-window", "a frame that needs a window of 144 MiB", index_frame(too_wide), worked),
        x("I1", "zstd", "index-skippable", "a skippable frame before the frame",
          index_frame(lambda f: b"\x50\x2a\x4d\x18\0\0\0\0" + f), worked),
        x("I1", "zstd", "index-checksum", "a frame with a wrong checksum",
          index_frame(lambda f: f[:4] + b"\xa4" + f[5:] + b"1234"), worked),
        x("C7", "totals", "index-two-frames", "a second frame", index_frame(lambda f: f + f), "minimal"),
        x("I2", "index", "json-space", "a space", index_text(",", ", "), worked),
        x("I2", "index", "json-newline", "a line feed at the end", index_text("}]}", "}]}\n"), worked),
        x("I2", "index", "json-unsorted", "keys in another order",
          index_text('"name":"t","shape":[2,3]', '"shape":[2,3],"name":"t"'), worked),
        x("I2", "index", "json-duplicate", "a key twice", index_text('"name":"t"', '"name":"t","name":"t"'), worked),
        x("I2", "index", "json-escape", "a letter as an escape", index_text('"t"', '"\\u0074"'), worked),
        x("I2", "index", "json-escape-slash", "a slash as an escape", index_text('"t"', '"a\\/b"'), worked),
        x("I2", "index", "json-escape-capitals", "an escape with capitals",
          index_text('"\\u0001"', '"\\u001F"'), "names"),
        x("I2", "index", "json-escape-long", "a long escape for a short one", index_text("\\b", "\\u0008"), "names"),
        x("I2", "index", "json-control", "a control character that is not escaped",
          index_text('"\\u0001"', '"\x01"'), "names"),
        x("I2", "index", "json-utf16-order", "keys in the order of UTF-8, not of UTF-16",
          index_text('"\U0001f600":"\\u0000\u2028","\uffee":"after \U0001f600 in UTF-16"',
                     '"\uffee":"after \U0001f600 in UTF-16","\U0001f600":"\\u0000\u2028"'), "names"),
        x("I2", "index", "json-fraction", "a fraction", index_text("[2,3]", "[2.0,3]"), worked),
        x("I2", "index", "json-exponent", "an exponent", index_text("[2,3]", "[2e0,3]"), worked),
        x("I2", "index", "json-minus-zero", "minus zero", index_text("[2,3]", "[-0,3]"), worked),
        x("I2", "index", "json-leading-zero", "a leading zero", index_text("[2,3]", "[02,3]"), worked),
        x("I2", "index", "json-large-integer", "an integer of 2^53", index_text("[2,3]", f"[0,{2**53}]"), worked),
        x("I2", "index", "json-huge-integer", "an integer of 5,000 digits",
          index_text("[2,3]", f"[0,{'9' * 5000}]"), worked),
        x("I2", "index", "json-nan", "NaN", index_text("[2,3]", "[NaN,3]"), worked),
        x("I2", "index", "json-false", "false", index_text('"kind":', '"base":false,"kind":'), worked),
        x("I2", "index", "json-utf8", "bytes that are not UTF-8", index_text('"t"', b'"\xc0\x80"'), worked),
        x("I2", "index", "json-surrogate", "half a surrogate pair as an escape",
          index_text('"t"', '"\\udc00"'), worked),
        x("I2", "index", "json-surrogate-bytes", "half a surrogate pair in UTF-8",
          index_text('"t"', b'"\xed\xa0\x80"'), worked),
        x("I2", "index", "json-bom", "a byte order mark", index_text('{"tensors"', '\ufeff{"tensors"'), worked),
        x("I2", "index", "json-nesting", "nested 9 deep", index_text("[2,3]", "[[[[[[]]]]]]"), worked),
        x("I2", "index", "json-nesting-million", "nested a million deep", index_bytes(b"[" * 10**6), worked),
        x("I2", "index", "json-empty", "an index of no bytes", index_bytes(b""), worked),
        x("I2", "index", "json-cut", "JSON that ends early", index_bytes(b'{"tensors":['), worked),
        x("I5", "index", "json-array", "an array", index_bytes(b"[]"), worked),
        x("I5", "index", "tensors-missing", "no tensors", index_bytes(b"{}"), "minimal"),
        x("I5", "index", "tensors-object", "tensors that are an object", index_bytes(b'{"tensors":{}}'), "minimal"),
        x("I5", "index", "tensor-null", "a tensor that is null", index_bytes(b'{"tensors":[null]}'), "minimal"),
        x("I5", "index", "tensor-text", "a tensor that is text", index_bytes(b'{"tensors":["t"]}'), "minimal"),
        x("I5", "index", "name-missing", "a tensor without name", without("t", "name"), worked),
        x("I5", "index", "blocks-missing", "a tensor without blocks", without("t", "blocks"), worked),
        x("I5", "index", "absent-text", "absent is text", in_index(absent="a")),
        x("I5", "index", "stem-number", "a stem that is a number", in_index(stem=1)),
        x("I5 I2", "index", "stem-default", "the default stem is written", in_index(stem="model")),
        x("I5", "index", "folders-text", "folders that are text", in_index(folders="2_Dense"), "folders"),
        x("I5", "index", "folders-number", "a number in folders", in_index(folders=[1]), "folders"),
        x("I5 I2", "index", "folders-default", "folders is written although empty", in_index(folders=[])),
        x("I4", "index", "folders-unsorted", "folders that do not ascend",
          lambda p, base: p.index["folders"].reverse(), "folders"),
        x("I4", "index", "folders-twice", "a folder twice", in_index(folders=["2_Dense", "2_Dense"]), "folders"),
        x("I4", "index", "folders-empty-name", "an empty folder", in_index(folders=["", "2_Dense"]), "folders"),
        x("I5", "index", "absent-number", "a number in absent", in_index(absent=[1])),
        x("I5", "index", "metadata-array", "metadata that is an array", in_index(metadata=["a"])),
        x("I5", "index", "prefix-numbers", "a prefix of numbers", in_index(prefix=[1, 2])),
        x("I5", "index", "files-object", "files that are an object", in_index(files={"config.json": 18})),
        x("I5", "index", "file-text", "a file that is text", lambda p, base: p.index["files"].insert(0, "a.json")),
        x("I5", "index", "file-no-name", "a file without name", lambda p, base: p.index["files"][0].pop("name")),
        x("I5", "index", "file-size-text", "a size of a file that is text", in_file(0, size="18")),
        x("I5", "index", "file-stored-negative", "a file stored in -1 bytes", in_file(0, stored=-1)),
        x("I3", "unknown", "key-index", "an unknown key of the index", in_index(chain=1)),
        x("I3", "unknown", "key-tensor", "an unknown key of a tensor", in_tensor("a", order=1)),
        x("I3", "unknown", "key-block", "an unknown key of a block", in_block("a", color=1)),
        x("I3", "unknown", "key-file", "an unknown key of a file", in_file(0, mode=1)),
        x("I3", "unknown", "key-other-kind", "a key of another kind", in_block("h", to="c")),
        x("I3", "unknown", "kind-unknown", "an unknown kind", in_block("h", kind="sparse")),
        x("I4", "index", "names-unsorted", "names that do not ascend", lambda p, base: p.index["tensors"].reverse()),
        x("I4", "index", "names-twice", "a name twice", in_tensor("h", name="g")),
        x("I4", "index", "name-empty", "an empty name", in_tensor("t", name=""), worked),
        x("I4", "index", "name-long", "a name of 1,025 bytes", in_tensor("t", name="\u00e9" * 512 + "a"), worked),
        x("I4", "index", "name-metadata", "a tensor named __metadata__", in_tensor("t", name="__metadata__"), worked),
        x("I5", "index", "name-number", "a name that is a number", in_tensor("t", name=1), worked),
        x("I4", "index", "name-base-long", "a base name of 1,025 bytes", in_block("h", base="x" * 1025)),
        x("I4", "index", "prefix-name-empty", "a prefix that leaves a base name empty",
          in_index(prefix=["t", ""]), worked),
        x("I4", "index", "prefix-name-long", "a prefix that makes a base name of 1,025 bytes",
          in_index(prefix=["", "x" * 1024]), worked),
        x("I4", "index", "prefix-name-metadata", "a prefix that makes a base name __metadata__",
          in_index(prefix=["t", "__metadata__"]), worked),
        x("I4", "index", "absent-name", "an empty name in absent", in_index(absent=["", "a"])),
        x("I4", "index", "absent-unsorted", "absent does not ascend", in_index(absent=["b", "a"])),
        x("I4", "index", "absent-twice", "a name twice in absent", in_index(absent=["a", "a"])),
        x("I4", "index", "files-unsorted", "files that do not ascend", lambda p, base: p.index["files"].reverse()),
        x("I4", "index", "files-twice", "a file twice", in_file(1, name="config.json")),
        x("I5 I2", "index", "absent-default", "absent is written although empty", in_index(absent=[])),
        x("I5 I2", "index", "files-default", "files is written although empty", in_index(files=[])),
        x("I5 I2", "index", "metadata-default", "metadata is written although empty", in_index(metadata={})),
        x("I5", "index", "metadata-number", "metadata that is a number", in_index(metadata={"a": 1})),
        x("I5", "index", "prefix-equal", "a prefix of equal strings", in_index(prefix=["a", "a"])),
        x("I5", "index", "prefix-one", "a prefix of one string", in_index(prefix=["a"])),
        x("I5", "index", "file-no-size", "a file without size", lambda p, base: p.index["files"][0].pop("size")),
        x("I5", "index", "file-digest-short", "a file's digest of 63 digits", in_file(2, digest="0" * 63)),
        x("I5", "index", "file-changed-no-stored", "a changed file that does not say how long it is stored",
          lambda p, base: p.index["files"][1].pop("stored"), "file-changed"),
        x("I5", "index", "file-changed-no-size", "a changed file without size",
          lambda p, base: p.index["files"][1].pop("size"), "file-changed"),
        x("I5", "index", "file-changed-digest", "a changed file's digest in capitals",
          in_file(1, digest="ABCDEF01" * 8), "file-changed"),
    ]


def tensor_cases() -> list[Invalid]:
    x = Invalid
    return [
        x("T1", "index", "dtype-unknown", "an unknown dtype", in_tensor("g", dtype="I128")),
        x("T1", "index", "dtype-case", "a dtype in small letters", in_tensor("g", dtype="i64")),
        x("T1", "index", "dtype-missing", "no dtype", without("g", "dtype")),
        x("T1", "index", "shape-missing", "no shape", without("g", "shape")),
        x("T1", "index", "shape-negative", "a negative dimension", in_tensor("g", shape=[-3])),
        x("T1", "index", "shape-9", "9 dimensions", in_tensor("g", shape=[3] + [1] * 8)),
        x("T1", "index", "shape-text", "a shape that is text", in_tensor("g", shape="3")),
        x("T1", "index", "shape-true", "a dimension that is true", in_tensor("g", shape=[3, True])),
        x("T1", "index", "split-0", "split 0", in_tensor("a", split=0)),
        x("T1", "index", "split-default", "split 1, which is left out", in_tensor("a", split=1)),
        x("T1", "index", "split-many", "a split of more dimensions than there are", in_tensor("a", split=3)),
        x("T1", "index", "split-scalar", "a split of no dimensions", in_tensor("g", shape=[], split=1)),
        x("I5", "index", "blocks-none", "no blocks", in_tensor("g", blocks=[])),
        x("I5", "index", "blocks-object", "blocks that are an object", in_tensor("g", blocks={})),
        x("T2", "index", "f4-odd", "an F4 tensor of 3 elements",
          only("F4", [3], {"base": None, "kind": "same"}), "minimal"),
        x("T2", "index", "f6-odd", "an F6 tensor of 2 elements",
          only("F6_E3M2", [2], {"base": None, "kind": "same"}), "minimal"),
        x("T2", "index", "f4-block", "a block that ends within a byte",
          lambda p, base: [b.update(height=h) for b, h in zip(tensor(p, "f4")["blocks"], (1, 3, 2), strict=True)],
          "blocks-small-dtypes"),
        x("T2", "index", "f4-base", "base rows that begin within a byte",
          in_block("f4", base=["f4", 3]), "blocks-small-dtypes"),
        x("T3", "limit", "elements", "2^49 elements",
          only("U8", [2**25, 2**24], {"base": None, "kind": "same"}), "minimal"),
        x("T3", "limit", "elements-zero", "2^49 elements, but for a dimension of 0",
          only("U8", [2**25, 0, 2**24], {"base": None, "kind": "same"}), "minimal"),
        x("T3", "limit", "components", "65,536 components", in_block("a", bands=[[65535, 2], [1, 2]])),
        x("B1", "index", "heights-few", "heights of fewer rows than there are", in_block("b", 1, height=5)),
        x("B1", "index", "heights-many", "heights of more rows than there are", in_block("b", 0, height=5)),
        x("B1", "index", "heights-empty", "blocks of a tensor without rows",
          lambda p, base: tensor(p, "b").update(shape=[0, 12])),
        x("B2", "index", "coded-integers", "values of an integer tensor",
          only("I32", [4], {"base": None, "bits": 2, "kind": "values"}), "minimal"),
        x("B2", "index", "coded-fp8", "lowrank of an F8_E4M3 tensor",
          only("F8_E4M3", [4, 4], {"bands": [[1, 2]], "base": None, "kind": "lowrank"}), "minimal"),
        x("B2", "index", "coded-empty", "values of a tensor without elements",
          only("F32", [4, 0], {"base": None, "bits": 2, "kind": "values"}), "minimal"),
        x("B2", "index", "empty-two-blocks", "two blocks of a tensor without elements",
          only("F32", [4, 0], {"base": None, "height": 2, "kind": "same"}, {"base": None, "height": 2, "kind": "same"}),
          "minimal"),
        x("B3", "index", "kind-missing", "a block without kind", without("h", "block", "kind")),
        x("B3", "index", "height-alone", "the height of an only block", in_block("a", height=10)),
        x("B3", "index", "height-missing", "no height of one of two blocks", without("b", "block", "height")),
        x("B3", "index", "height-0", "a height of 0",
          lambda p, base: tensor(p, "b")["blocks"].insert(0, {"height": 0, "kind": "same"})),
        x("B3", "index", "rows-all", "rows that are all rows", in_block("a", rows=10)),
        x("B3", "index", "rows-0", "no rows", in_block("a", rows=0)),
        x("B3", "index", "cols-all", "cols that are all columns", in_block("a", cols=12)),
        x("B3", "index", "cols-many", "cols that are more than all", in_block("a", cols=13)),
        x("B3", "index", "bits-3", "values of 3 bits", in_block("d", bits=3)),
        x("B3", "index", "bits-missing", "values without bits", without("d", "block", "bits")),
        x("B3", "index", "per-2-bits", "per of values of 2 bits", in_block("d", per="row")),
        x("B3", "index", "per-column", "per column", in_block("b", 1, per="column")),
        x("B3", "index", "levels-other", "levels of another sort", in_block("a", levels="band")),
        x("B3", "index", "rounding-other", "rounding of another sort", in_block("a", rounding="up")),
        x("B3", "index", "rounding-F32", "dithered rounding to F32",
          lambda p, base: (tensor(p, "c").update(dtype="F32"), in_block("c", rounding="dithered")(p, base))),
        x("B3", "index", "bands-missing", "lowrank without bands", without("a", "block", "bands")),
        x("B3", "index", "bands-none", "an empty list of bands", in_block("a", bands=[])),
        x("B3", "index", "bands-17", "17 bands", in_block("a", bands=[[1, 2]] * 17)),
        x("B3", "index", "band-of-three", "a band of three numbers", in_block("a", bands=[[2, 4, 1], [3, 2]])),
        x("B3", "index", "band-0", "a band of no components", in_block("a", bands=[[0, 4], [3, 2]])),
        x("B3", "index", "band-1-bit", "a band of 1 bit", in_block("a", bands=[[2, 4], [3, 1]])),
        x("B3", "index", "base-number", "a base that is a number", in_block("h", base=1)),
        x("B3", "index", "base-three", "a base of three parts", in_block("h", base=["m.c", 0, 0])),
        x("B3", "index", "base-first-negative", "a first row below 0", in_block("h", base=["m.c", -1])),
        x("B3", "index", "base-default", "a base that is the default", in_block("a", base="m.a")),
        x("B3", "index", "base-first-default", "a first row that is the default", in_block("h", base=["m.c", 0])),
        x("B3", "index", "to-missing", "a tie to nothing", without("f", "block", "to")),
        x("B3", "index", "to-number", "a tie to a number", in_block("f", to=5)),
        x("B4", "index", "tie-unknown", "a tie to a tensor that is not there", in_block("f", to="zz")),
        x("B4", "index", "tie-itself", "a tie to itself", in_block("f", to="f")),
        x("B4", "index", "tie-tie", "a tie to a tie",
          both(in_tensor("d.tie", blocks=[{"kind": "tie", "to": "a.tie"}], dtype="F32", shape=[3, 4]),
               without("d.tie", "split")), "tie"),
        x("B4", "index", "tie-shape", "a tie to a tensor of another shape", in_tensor("f", shape=[70, 2])),
        x("B4", "index", "tie-dtype", "a tie to a tensor of another dtype", in_tensor("f", dtype="F16")),
        x("B4", "index", "tie-block", "a tie as one of two blocks",
          lambda p, base: tensor(p, "b")["blocks"].insert(0, {"kind": "tie", "to": "a"})),
    ]


def base_cases() -> list[Invalid]:
    x = Invalid
    zeros = [0.0] * 256
    return [
        x("R1", "base-tensor", "base-missing", "the base lacks a tensor", new_base("m.b", None)),
        x("R1", "base-tensor", "base-none", "there is no base", lambda p, base: base.clear()),
        x("R1", "base-tensor", "base-rows", "the base has fewer rows",
          new_base("m.a", floats("BF16", (9, 12), zeros[:108]))),
        x("R1", "base-tensor", "base-columns", "the base has more columns",
          new_base("m.a", floats("BF16", (10, 13), zeros[:130]))),
        x("R1", "base-tensor", "base-transposed", "the base is transposed",
          new_base("m.a", floats("BF16", (12, 10), zeros[:120]))),
        x("R1", "base-tensor", "base-first", "a first row too far down",
          in_block("k", base=["qkv", 9]), "blocks-split-base"),
        x("R1", "base-tensor", "base-split", "columns that are no product of the base's last dimensions",
          new_base("experts", floats("F32", (60,), zeros[:60])), "blocks-experts"),
        x("R1", "base-tensor", "base-expert-rows", "the base has fewer experts",
          new_base("gate_up", floats("BF16", (1, 8, 5), zeros[:40])), "blocks-split-experts"),
        x("R1", "base-tensor", "base-expert-transposed", "experts of the base are transposed",
          new_base("gate_up", floats("BF16", (2, 5, 8), zeros[:80])), "blocks-split-experts"),
        x("R2", "base-tensor", "base-integers", "a coded block on a base of integers",
          new_base("m.a", T("I16", (10, 12), bytes(240)))),
        x("R2", "base-tensor", "base-same-integers", "same of F32 on a base of I32",
          new_base("t.F32", T("I32", (2, 4), bytes(32))), "same-dtypes"),
        x("R2", "base-tensor", "base-same-fp8", "same of U8 on a base of I8",
          new_base("t.U8", T("I8", (2, 4), bytes(8))), "same-dtypes"),
        x("R2", "base-tensor", "base-not-dequantized", "a base of FP8 without scales, though the pack says dequantized",
          both(new_base("m.a", T("F8_E4M3", (10, 12), bytes(120))),
               lambda p, base: p.summary["base"].update(dequantized="BF16"))),
        x("H1", "totals", "base-summary-missing", "no base in the summary", without("summary", "base")),
        x("H1", "totals", "base-arena-missing", "no arena base", lambda p, base: p.leaves.clear()),
        x("H1", "totals", "base-row-many", "a leaf too many", lambda p, base: p.leaves.update({"zz": bytes(32)})),
        x("H1", "totals", "base-row-few", "a leaf missing", lambda p, base: p.leaves.popitem()),
        x("H1", "totals", "base-unused", "a base that no block uses",
          both(in_summary(base={"digest": "0" * 64}), lambda p, base: p.leaves.update(t=bytes(32))), "same-null"),
        x("H2", "base-leaf", "base-bytes", "the base has other bytes",
          other_base("m.c", floats("BF16", (10, 12), zeros[:120]))),
        x("H2", "base-leaf", "base-shape", "the base has another shape of as many rows and columns",
          lambda p, base: base.update({"m.c": base["m.c"]._replace(shape=(10, 6, 2))})),
        x("H2", "base-leaf", "base-dtype", "the base has another dtype",
          lambda p, base: base.update({"m.c": base["m.c"]._replace(dtype="F16")})),
        x("H2", "base-leaf", "leaf-order", "leaves in another order",
          lambda p, base: p.leaves.update({"m.a": p.leaves["m.b"], "m.b": p.leaves["m.a"]})),
        x("H3", "base-digest", "base-digest", "all leaves are right, the digest is not",
          lambda p, base: p.summary["base"].update(digest="0" * 64)),
        x("H3", "base-digest", "base-digest-names", "the digest of equal tensors under other names",
          new_digest(lambda leaves: {"x" + n: d for n, d in leaves.items()})),
        x("H3", "base-digest", "base-collision", "a leaf that differs after its fourth byte",
          new_digest(lambda leaves: {n: d[:4] + bytes(28) for n, d in leaves.items()})),
        x("L2", "limit", "terabytes", "zeros of terabytes",
          only("F32", [2**20, 2**20], {"base": None, "kind": "same"}), "minimal"),
        x("L2", "limit", "terabytes-coded", "terabytes of which one element is coded", one_of_terabytes, "minimal"),
    ]


def one_of_terabytes(p: Parts, base: Base) -> None:
    only("F32", [2**20, 2**20], {"base": None, "bits": 2, "cols": 1, "kind": "values", "rows": 1})(p, base)
    p.bitmaps, p.numbers, p.codes = b"as below", bytes(16), bytes(16)
    one_bit = frame_block(b"\1", False) + frame_block(bytes(2**17 - 1), False)
    end = frame_block(b"", True)
    p.on_rows = lambda frame: frame_header(2**18) + one_bit + one_bit + end


def file_cases() -> list[Invalid]:
    x = Invalid
    names = {
        "parent": "../config.json", "inner-parent": "a/../config.json", "absolute": "/config.json",
        "dot": "./config.json",
        "hidden": ".config.json", "hidden-folder": "a/.b/config.json", "double-slash": "a//config.json",
        "backslash": "a\\config.json", "drive": "c:config.json", "control": "a\nb.json", "zero": "a\0.json",
        "code": "model.py", "pickle": "model.bin", "no-suffix": "config", "weights": "model.safetensors.index.json",
        "only-suffix": ".json", "capitals": "CONFIG.JSON", "slash-end": "config.json/",
        "variant-index": "model.safetensors.index.fp16.json", "any-index": "a/vocab.index.json",
    }  # fmt: skip
    return [
        *(x("F1", "file", f"file-{name}", f"a file named {text!r}", both(file_alone, file_named(text)))
          for name, text in names.items()),
        x("F1", "file", "file-named-code", "a file of the base that is code",
          lambda p, base: p.index.update(files=[{"digest": "0" * 64, "name": "model.py"}])),
        x("F1", "file", "file-folder", "a file in a folder that is a file", in_file(1, name="config.json/merges.txt")),
        x("F1", "file", "file-folder-apart", "the same, with a file between them",
          both(in_file(1, name="config.json.txt"), in_file(2, name="config.json/a/tokenizer.json"))),
        x("T3", "limit", "file-name-long", "a file's name of 1,025 bytes",
          both(file_alone, file_named("x" * 1020 + ".json"))),
        x("T3", "limit", "files-sum", "files of more than 1 GiB in all", in_file(0, size=2**30)),
        x("F2", "file", "file-stored", "a file stored in more bytes than it has", in_file(0, stored=20, size=18)),
        x("F2", "file", "file-gigabytes", "a file of more than 1 GiB", in_file(1, size=2**30 + 1)),
        x("F2", "file", "file-size", "a frame of fewer bytes than the file's size", in_file(1, size=101)),
        x("F2", "zstd", "file-frame", "a file that is neither plain nor a frame", in_file(0, size=20)),
        x("F2", "file", "file-size-terabytes", "a frame that states terabytes",
          file_frame(100, claim(lambda n: 2**42))),
        x("F2", "zstd", "file-claim", "a file of some bytes that claims 128 MiB",
          file_frame(2**27, claim(lambda n: 2**27))),
        x("F2", "zstd", "file-window", "a frame that needs a window of 144 MiB", file_frame(100, too_wide)),
        x("F2", "zstd", "file-window-claim", "a frame in one segment of 512 MiB, which needs a window as large",
          file_frame(2**29, claim(lambda n: 2**29))),
        x("F2", "zstd", "file-garbage", "bytes after a file's frame",
          both(in_file(1, stored=len(plain_frame(b"x" * 100)) + 1), lambda p, base: setattr(p, "raw", p.raw + b"\0"))),
        *changed_file_cases(),
    ]


def changed_file_cases() -> list[Invalid]:
    def x(rules: str, reason: str, name: str, what: str, edit: Edit, **differing: bytes | None) -> Invalid:
        return Invalid(rules, reason, name, what, edit, "file-changed", differing=differing)

    content, prefix = b"x" * 100, bytes(range(64))
    frame, far = plain_frame(content), pinned_frame(prefix + b"x", prefix=prefix)
    nothing = in_index()
    return [
        x("F2", "file", "file-changed-size", "a changed file's frame of fewer bytes than its size",
          last_file(frame, 101)),
        x("F2", "file", "file-changed-limit", "a changed file of 64 MiB and a byte", last_file(frame, 2**26 + 1)),
        x("F2", "file", "file-changed-stored", "a changed file stored in more bytes than it has", last_file(frame, 12)),
        x("F2", "zstd", "file-changed-plain", "a changed file that is stored plain", last_file(content, 100)),
        x("F2", "zstd", "file-changed-empty", "a changed file that is stored in no bytes", last_file(b"", 100)),
        x("F2", "zstd", "file-changed-garbage", "bytes after a changed file's frame", last_file(frame + b"\0", 100)),
        x("F2", "zstd", "file-changed-claim", "a changed file of some bytes that claims 64 MiB",
          last_file(claim(lambda n: 2**26)(frame), 2**26)),
        x("F2", "zstd", "file-changed-window", "a changed file's frame that needs a window of 144 MiB",
          last_file(too_wide(frame), 100)),
        x("F2", "zstd", "file-changed-dictionary", "a changed file's frame that names a dictionary",
          last_file(frame[:4] + b"\xa1" + b"\7" + frame[5:], 100)),
        x("F2", "zstd", "file-changed-far", "a changed file that reaches back beyond its prefix",
          last_file(far, 65, prefix[32:]), vocab=prefix[32:]),
        x("F4", "base-file", "file-changed-other", "a prefix of other content", nothing, vocab=b"other content"),
        x("F4", "base-file", "file-changed-missing", "a prefix that the base lacks", nothing, vocab=None),
        x("F4", "base-file", "file-changed-short", "a prefix of 7 bytes",
          last_file(frame, 100, b"7 bytes"), vocab=b"7 bytes"),
        x("F4", "base-file", "file-named-other", "a named file of other content", nothing, tokenizer=b"other content"),
        x("F4", "base-file", "file-named-missing", "a named file that the base lacks", nothing, tokenizer=None),
    ]  # fmt: skip


def last_file(stored: bytes, size: int, prefix: bytes | None = None) -> Edit:
    """The last file, `vocab.txt`, with other stored bytes, another size and perhaps another prefix."""

    def edit(p: Parts, base: Base) -> None:
        f = p.index["files"][-1]
        p.raw = p.raw[: len(p.raw) - f["stored"]] + stored
        f.update(size=size, stored=len(stored))
        f["digest"] = f["digest"] if prefix is None else hashlib.sha256(prefix).hexdigest()

    return edit


def weight_file_cases() -> list[Invalid]:
    x = Invalid
    stems = {
        "empty": "", "parent": "..", "hidden": ".model", "folder": "unet/model", "backslash": "a\\model",
        "drive": "c:model", "control": "a\nb", "long": "x" * 1025,
    }  # fmt: skip
    folders = {
        "parent": "../2_Dense", "inner-parent": "1/../2_Dense", "absolute": "/2_Dense", "dot": "./2_Dense",
        "hidden": ".2_Dense", "double-slash": "a//2_Dense", "backslash": "a\\2_Dense", "drive": "c:2_Dense",
        "control": "a\nb", "slash-end": "2_Dense/", "like-weights": "model.safetensors",
        "like-shard": "model-00001-of-00002.safetensors/a", "like-file": "config.json", "like-folder-file": "a.json/b",
    }  # fmt: skip
    return [
        *(x("F3", "file", f"stem-{name}", f"the stem {text[:20]!r}", in_index(stem=text))
          for name, text in stems.items()),
        *(x("F3", "file", f"folder-{name}", f"the folder {text!r}", folder_named(text), "minimal")
          for name, text in folders.items()),
        x("F3", "file", "folder-without-tensors", "a folder without tensors", in_index(folders=["2_Dense"])),
        x("F3", "file", "folder-no-tensor-left", "a folder whose tensors all belong to a longer one",
          folder_named("2_Dense", extra=["2_Dense/inner"], name="2_Dense/inner/w"), "minimal"),
        x("F3", "file", "folder-tensor-empty", "a tensor without a name in its folder",
          folder_named("2_Dense", name="2_Dense/"), "minimal"),
        x("F3", "file", "folder-tensor-metadata", "a tensor that is __metadata__ in its folder",
          folder_named("2_Dense", name="2_Dense/__metadata__"), "minimal"),
    ]


def folder_named(folder: str, extra: list[str] | None = None, name: str | None = None) -> Edit:
    """A pack of one tensor, which is in a folder."""

    def edit(p: Parts, base: Base) -> None:
        only("F32", [3], {"kind": "same", "base": None})(p, base)
        p.index["tensors"][0]["name"] = name or f"{folder}/w"
        p.index["folders"] = [folder, *(extra or [])]

    return edit


def file_frame(size: int, change: Callable[[bytes], bytes]) -> Edit:
    """The second file, of 100 bytes in a frame, with another frame and another size in the index."""

    def edit(p: Parts, base: Base) -> None:
        old = plain_frame(b"x" * 100)
        new = change(old)
        p.raw = p.raw[: -len(old)] + new
        p.index["files"][1].update(size=size, stored=len(new))

    return edit


def file_alone(p: Parts, base: Base) -> None:
    """Keeps only the first file, so that its name can be anything."""
    p.raw = p.raw[: len(p.raw) - p.index["files"][1]["stored"]]
    del p.index["files"][1:]


def stream_cases() -> list[Invalid]:
    x = Invalid
    return [
        x("W1", "rows", "bitmap-few", "a bit fewer than rows", stream("bitmaps", 0, 0b00001100)),
        x("W1", "rows", "bitmap-many", "a bit more than rows", stream("bitmaps", 0, 0b00011101)),
        x("W1", "rows", "bitmap-cols", "a bit more than cols", stream("bitmaps", 2, 0b01100010)),
        x("W1", "rows", "bitmap-padding", "a bit in the padding of a bitmap",
          both(stream("bitmaps", 0, 0b00001100), stream("bitmaps", 1, 0b10000010))),
        x("W2", "totals", "bitmaps-long", "a byte more than the bitmaps",
          lambda p, base: setattr(p, "bitmaps", p.bitmaps + b"\0")),
        x("W2", "totals", "bitmaps-short", "a byte less than the bitmaps",
          lambda p, base: setattr(p, "bitmaps", p.bitmaps[:-1])),
        x("W2", "totals", "bitmaps-missing", "no bitmaps at all", lambda p, base: setattr(p, "bitmaps", b"")),
        x("W2", "totals", "bitmaps-uncalled", "bitmaps that no block has",
          lambda p, base: setattr(p, "bitmaps", b"\1"), "lowrank-worked"),
        x("W2", "zstd", "bitmaps-no-size", "a frame that does not state its size",
          rows_frame(lambda f: no_content_size(content(f)))),
        x("W2", "zstd", "bitmaps-bomb", "a frame that holds more than it states", rows_frame(bomb)),
        x("W2", "limit", "bitmaps-claim", "a frame that states terabytes", rows_frame(claim(lambda n: 2**42))),
        x("W2", "limit", "bitmaps-limit", "a frame that states 128 MiB and a byte",
          rows_frame(claim(lambda n: 2**27 + 1))),
        x("W2", "zstd", "bitmaps-window", "a frame that needs a window of 144 MiB", rows_frame(too_wide)),
        x("W2", "totals", "bitmaps-empty-frame", "a frame of no bitmaps where no block has one",
          arenas(lambda f, a: a.append(Arena("rows", "U8", [12], plain_frame(b"")))), "minimal"),
        x("N1", "numbers", "scale-nan", "a scale that is not a number", number(1, float("nan"))),
        x("N1", "numbers", "scale-infinite", "an infinite scale of values", number(14, float("inf"))),
        x("N1", "numbers", "norm-infinite", "an infinite norm", number(0, float("inf"))),
        x("N1", "numbers", "level-infinite", "an infinite level", number(22, float("inf"))),
        x("N1", "numbers", "bf16-infinite", "an infinite scale in BF16",
          lambda p, base: setattr(p, "numbers", p.numbers[:2] + b"\x80\x7f" + p.numbers[4:]), "numbers-bf16"),
        x("N2", "numbers", "norm-negative", "a norm below zero", number(0, -1.0)),
        x("N2", "numbers", "levels-u", "levels of u that do not ascend", number(3, 9.0)),
        x("N2", "numbers", "levels-v", "levels of v that do not ascend", number(10, -9.0)),
        x("N2", "numbers", "levels-values", "levels of values that do not ascend", number(20, 9.0)),
        x("N2", "numbers", "levels-vector", "levels of one vector that do not ascend",
          lambda p, base: setattr(p, "numbers", p.numbers[:16] + b"\x10\x41" + p.numbers[18:]), "lowrank-vector"),
        x("E1", "padding", "vector-padding-u", "padding of a vector of u", stream("codes", 15, 1)),
        x("E1", "padding", "vector-padding-v", "padding of a vector of v", stream("codes", 31, 128)),
        x("E1", "padding", "vector-padding-bits", "padding within a byte", stream("codes", 161, 4)),
        x("E1", "padding", "vector-padding-values", "padding of a vector of values", stream("codes", 64 + 24, 1)),
        x("E1", "padding", "vector-padding-16", "padding of a vector of 16 bits", stream("codes", 96 + 20, 1)),
        x("E2", "numbers", "code-infinite", "a 16-bit code that is infinite",
          both(stream("codes", 96, 0), stream("codes", 97, 0x7C))),
        x("E2", "numbers", "code-nan", "a 16-bit code that is no number", stream("codes", 97, 0xFF)),
        x("P1", "index", "planes-few", "a plane missing", in_block("e", planes=[140])),
        x("P1", "index", "planes-terabytes", "one plane for terabytes",
          only("F64", [2**24, 2**24], {"kind": "raw", "planes": [1]}), "minimal"),
        x("P1", "index", "planes-none", "no planes", in_block("e", planes=[])),
        x("P1", "index", "planes-text", "planes that are text", in_block("e", planes="140")),
        x("P1", "index", "plane-long", "a plane of more than its bytes", last_plane(lambda f: bytes(141))),
        x("P1", "index", "plane-negative", "a plane of -1 bytes", in_block("e", planes=[140, -1])),
        x("P2", "zstd", "plane-size", "a frame of fewer bytes than the plane",
          last_plane(lambda f: plain_frame(bytes(139)))),
        x("P2", "zstd", "plane-no-size", "a frame that does not state its size",
          last_plane(lambda f: no_content_size(bytes(140)))),
        x("P2", "zstd", "plane-claim", "a frame that states terabytes", last_plane(claim(lambda n: 2**42))),
        x("P2", "zstd", "plane-window", "a frame that needs a window of 144 MiB", last_plane(too_wide)),
        x("P2", "zstd", "plane-garbage", "bytes after a plane's frame", last_plane(lambda f: f + b"\0")),
        x("P2", "zstd", "plane-bomb", "a plane's frame that holds more than it states",
          last_plane(lambda f: frame_header(140) + frame_block(bytes(2**17), False) + frame_block(bytes(2**17), True))),
        x("P2", "zstd", "plane-empty", "a plane of no bytes", last_plane(lambda f: b"")),
        x("P2", "zstd", "plane-no-frame", "a plane that is not a frame", last_plane(lambda f: bytes(30))),
    ]


def invalid_cases(sources: dict[str, Valid]) -> list[Invalid]:
    cases = container_cases() + summary_cases() + index_cases() + tensor_cases()
    cases += base_cases() + file_cases() + weight_file_cases() + stream_cases()
    for case in cases:
        case.build(sources)
    return cases

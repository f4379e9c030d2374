"""The packs that every decoder must accept."""

import hashlib
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from builder import (
    PRECISION,
    WIDTH,
    Block,
    Maker,
    Parts,
    T,
    dithered,
    floats,
    lowrank,
    noise,
    pinned_frame,
    plain_frame,
    raw,
    same,
    some_lowrank,
    some_values,
    tie,
    values,
    windowed,
)


@dataclass
class Valid:
    name: str
    rules: str
    what: str
    maker: Maker
    edit: Callable[[Parts], Any] = lambda parts: None
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self.parts = self.maker.finish()
        self.edit(self.parts)


def rng_of(name: str) -> random.Random:
    return random.Random(f"dtscodec {name}")


def one(
    name: str, dtype: str, shape: tuple[int, ...], *blocks: Block, base: dict[str, T] | None = None, split: int = 1
) -> Maker:
    """A pack of one tensor."""
    maker = Maker(base)
    maker.add(name, dtype, shape, *blocks, split=split)
    return maker


HUB = {"repo": "some-team/some-model", "revision": "0123456789abcdef0123456789abcdef01234567"}
SUMMARY = {"base": HUB, "task": "tests", "encoder": "spec/vectors"}
AWKWARD = [0.0, -0.0, 1.0, -2.5, math.inf, -math.inf, math.nan, 65504.0, 1 / 3, 2.0**-24, 2.0**-25, 3 * 2.0**-26, 1e-40]
AWKWARD += [
    1 + 2.0**-8,
    1 + 3 * 2.0**-8,
    1 + 2.0**-11,
    1 + 3 * 2.0**-11,
    65519.99,
    65520.0,
    70000.0,
    2.0**-133,
    2.0**-134,
]
AWKWARD += [
    1 + 2.0**-24,
    1 + 3 * 2.0**-24,
    1 + 2.0**-8 + 2.0**-40,
    1 + 2.0**-11 + 2.0**-40,
    3.3895e38,
    3.4e38,
    1e300,
    5e-324,
]


# --- same, tie, raw ---


def same_dtypes() -> Maker:
    rng = rng_of("same_dtypes")
    maker = Maker({f"t.{d}": noise(rng, d, 2, 4) for d in WIDTH}, summary=SUMMARY)
    for dtype in WIDTH:
        maker.add(f"t.{dtype}", dtype, (2, 4), same())
    return maker


def same_convert() -> Maker:
    maker = Maker({x: floats(x, (len(AWKWARD),), AWKWARD) for x in PRECISION})
    for x in PRECISION:
        for y in PRECISION:
            if x != y:
                maker.add(f"{x}.{y}", y, (len(AWKWARD),), same(base=x))
    return maker


def same_null() -> Maker:
    maker = Maker()
    for dtype in ("BF16", "F4", "F64", "I8"):
        maker.add(dtype, dtype, (3, 2), same(base=None))
    return maker


def ties() -> Maker:
    rng = rng_of("ties")
    maker = Maker({"b": noise(rng, "F32", 3, 4)})
    maker.add("a.tie", "F32", (3, 4), tie("b"))
    maker.add("b", "F32", (3, 4), some_lowrank(rng, [(1, 4)], 3, 4))
    maker.add("c", "I8", (2, 3, 2), raw(noise(rng, "I8", 2, 3, 2).data))
    maker.add("d.tie", "I8", (2, 3, 2), tie("c"), split=2)
    return maker


def raw_dtypes(planes: bool) -> Maker:
    rng = rng_of("raw_dtypes")
    maker = Maker()
    if planes:
        data = maker.frame(b"planes that look like a frame")
        maker.add("frame", "U8", (len(data),), raw(data, planes=True))
    for dtype in WIDTH:
        data = noise(rng, dtype, 5, 8).data
        k = max(1, WIDTH[dtype] // 8)
        if planes:  # the highest plane is constant, and thus a frame that is shorter
            data = b"".join(data[i : i + k - 1] + b"\x3f" for i in range(0, len(data), k))
        maker.add(f"t.{dtype}", dtype, (5, 8), raw(data, planes=planes))
    return maker


def raw_chunks() -> Maker:
    n = 2**19 + 12  # a chunk of 1 MiB and one of 24 bytes
    data = b"\x80\x3f" * 2**19 + bytes(range(24))
    return one("t", "BF16", (n,), raw(data, planes=True))


def digest_blocks() -> Maker:
    rng = rng_of("digest_blocks")
    base = {"a": noise(rng, "F32", 4, 4)}
    maker = Maker(base)
    maker.add("a", "F32", (4, 4), some_lowrank(rng, [(2, 2)], 4, 4))
    maker.add("b", "U8", (131200,), raw(bytes(i * i >> 3 & 255 for i in range(131200))))
    return maker


# --- values ---


def values_worked() -> Maker:
    base = {"t": floats("F32", (5,), [10, 20, 30, 40, 50])}
    return one("t", "F32", (5,), values(2, [3, 2, 2, 1], [-1, -1, 1.5, 3], rows=[0, 1, 2, 4]), base=base)


def values_bits(bits: int) -> Maker:
    """All dtypes; all, some rows, some columns, some of both."""
    rng = rng_of(f"values_{bits}")
    subsets: list[dict[str, Any]] = [{}, {"rows": [1, 4]}, {"cols": [0, 2, 8]}, {"rows": [0, 1, 4], "cols": [8]}]
    maker = Maker({d: noise(rng, d, 5, 9) for d in PRECISION})
    for dtype, chosen in zip(PRECISION, subsets, strict=True):
        maker.add(dtype, dtype, (5, 9), some_values(rng, bits, 5, 9, **chosen))
    return maker


def values_per_row() -> Maker:
    rng = rng_of("values_per_row")
    maker = Maker({d: noise(rng, d, 6, 7) for d in ("BF16", "F32")}, numbers="BF16")
    maker.add("BF16", "BF16", (6, 7), some_values(rng, 4, 6, 7, per=True))
    maker.add("F32", "F32", (6, 7), some_values(rng, 8, 6, 7, per=True, rows=[0, 3, 5], cols=[1, 2]))
    return maker


def values_bases() -> Maker:
    """A base of another dtype and none at all; scales that make products round."""
    rng = rng_of("values_bases")
    maker = Maker({"b": floats("F64", (2, 4), [rng.randrange(-(2**40), 2**40) / 2**35 for _ in range(8)])})
    for dtype in PRECISION:
        codes = [rng.randrange(16) for _ in range(4)]
        maker.add(f"t.{dtype}", dtype, (2, 4), values(4, codes, [0.1], base="b", rows=[1]))
        maker.add(f"z.{dtype}", dtype, (2, 4), values(4, codes, [0.1], base=None, rows=[1]))
    return maker


def values_extreme() -> Maker:
    """Infinities and NaNs of the base stay, sums overflow to infinity."""
    maker = Maker(
        {d: floats(d, (6,), [math.inf, -math.inf, math.nan, 3e38, 65504, -0.0]) for d in ("BF16", "F16", "F32")}
    )
    for dtype in maker.base:
        numbers = [-3e38, -100.0, 100.0, 3e38]
        maker.add(dtype, dtype, (6,), values(2, [0, 2, 2, 3, 2, 1], numbers))
    return maker


def values_alone() -> Maker:
    return one("t", "F16", (3, 3), some_values(rng_of("values_alone"), 16, 3, 3, base=None))


# --- lowrank ---


def lowrank_worked() -> Maker:
    block = lowrank([(2, [[[3, 1], [0, 2, 3]]])], [-1, -0.5, 0.5, 1, -2, -1, 1, 2, 0.5])
    return one("t", "F32", (2, 3), block, base={"t": floats("F32", (2, 3), [1, 2, 3, 4, 5, 6])})


def lowrank_bits(bits: int) -> Maker:
    rng = rng_of(f"lowrank_{bits}")
    maker = Maker({d: noise(rng, d, 5, 9) for d in PRECISION})
    for r, dtype in enumerate(PRECISION, 1):
        maker.add(dtype, dtype, (5, 9), some_lowrank(rng, [(r, bits)], 5, 9))
    return maker


def lowrank_bands(vector: bool, numbers: str) -> Maker:
    """Three blocks whose bands interleave in `codes`, with a `values` block between."""
    rng = rng_of(f"lowrank_bands {vector}")
    maker = Maker({n: noise(rng, "BF16", 6, 10) for n in "abcd"}, numbers=numbers)
    bands = {"a": [(2, 8), (1, 4), (3, 2)], "b": [(1, 2), (2, 2)], "d": [(1, 16), (2, 2), (1, 8), (1, 2)]}
    for name, widths in bands.items():
        maker.add(name, "BF16", (6, 10), some_lowrank(rng, widths, 6, 10, vector))
    maker.add("c", "BF16", (6, 10), some_values(rng, 2, 6, 10))
    return maker


def lowrank_16_bands() -> Maker:
    rng = rng_of("lowrank_16_bands")
    return one(
        "t",
        "F32",
        (3, 3),
        some_lowrank(rng, [(1, b) for b in (16, 8, 4, 2) * 4], 3, 3),
        base={"t": noise(rng, "F32", 3, 3)},
    )


def lowrank_subsets() -> Maker:
    rng = rng_of("lowrank_subsets")
    maker = Maker({n: noise(rng, "F32", 20, 70) for n in "abc"})
    maker.add("a", "F32", (20, 70), some_lowrank(rng, [(1, 4), (2, 2)], 20, 70, rows=[0, 7, 8, 19]))
    maker.add("b", "F32", (20, 70), some_lowrank(rng, [(2, 8)], 20, 70, cols=[0, 1, 63, 64, 69]))
    maker.add("c", "F32", (20, 70), some_lowrank(rng, [(2, 2)], 20, 70, rows=[3], cols=list(range(66))))
    return maker


def lowrank_bases() -> Maker:
    rng = rng_of("lowrank_bases")
    maker = Maker({d: noise(rng, d, 3, 4) for d in PRECISION})
    for x, y in (("F32", "BF16"), ("BF16", "F32"), ("F64", "F16"), ("F16", "F64")):
        maker.add(f"{x}.{y}", y, (3, 4), some_lowrank(rng, [(2, 4)], 3, 4, base=x, rows=[0, 2]))
    maker.add("null", "BF16", (3, 4), some_lowrank(rng, [(2, 4)], 3, 4, base=None, cols=[1, 3]))
    maker.add("vector", "F32", (7,), some_lowrank(rng, [(1, 4)], 7, 1, base=None))
    return maker


def lowrank_dithered() -> Maker:
    """More rows than thresholds have; deltas that are small beside the base, so that rounding decides."""
    rng = rng_of("lowrank_dithered")
    maker = Maker({"a": noise(rng, "BF16", 70, 5), "b": noise(rng, "F32", 9, 7)})
    maker.add("a", "BF16", (70, 5), dithered(some_lowrank(rng, [(1, 4), (1, 2)], 70, 5)))
    maker.add("b", "BF16", (9, 7), dithered(some_lowrank(rng, [(2, 2)], 9, 7, rows=[1, 2, 8], cols=[0, 2, 6])))
    return maker


def lowrank_order() -> Maker:
    """Components that cancel: the order of the sum shows in F64."""
    codes = [[[128], [127]], [[127], [128]], [[1], [1]], [[127], [127]]]
    return one("t", "F64", (1, 1), lowrank([(8, codes)], [2.0**60, 3.0, 2.0**-30, 0.1], base=None))


# --- several blocks, names, shapes ---


def blocks_vocabulary() -> Maker:
    rng = rng_of("blocks_vocabulary")
    new = some_values(rng, 8, 3, 4, base=None, height=3, per=True)
    old = some_lowrank(rng, [(1, 4)], 6, 4, height=6, rows=[0, 5])
    return one("embed", "BF16", (9, 4), old, new, base={"embed": noise(rng, "BF16", 6, 4)})


def blocks_shrunk() -> Maker:
    rng = rng_of("blocks_shrunk")
    return one("embed", "F16", (3, 4), same(), base={"embed": noise(rng, "F16", 6, 4)})


def blocks_experts() -> Maker:
    """Fused experts: rows are pairs of expert and row."""
    rng = rng_of("blocks_experts")
    blocks = [some_lowrank(rng, [(1, 2 << e)], 4, 5, height=4) for e in range(3)]
    return one("experts", "F32", (3, 4, 5), *blocks, base={"experts": noise(rng, "F32", 3, 4, 5)}, split=2)


def blocks_qkv() -> Maker:
    rng = rng_of("blocks_qkv")
    base = {f"attn.{x}": noise(rng, "BF16", 4, 6) for x in "qkv"}
    blocks = [some_lowrank(rng, [(1, 2)], 4, 6, height=4, base=b) for b in ("attn.q", ["attn.k", 0], ["attn.v", 0])]
    return one("attn.qkv", "BF16", (12, 6), *blocks, base=base)


def blocks_split_base() -> Maker:
    """The other way round: separate tensors of a fused base, and a base of another shape."""
    rng = rng_of("blocks_split_base")
    maker = Maker({"qkv": noise(rng, "BF16", 12, 6), "conv": noise(rng, "F32", 3, 2, 2)})
    maker.add("k", "BF16", (4, 6), same(base=["qkv", 4]))
    maker.add("q", "BF16", (4, 6), some_values(rng, 4, 4, 6, base="qkv", cols=[2]))
    maker.add("v", "BF16", (4, 6), some_lowrank(rng, [(1, 2)], 4, 6, base=["qkv", 8]))
    maker.add("linear", "F32", (3, 4), same(base="conv"))
    return maker


def blocks_fused_experts() -> Maker:
    """Experts [E, 2 m, n], gate before up, of a base with a tensor for each expert and half."""
    rng = rng_of("blocks_fused_experts")
    base = {f"{e}.{x}": noise(rng, "BF16", 4, 5) for e in range(2) for x in ("gate", "up")}
    first: list[list[str | int] | str] = ["0.gate", ["0.up", 0], ["1.gate", 0], ["1.up", 0]]
    kinds = some_lowrank(rng, [(1, 2)], 4, 5, height=4, base=first[0]), same(height=4, base=first[1])
    more = some_values(rng, 4, 4, 5, height=4, base=first[2]), same(height=4, base=first[3])
    return one("gate_up", "BF16", (2, 8, 5), *kinds, *more, base=base, split=2)


def blocks_split_experts() -> Maker:
    """The other way round: a tensor for each expert and half, rows of one base tensor; and other dimensions."""
    rng = rng_of("blocks_split_experts")
    maker = Maker({"gate_up": noise(rng, "BF16", 2, 8, 5), "vector": noise(rng, "F32", 3)})
    maker.add("0.gate", "BF16", (4, 5), same(base="gate_up"))
    maker.add("0.up", "BF16", (4, 5), some_values(rng, 4, 4, 5, base=["gate_up", 4]))
    maker.add("1.gate", "BF16", (4, 5), some_lowrank(rng, [(1, 2)], 4, 5, base=["gate_up", 8]))
    maker.add("1.up", "BF16", (4, 5), same(base=["gate_up", 12]))
    maker.add("flat", "BF16", (2, 40), same(base="gate_up"))
    maker.add("rows", "BF16", (16, 5), some_lowrank(rng, [(1, 4)], 16, 5, base="gate_up"))
    maker.add("scalar", "F32", (), same(base=["vector", 2]))
    return maker


def blocks_all_kinds() -> Maker:
    rng = rng_of("blocks_all_kinds")
    blocks = [
        same(height=2),
        raw(noise(rng, "F16", 2, 8).data, height=2, planes=True),
        some_values(rng, 4, 3, 8, height=3, rows=[2]),
        some_lowrank(rng, [(1, 2)], 3, 8, height=3, rows=[0, 1], cols=[5, 6, 7]),
        same(height=1, base=None),
        raw(noise(rng, "F16", 1, 8).data, height=1),
        some_values(rng, 2, 2, 8, height=2, base=["t", 0]),
    ]
    return one("t", "F16", (14, 8), *blocks, base={"t": noise(rng, "F16", 14, 8)})


def blocks_small_dtypes() -> Maker:
    """Elements of fewer bits than a byte, with rows that share no byte."""
    rng = rng_of("blocks_small_dtypes")
    maker = Maker({"f4": noise(rng, "F4", 6, 1), "f6": noise(rng, "F6_E2M3", 8, 2)})
    maker.add("f4", "F4", (6, 1), same(height=2, base=["f4", 4]), raw(b"\x12", height=2), same(height=2, base=None))
    maker.add("f6", "F6_E2M3", (4, 2), same(base=["f6", 2]))
    return maker


def prefix(a: str, b: str, mine: tuple[str, ...], theirs: tuple[str, ...]) -> Maker:
    rng = rng_of(f"prefix {a}")
    maker = Maker({n: noise(rng, "F32", 2, 2) for n in theirs})
    maker.index["prefix"] = [a, b]
    for name in mine:
        maker.add(name, "F32", (2, 2), some_values(rng, 16, 2, 2, cols=[1]))
    return maker


def names() -> Maker:
    rng = rng_of("names")
    order = [
        "\x01",
        " ",
        '"\\/\b\f\n\r\t\x1f',
        "\x7f",
        "a" * 1024,
        "z",
        "\u00e9",
        "e\u0301",
        "\u20ac",
        "\uffee",
        "\U0001f600",
    ]
    maker = Maker({n: noise(rng, "I8", 2) for n in order})
    maker.index["metadata"] = {"\uffee": "after \U0001f600 in UTF-16", "\U0001f600": "\u0000\u2028", "": ""}
    for name in order:
        maker.add(name, "I8", (2,), same())
    return maker


def shapes() -> Maker:
    rng = rng_of("shapes")
    sizes: list[tuple[int, ...]] = [(), (1,), (7,), (2, 3, 2, 2), (1, 2, 1, 2, 1, 2, 1, 2), (0,), (3, 0), (0, 2**40)]
    maker = Maker({f"t{i}": noise(rng, "F32", *s) for i, s in enumerate(sizes)})
    for i, s in enumerate(sizes[:5]):
        maker.add(f"t{i}", "F32", s, some_values(rng, 4, math.prod(s[:1]), math.prod(s[1:])))
    maker.add("t5", "F32", sizes[5], same())
    maker.add("t6", "F32", sizes[6], raw(b""))
    maker.add("t7", "F32", sizes[7], same())
    maker.add("t8", "F32", (3, 0), tie("t6"))
    maker.add("t9", "F32", (2, 3, 2, 2), some_lowrank(rng, [(1, 4)], 6, 4, base="t3", cols=[3]), split=2)
    maker.add("u0", "F32", (7, 1), same(base="t2"))
    maker.add("u1", "F32", (2, 3, 2, 2), some_lowrank(rng, [(1, 4)], 24, 1, base="t3", rows=[0, 23]), split=4)
    return maker


def nothing() -> Maker:
    return Maker()


def only_files() -> Maker:
    maker = Maker()
    maker.carry("config.json", b'{"hidden_size": 4}\n')
    maker.carry("empty.txt", b"")
    maker.carry("nested/deep/vocab.txt", b"a\n" * 200, lambda data: pinned_frame(data))
    maker.carry("tokenizer.json", b" " * 300, maker.frame)
    maker.carry("looks-like-a-frame.txt", maker.frame(b"a frame, but the file itself"))
    maker.files["tokenizer.model"] = hashlib.sha256(b"some tokenizer").hexdigest()
    return maker


def files_changed() -> Maker:
    """A base's directory with files that ours are changes of; some prefixes and frames are out of the ordinary."""
    rng = rng_of("files_changed")
    maker = Maker({"w": noise(rng, "F32", 3)})
    maker.add("w", "F32", (3,), same())
    vocab = b"".join(b"%x\n" % rng.randrange(2**32) for _ in range(150))
    maker.change("config.json", b'{"a": 1}', b" " * 40, plain_frame(b" " * 40))  # refers to nothing
    texts = {
        "tokenizer.json": (b'{"truncation": null, "vocab": "%s"}' % vocab, vocab.join([b'{"vocab": "', b'"}'])),
        "merges.txt": (b"8 bytes.", b"8 bytes." * 6),  # the shortest prefix
        "vocab.txt": (b"\x37\xa4\x30\xec" + vocab, b"\x37\xa4\x30\xec" + vocab + b"new\n"),  # begins as a dictionary
    }
    for name, (prefix, content) in texts.items():
        maker.change(name, prefix, content, pinned_frame(content, prefix=prefix))
    # The prefix is out of reach after as many bytes as the window has.
    long = vocab[600:] + bytes(range(256)) + vocab
    maker.change("window.txt", vocab, long, pinned_frame(long, True, 10, vocab))
    maker.carry("generation_config.json", b"{}")
    return maker


def file_changed() -> Maker:
    """A changed file and a named one; the invalid vectors of section 4.5 are edits of this one."""
    maker = Maker({"w": T("U8", (3,), b"abc")})
    maker.add("w", "U8", (3,), same())
    vocab = b"".join(b"token%d\n" % i for i in range(40))
    maker.change("vocab.txt", vocab, vocab + b"new\n", pinned_frame(vocab + b"new\n", prefix=vocab))
    maker.files["tokenizer.model"] = hashlib.sha256(b"some tokenizer").hexdigest()
    maker.base_files = (maker.base_files or {}) | {"tokenizer.model": b"some tokenizer"}
    return maker


def all_kinds(numbers: str = "F32") -> Maker:
    """A little of everything: most invalid vectors are edits of this one."""
    rng = rng_of("all_kinds")
    base = {n: noise(rng, "BF16", 10, 12) for n in ("m.a", "m.b", "m.c")} | {"m.d": noise(rng, "F32", 6)}
    maker = Maker(base, numbers, SUMMARY)
    maker.index |= {"prefix": ["", "m."], "absent": ["m.head"], "metadata": {"format": "pt"}}
    maker.add("a", "BF16", (10, 12), some_lowrank(rng, [(2, 4), (3, 2)], 10, 12, rows=[0, 2, 3, 9], cols=[1, 5, 11]))
    maker.add("b", "BF16", (10, 12), same(height=4), some_values(rng, 8, 6, 12, height=6, per=True, rows=[0, 4]))
    maker.add("c", "BF16", (10, 12), some_lowrank(rng, [(1, 16), (2, 8)], 10, 12))
    maker.add("d", "F32", (6,), some_values(rng, 2, 6, 1, rows=[0, 2, 3, 4, 5]))
    maker.add("e", "BF16", (2, 70), raw(b"".join(struct.pack("BB", i, 63) for i in range(140)), planes=True))
    maker.add("f", "BF16", (2, 70), tie("e"))
    maker.add("g", "I64", (3,), raw(noise(rng, "I64", 3).data))
    maker.add("h", "BF16", (10, 12), same(base="m.c"))
    maker.carry("config.json", b'{"vocab_size": 10}\n')
    maker.carry("merges.txt", b"x" * 100, maker.frame)
    maker.files["tokenizer.json"] = hashlib.sha256(b"some tokenizer").hexdigest()
    return maker


def weight_files(stem: str, folders: list[str]) -> Maker:
    """Tensors of the model's own files, and of folders; folders within folders, and a name that only looks like one."""
    rng = rng_of(f"weight_files {stem}")
    base = {n: noise(rng, "BF16", 4, 6) for n in ("2_Dense/linear.weight", "w")}
    maker = Maker(base)
    maker.index |= ({"stem": stem} if stem else {}) | ({"folders": folders} if folders else {})
    maker.add("2_Dense/linear.weight", "BF16", (4, 6), some_lowrank(rng, [(1, 4)], 4, 6))
    for name in ("1_Router/q/0_Dense/bias", "1_Router/scale", "2_Dense.other/bias"):
        maker.add(name, "F32", (3,), raw(noise(rng, "F32", 3).data))
    maker.add("w", "BF16", (4, 6), same())
    maker.carry("2_Dense/config.json", b"{}")
    return maker


def frame_windows() -> Maker:
    """All frames need the largest window that there may be, whatever they hold."""
    maker = all_kinds()
    maker.frame = lambda data: windowed(plain_frame(data), 0x88)
    return maker


def frames() -> Maker:
    """Everything compressed by the real zstd, with the options that a writer may choose."""
    maker = all_kinds()
    rng = rng_of("frames")
    maker.frame = lambda data: pinned_frame(data)
    maker.base |= {"m.z": noise(rng, "F32", 400, 3)}
    maker.add("z", "F32", (400, 3), some_values(rng, 4, 400, 3, rows=[i for i in range(400) if i % 7 == 0]))
    maker.add("zz", "I16", (900,), raw(struct.pack("<900h", *(i * i // 50 for i in range(900))), planes=True))
    maker.carry("added.json", b'{"a": [1, 2, 3, 4]}' * 9, lambda data: pinned_frame(data, checksum=True))
    maker.carry("vocab.txt", b"".join(b"token%d\n" % i for i in range(99)), lambda data: pinned_frame(data, window=17))
    return maker


# --- what a pack says beside its tensors ---


def widths(width: int, block: int) -> Callable[[Parts], None]:
    def edit(parts: Parts) -> None:
        parts.width, parts.summary["block"] = width, block

    return edit


def optional(parts: Parts) -> None:
    parts.summary["optional"] = ["another", "some-index"]
    parts.extra["x.some-index"] = b"64 bytes that version 1 skips".ljust(64, b".")


def dequantized(parts: Parts) -> None:
    parts.summary["base"]["dequantized"] = "BF16"


CLAIM = {
    "measure": "kl",
    "bound": 10_000_000,
    "figure": 8_125_000,
    "limit": 9_500_001,
    "confidence": 950_000_000,
    "samples": 128,
    "predictions": 15_872,
    "digest": "0123456789abcdef" * 4,
}


def claim(**changes: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.summary.update(claim=CLAIM | changes)


def valid_cases() -> list[Valid]:
    cases = [
        Valid("all-kinds", "L1 C7 D2 D3 H2 H3 I4 B3", "a little of everything", all_kinds()),
        Valid("numbers-bf16", "N1 C7 L1", "the same with numbers in BF16", all_kinds("BF16")),
        Valid("minimal", "C3 S2 H1", "no tensors, no base: only digests and index", nothing()),
        Valid(
            "frames", "I1 W2 P2 F2", "frames of the real compressor, one with a checksum, one with a window", frames()
        ),
        Valid("frame-windows", "I1 W2", "frames that ask for a window of 128 MiB", frame_windows()),
        Valid("same-dtypes", "L1 T1", "same, for every dtype", same_dtypes()),
        Valid(
            "same-convert", "R2 L1", "same with each pair of float dtypes; ties, subnormals, overflow", same_convert()
        ),
        Valid("same-null", "H1", "same without a base: zeros", same_null()),
        Valid("tie", "B4", "ties to a lowrank tensor and to a raw one, before and after it", ties()),
        Valid("raw", "L1 T2", "raw of every dtype, no base at all", raw_dtypes(False)),
        Valid("raw-planes", "P1 P2", "byte planes of every dtype, some stored and some frames", raw_dtypes(True)),
        Valid("raw-chunks", "P1 P2", "byte planes of a block of more than 1 MiB", raw_chunks()),
        Valid("digest-blocks", "D1 D3", "three digest blocks", digest_blocks()),
        Valid("digest-block-16m", "D1", "the largest digest block, whole leaves", all_kinds(), widths(32, 2**24)),
        Valid("leaf-16", "H2", "leaves of 16 bytes", blocks_qkv(), widths(16, 65536)),
        Valid("values-worked", "W1", "the worked example of section 6.4", values_worked()),
        Valid("values-per-row", "B3 N1", "a scale for each coded row", values_per_row()),
        Valid("values-bases", "R2 L1", "values on a base of F64 and on none", values_bases()),
        Valid("values-extreme", "L1", "infinities, NaNs, overflow", values_extreme()),
        Valid("lowrank-worked", "E1 N2", "the worked example of section 6.5", lowrank_worked()),
        Valid("lowrank-bands", "N2 C7", "bands of several blocks interleave", lowrank_bands(False, "F32")),
        Valid("lowrank-vector", "N2 C7", "a level table for each vector, numbers in BF16", lowrank_bands(True, "BF16")),
        Valid("lowrank-16-bands", "B3", "as many bands as there may be", lowrank_16_bands()),
        Valid("lowrank-subsets", "W1", "some rows, some columns, both", lowrank_subsets()),
        Valid(
            "lowrank-bases", "R2 L1", "lowrank on a base of another dtype, on none, of one dimension", lowrank_bases()
        ),
        Valid("lowrank-order", "L1", "components that cancel", lowrank_order()),
        Valid("lowrank-dithered", "B3 L1", "weights that are rounded by thresholds", lowrank_dithered()),
        Valid("values-16-alone", "C6 C7", "codes right after index: no bitmaps, no numbers", values_alone()),
        Valid("blocks-vocabulary", "B1 R1", "a grown vocabulary: old rows and new", blocks_vocabulary()),
        Valid("blocks-shrunk", "R1", "fewer rows than the base has", blocks_shrunk()),
        Valid("blocks-experts", "B1 T1", "fused experts: split 2, a block for each", blocks_experts()),
        Valid("blocks-qkv", "B1 R1", "fused q, k and v, of a base that keeps them apart", blocks_qkv()),
        Valid("blocks-fused-experts", "R1", "fused experts of a base with one tensor each", blocks_fused_experts()),
        Valid("blocks-split-experts", "R1", "the other way round, and other dimensions", blocks_split_experts()),
        Valid("blocks-split-base", "R1", "parts of a fused base; a base of another shape", blocks_split_base()),
        Valid("blocks-all-kinds", "B1", "all kinds but tie in one tensor", blocks_all_kinds()),
        Valid("blocks-small-dtypes", "T2", "blocks of 4 and 6 bits an element", blocks_small_dtypes()),
        Valid(
            "prefix-drop", "R1", "prefix: the base lacks it", prefix("model.", "", ("head", "model.w"), ("head", "w"))
        ),
        Valid("prefix-add", "R1", "prefix: the base has it", prefix("", "model.", ("w",), ("model.w",))),
        Valid("names", "I4 I2", "names of all sorts, and keys whose UTF-8 and UTF-16 orders differ", names()),
        Valid("shapes", "T1 T3 B2", "0, 1, 4 and 8 dimensions, empty tensors, splits", shapes()),
        Valid("files", "F1 F2", "files stored plain, as frames, and named; no tensors", only_files()),
        Valid("files-changed", "F2 F4", "files that are a change of the base's, of several forms", files_changed()),
        Valid("file-changed", "F4", "a file that is a change of the base's, and one that is named", file_changed()),
        Valid("dequantized-base", "S2 H3", "a base read dequantized: its result as base", all_kinds(), dequantized),
        Valid("claim", "S2 S4", "a claim about the KL", nothing(), claim()),
        Valid(
            "claim-agreement",
            "S4",
            "a claim about the agreement",
            nothing(),
            claim(measure="agreement", bound=970_000_000, limit=970_000_000, figure=1_000_000_000),
        ),
        Valid("stem", "F3 I5", "weight files of another name", weight_files("diffusion_pytorch_model", [])),
        Valid("stem-variant", "F3 I5", "weight files of a variant", weight_files("model.fp16", [])),
        Valid(
            "folders",
            "F3 I4",
            "folders with weights, one in another",
            weight_files("", ["1_Router", "1_Router/q/0_Dense", "2_Dense"]),
        ),
        Valid("optional", "C8 S2", "an optional feature with an arena, another without", all_kinds(), optional),
    ]
    for bits in (2, 4, 8, 16):
        cases.append(
            Valid(f"values-{bits}", "L1 W1", f"values of {bits} bits, all dtypes and subsets", values_bits(bits))
        )
        cases.append(Valid(f"lowrank-{bits}", "L1 E1", f"lowrank of {bits} bits, all dtypes", lowrank_bits(bits)))
    return cases

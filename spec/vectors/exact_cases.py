"""The packs with a residual layer that every decoder must accept."""

import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builder import (
    OWN,
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
    some_codes,
    some_lowrank,
    some_values,
    tie,
    windowed,
)
from layer_builder import (
    EMPTY,
    MANTISSA,
    Choose,
    Chunk,
    Elements,
    ExactMaker,
    join_elements,
    size_of,
    weight_header,
)
from valid_cases import AWKWARD, SUMMARY, Valid, claim, optional, rng_of

Change = Callable[[Elements], Elements]
CODED = tuple(PRECISION)


# --- what fine-tunes are, from their predictions ---


def nudged(rng: random.Random, dtype: str, most: int = 5, share: float = 1.0) -> Change:
    """A share of the elements, by a few steps of their bits."""
    bits = 8 * size_of(dtype)

    def change(predicted: Elements) -> Elements:
        steps = [rng.randrange(-most, most + 1) if rng.random() < share else 0 for _ in predicted]
        return [p ^ (s & 1) if dtype == "BOOL" else (p + s) % 2**bits for p, s in zip(predicted, steps, strict=True)]

    return change


def at(places: dict[int, int], bits: int) -> Change:
    """Elements at some places, by some steps."""

    def change(predicted: Elements) -> Elements:
        result = list(predicted)
        for place, step in places.items():
            result[place] = (result[place] + step) % 2**bits
        return result

    return change


def elements(values: Elements) -> Change:
    """Whatever the prediction."""
    return lambda predicted: values


def unchanged(predicted: Elements) -> Elements:
    return predicted


def one(
    name: str, dtype: str, shape: tuple[int, ...], *blocks: Block, base: dict[str, T] | None = None, split: int = 1
) -> ExactMaker:
    maker = ExactMaker(base)
    maker.add(name, dtype, shape, *blocks, split=split)
    return maker


# --- elements and distances ---


def worked() -> ExactMaker:
    """The examples of sections 15.3 and 15.4, one after another."""
    maker = ExactMaker({"bf16": T("BF16", (1,), b"\x80\xbf")})
    maker.add("bf16", "BF16", (1,), same())
    maker.exact("bf16", elements([0xBF7F]), Chunk(offset=2 * 0x7F))
    maker.add("u8", "U8", (5,), same(base=None))
    maker.exact("u8", elements([255, 0, 254, 252, 1]), Chunk(choose=lambda c, z: 2))
    return maker


def dtypes(positions: bool) -> ExactMaker:
    """All dtypes, with a few elements that differ or many; and raw blocks that were of other bytes."""
    rng = rng_of(f"exact dtypes {positions}")
    maker = ExactMaker({f"t.{d}": noise(rng, d, 4, 6) for d in WIDTH})
    for dtype in WIDTH:
        change = nudged(rng, dtype, 3, 0.2 if positions else 1.0)
        maker.add(f"t.{dtype}", dtype, (4, 6), same())
        maker.exact(f"t.{dtype}", change, Chunk(offset=12, positions=positions))
        maker.add(f"u.{dtype}", dtype, (4, 6), raw(noise(rng, dtype, 4, 6).data))
        maker.exact(f"u.{dtype}", change, Chunk(offset=12, positions=positions))
    return maker


def specials(dtype: str) -> Elements:
    """Zeros, ones, subnormal and largest numbers, infinities and NaNs of several payloads, of both signs."""
    m, bits = MANTISSA[dtype], 8 * size_of(dtype)
    ones = 2 ** (bits - 1) - 2**m  # all bits of the exponent
    some = [0, 1, 2**m - 1, 2**m, ones // 2, ones - 1, ones, ones + 1, ones + 2 ** (m - 1), 2 ** (bits - 1) - 1]
    return some + [x + 2 ** (bits - 1) for x in some]


def special_floats() -> ExactMaker:
    """Each of these numbers predicted by each."""
    maker = ExactMaker()
    for dtype in MANTISSA:
        own = specials(dtype)
        n = len(own)
        maker.base[dtype] = T(dtype, (n, n // 2 if dtype == "C64" else n), join_elements(own * n, dtype))
        maker.add(dtype, dtype, maker.base[dtype].shape, same())
        maker.exact(dtype, elements([x for x in own for _ in own]), Chunk(offset=20))
    return maker


def far_integers() -> ExactMaker:
    """Distances of all bits, which wrap around."""
    maker = ExactMaker()
    for dtype in ("I8", "U16", "I32", "U64", "F8_E8M0", "F8_E4M3FNUZ"):
        bits = 8 * size_of(dtype)
        own = [0, 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2 ** (bits - 1) + 1, 2**bits - 1]
        maker.base[dtype] = T(dtype, (6, 6), join_elements(own * 6, dtype))
        maker.add(dtype, dtype, (6, 6), same())
        maker.exact(dtype, elements([x for x in own for _ in own]), Chunk(positions=dtype == "U16"))
    return maker


# --- predictions ---


def deltas() -> ExactMaker:
    """Each width and dtype, by the base and by the delta."""
    rng = rng_of("exact deltas")
    maker = ExactMaker({d: noise(rng, d, 5, 9) for d in CODED})
    for dtype in CODED:
        for bits in (2, 4, 8, 16):
            made = {
                "l": some_lowrank(rng, [(2, bits), (1, 4)], 5, 9, vector=bits == 2, base=dtype),
                "v": some_values(rng, bits, 5, 9, base=dtype),
            }
            for kind, block in made.items():
                name = f"{kind}{bits}.{dtype}"
                maker.add(name, dtype, (5, 9), block)
                maker.exact(name, nudged(rng, dtype), Chunk(offset=14), delta=bits != 8 or kind == "l")
    return maker


def subsets() -> ExactMaker:
    """Some rows, some columns; the base of what is not coded has every special number."""
    rng = rng_of("exact subsets")
    maker = ExactMaker(numbers="BF16")
    for dtype in CODED:
        own = specials(dtype)
        maker.base[dtype] = T(dtype, (8, 20), join_elements(own * 8, dtype))
        both: dict[str, Any] = {"rows": [0, 3, 7], "cols": [0, 1, 10, 11, 19]}
        kinds = {
            "l": some_lowrank(rng, [(1, 4), (2, 2)], 8, 20, base=dtype, **both),
            "r": some_lowrank(rng, [(1, 8)], 8, 20, base=dtype, rows=[1, 2]),
            "v": some_values(rng, 4, 8, 20, per=True, base=dtype, **both),
            "c": some_values(rng, 16, 8, 20, base=dtype, cols=[4, 10]),
        }
        for kind, block in kinds.items():
            maker.add(f"{kind}.{dtype}", dtype, (8, 20), block)
            maker.exact(f"{kind}.{dtype}", nudged(rng, dtype, 2), Chunk(offset=10), delta=True)
    return maker


def products() -> ExactMaker:
    """Numbers of components that halve what integers may hold; factors of zeros; sums of zero; many bits."""
    rng = rng_of("exact products")
    maker = ExactMaker({"b": floats("F64", (3, 5), [-0.0] * 15)})
    for r in (1, 2, 3, 4, 5, 8, 9):
        maker.add(f"r{r}", "F64", (3, 5), some_lowrank(rng, [(r, 16)], 3, 5, base=None))
        # Scales of many bits, so that factors are rounded.
        long = [[some_codes(rng, n, 8) for n in (3, 5)] for _ in range(r)]
        maker.add(f"s{r}", "F64", (3, 5), lowrank([(8, long)], [(k + 1) / 3 for k in range(r)], base=None))
    codes = [[[128, 127, 0], [127, 128, 0, 1, 255]], [[127, 128, 1], [128, 127, 3, 0, 9]]]
    maker.add("scales", "F64", (3, 5), lowrank([(8, codes)], [2.0**100, 1 / 3], base="b"))
    maker.add("small", "F64", (3, 5), lowrank([(8, codes)], [2.0**-149, 2.0**-140], base="b"))
    maker.add("zero", "F64", (3, 5), lowrank([(8, codes)], [0.0, -0.0], base="b"))
    none = [[[0, 255, 1], [0, 0, 255, 1, 0]]]
    maker.add("signs", "F64", (3, 5), lowrank([(8, none)], [0.5], base="b"))
    maker.add("signs2", "BF16", (3, 5), lowrank([(8, none * 2)], [0.5, -0.5], base="b"))
    for name in [*maker.entries]:
        maker.exact(name, unchanged, delta=True)
    return maker


def other_bases() -> ExactMaker:
    """Each pair of float dtypes: where a number does not fit or is none, the prediction is zero."""
    rng = rng_of("exact bases")
    maker = ExactMaker({x: floats(x, (len(AWKWARD),), AWKWARD) for x in PRECISION})
    for x in PRECISION:
        for y in PRECISION:
            n = len(AWKWARD)
            maker.add(f"s.{x}.{y}", y, (n,), same(base=x))
            maker.add(f"v.{x}.{y}", y, (n,), some_values(rng, 4, n, 1, base=x))
            maker.exact(f"s.{x}.{y}", nudged(rng, y, 2), Chunk(offset=9, positions=x < y))
            maker.exact(f"v.{x}.{y}", nudged(rng, y, 2), Chunk(offset=9, t=0.75), delta=True)
    return maker


def factors() -> ExactMaker:
    """Factors of rows and of the delta, alone and together; where no element differs beyond them; where they do not
    matter."""
    rng = rng_of("exact factors")
    maker = ExactMaker({d: noise(rng, d, 6, 5) for d in (*CODED, "I16", "C64")})
    a = [0.0, -0.125, 1 / 3, -1.0, -2.5, 1e30]
    for dtype in CODED:
        maker.base[f"special.{dtype}"] = T(dtype, (6, 20), join_elements(specials(dtype) * 6, dtype))
        made = {
            "a": ("same", Chunk(a=a, offset=9)),
            "a0": ("same", Chunk(a=a, positions=True)),
            "s": ("special", Chunk(a=a, offset=9)),
            "t": ("lowrank", Chunk(t=0.7, offset=9)),
            "t0": ("lowrank", Chunk(t=-0.7, positions=True)),
            "n": ("lowrank", Chunk(t=0.0, positions=True)),
            "at": ("lowrank", Chunk(a=a, t=-1.3, offset=9)),
            "at4": ("lowrank", Chunk(a=a, t=1e-30, positions=True, offset=9)),
            "v": ("values", Chunk(a=a, t=3e38, positions=True, offset=9)),
            "b": ("base", Chunk(a=a, t=2.0, offset=9)),
        }
        for name, (kind, chunk) in made.items():
            shape = (6, 20) if kind == "special" else (6, 5)
            block = {
                "same": same(base=dtype),
                "special": same(base=f"special.{dtype}"),
                "lowrank": some_lowrank(rng, [(2, 8)], 6, 5, base=dtype, rows=[0, 1, 4]),
                "values": some_values(rng, 8, 6, 5, base=dtype),
                "base": some_values(rng, 8, 6, 5, base=dtype),
            }[kind]
            maker.add(f"{name}.{dtype}", dtype, shape, block)
            change = unchanged if name[-1] == "0" else nudged(rng, dtype, 3, 0.3 if chunk.positions else 1.0)
            maker.exact(f"{name}.{dtype}", change, chunk, delta=kind in ("lowrank", "values"))
    for dtype in ("I16", "C64"):
        maker.add(f"i.{dtype}", dtype, (6, 5), same(base=dtype))
        maker.exact(f"i.{dtype}", nudged(rng, dtype, 3), Chunk(a=a, t=2.0, offset=9), delta=True)
    maker.add("raw", "BF16", (6, 5), raw(noise(rng, "BF16", 6, 5).data))
    maker.exact("raw", nudged(rng, "BF16", 3), Chunk(a=a, t=2.0, offset=9), delta=True)
    maker.add("null", "F32", (6, 5), same(base=None))
    maker.exact("null", nudged(rng, "F32", 3), Chunk(a=a, offset=2))
    return maker


def several_blocks() -> ExactMaker:
    """All kinds but tie in one tensor, and fused experts; factors of rows go across blocks."""
    rng = rng_of("exact blocks")
    blocks = [
        same(height=2),
        raw(noise(rng, "F16", 2, 8).data, height=2),
        some_values(rng, 4, 3, 8, height=3, rows=[2]),
        some_lowrank(rng, [(1, 2)], 3, 8, height=3, rows=[0, 1], cols=[5, 6, 7]),
        same(height=1, base=None),
        same(height=1, base=["wide", 1]),
        some_values(rng, 2, 2, 8, height=2, base=["t", 0]),
    ]
    maker = ExactMaker({"t": noise(rng, "F16", 14, 8), "wide": noise(rng, "F32", 2, 8)})
    for name, delta in (("t", True), ("u", False), ("w", True)):
        # Elsewhere the first rows of `t` must be named.
        named = [replace(b, base="t") if name != "t" and b.base is OWN and b.kind != "raw" else b for b in blocks]
        maker.add(name, "F16", (14, 8), *named)
        a = [i / 16 for i in range(14)] if name == "w" else None
        maker.exact(name, nudged(rng, "F16", 4), Chunk(offset=14, a=a, rows=list(range(9, 23))), delta=delta)
    maker.base["experts"] = noise(rng, "F32", 3, 4, 5)
    maker.add(
        "experts", "F32", (3, 4, 5), *(some_lowrank(rng, [(1, 2 << e)], 4, 5, height=4) for e in range(3)), split=2
    )
    maker.exact("experts", nudged(rng, "F32", 300), Chunk(offset=16), delta=True)
    maker.base["f4"] = noise(rng, "F4", 6, 1)
    maker.add("f4", "F4", (6, 1), same(height=2, base=["f4", 4]), raw(b"\x12", height=2), same(height=2, base=None))
    maker.exact("f4", elements([0x12, 0x34, 0x56]), Chunk())
    maker.add("dithered", "BF16", (4, 5), dithered(some_lowrank(rng, [(1, 4)], 4, 5, base=None)))
    maker.exact("dithered", nudged(rng, "BF16", 2), Chunk(offset=14), delta=True)
    return maker


# --- chunks ---


def by_context(codes: list[int]) -> Choose:
    return lambda context, integers: codes[context]


def all_codes() -> ExactMaker:
    """Each code of each size, in one chunk; counts that do not fill bytes, integers that escape and others."""
    maker = ExactMaker()
    for dtype, w in (("I8", 1), ("I16", 2), ("I32", 4), ("I64", 8)):
        codes = [4 * fours + g for fours in range(2 * w) for g in range(3)]
        rows: Elements = []
        for code in codes:
            unit, most = 16 ** (code >> 2), 2 ** (8 >> (code & 3)) - 1
            low = unit - 1
            some = [0, low, most * unit - 1, most * unit, (most + 1) * unit + low // 3, 2 ** (8 * w) - 1, 5]
            rows += [z if 0 <= z < 2 ** (8 * w) else z % (low + 1) for z in some]
        # A scale for each row gives it a context of its own.
        wanted = [z // 2 if z % 2 == 0 else -(z + 1) // 2 for z in rows]
        maker.add(dtype, dtype, (len(codes), 7), same(base=None))
        chunk = Chunk(offset=-1, rows=[i + 1 for i in range(len(codes))], choose=by_context(codes))
        maker.exact(dtype, elements([d % 2 ** (8 * w) for d in wanted]), chunk)
    return maker


def positions() -> ExactMaker:
    """The first element, the last one, all, one, none; gaps that escape, of each code."""
    rng = rng_of("exact positions")
    maker = ExactMaker({"w": noise(rng, "BF16", 30, 40)})
    n, some = 1200, {0: 1, 1: -1, 2: 7, 5: 300, 700: -2, 701: 1, 1199: 3}
    made: dict[str, tuple[dict[int, int], Chunk]] = {
        "all": (dict.fromkeys(range(n), 1), Chunk(positions=True)),
        "first": ({0: 1}, Chunk(positions=True)),
        "last": ({n - 1: -30000}, Chunk(positions=True)),
        "some": (some, Chunk(positions=True, offset=262)),
    }
    for code in (0, 1, 2, 4, 5, 6, 8, 9, 10, 16, 30):
        made[f"gaps{code:02}"] = some, Chunk(positions=True, offset=262, choose_gaps=by_context([code]))
    for name, (places, chunk) in made.items():
        maker.add(name, "BF16", (30, 40), same(base="w"))
        maker.exact(name, at(places, 16), chunk)
    maker.add("none", "BF16", (30, 40), same(base="w"))
    maker.exact("none", unchanged, Chunk(positions=True, offset=-8191))
    maker.add("vector", "I64", (9,), same(base=None))
    maker.exact("vector", at({3: 2**63 - 1, 8: 2**63}, 64), Chunk(positions=True))
    return maker


def scales() -> ExactMaker:
    """Scales of rows and columns, of 0 to 255; offsets from end to end; contexts from 0 to 127."""
    rng = rng_of("exact scales")
    maker = ExactMaker({d: noise(rng, d, 8, 9) for d in ("BF16", "F64", "I32")})
    rows, columns = [0, 1, 60, 0, 255, 30, 31, 32], [255, 0, 1, 2, 3, 0, 5, 6, 60]

    def changed(dtype: str, s: list[int] | None, t: list[int] | None) -> Change:
        own = nudged(rng, dtype, 100)
        coded = [(s is None or s[i // 9] > 0) and (t is None or t[i % 9] > 0) for i in range(72)]
        return lambda p: [x if c else y for x, y, c in zip(own(p), p, coded, strict=True)]

    for dtype in maker.base:
        for name, s, t, offset in (
            ("both", rows, columns, 200),
            ("rows", rows, None, 220),
            ("columns", None, columns, 220),
            ("most", rows, columns, 8191),
            ("least", rows, columns, -8191),
            ("neither", None, None, 270),
            ("full", [7] * 8, [9] * 9, 255),
            ("single", [0] * 7 + [1], [0] * 8 + [255], 2000),
        ):
            maker.add(f"{name}.{dtype}", dtype, (8, 9), same(base=dtype))
            maker.exact(f"{name}.{dtype}", changed(dtype, s, t), Chunk(rows=s, columns=t, offset=offset))
    return maker


def several_chunks() -> ExactMaker:
    """Chunks of one long row, and of many short ones; some are empty."""
    maker = ExactMaker()
    n = 2**19 + 1  # of a row that is a chunk
    maker.add("long", "I8", (2, n), same(base=None))
    maker.exact("long", at({n: 1, 2 * n - 1: -128}, 8), EMPTY, Chunk(positions=True))
    maker.add("short", "F4", (2**20 + 1, 2), same(base=None))
    maker.exact("short", at({0: 0x21, 2**20: 0x43}, 8), Chunk(positions=True), Chunk(rows=[3], offset=3))
    return maker


def frames() -> ExactMaker:
    """Frames of the real compressor, one with a checksum; and one that asks for the largest window."""
    rng = rng_of("exact frames")
    maker = ExactMaker({n: noise(rng, "BF16", 20, 30) for n in "abc"})
    maker.frame = lambda data: pinned_frame(data)
    for name, frame in (
        ("a", lambda data: pinned_frame(data)),
        ("b", lambda data: pinned_frame(data, checksum=True)),
        ("c", lambda data: windowed(plain_frame(data), 0x88)),
    ):
        maker.add(name, "BF16", (20, 30), same())
        maker.exact(name, nudged(rng, "BF16", 2), Chunk(offset=262, frame=frame))
    maker.weigh("model.safetensors", header_of(maker, "cab", {"format": "pt"}), lambda data: pinned_frame(data))
    return maker


# --- the layer as a whole ---


def ties() -> ExactMaker:
    rng = rng_of("exact ties")
    maker = ExactMaker({"b": noise(rng, "F32", 3, 4)})
    maker.add("a.tie", "F32", (3, 4), tie("b"))
    maker.add("b", "F32", (3, 4), some_lowrank(rng, [(1, 4)], 3, 4))
    maker.add("c", "I8", (2, 3, 2), raw(noise(rng, "I8", 2, 3, 2).data))
    maker.add("d.tie", "I8", (2, 3, 2), tie("c"), split=2)
    maker.exact("b", nudged(rng, "F32", 40), Chunk(offset=270), delta=True)
    return maker


def shapes() -> ExactMaker:
    """0, 1, 4 and 8 dimensions, splits, and tensors without elements."""
    rng = rng_of("exact shapes")
    sizes: list[tuple[int, ...]] = [(), (1,), (7,), (2, 3, 2, 2), (1, 2, 1, 2, 1, 2, 1, 2), (0,), (3, 0), (0, 2**40)]
    maker = ExactMaker({f"t{i}": noise(rng, "F32", *s) for i, s in enumerate(sizes)})
    for i, s in enumerate(sizes[:5]):
        maker.add(f"t{i}", "F32", s, some_values(rng, 4, math.prod(s[:1]), math.prod(s[1:])))
        maker.exact(f"t{i}", nudged(rng, "F32", 9), Chunk(offset=260), delta=i % 2 == 0)
    maker.add("t5", "F32", sizes[5], same())
    maker.add("t6", "F32", sizes[6], raw(b""))
    maker.add("t7", "F32", sizes[7], same())
    maker.exact("t7", unchanged, delta=True)
    maker.add("t8", "F32", (3, 0), tie("t6"))
    maker.add("t9", "F32", (2, 3, 2, 2), some_lowrank(rng, [(1, 4)], 6, 4, base="t3", cols=[3]), split=2)
    maker.exact("t9", nudged(rng, "F32", 9), Chunk(offset=250, rows=[1, 2, 3, 4, 5, 6]), delta=True)
    maker.add("u1", "F32", (2, 3, 2, 2), some_lowrank(rng, [(1, 4)], 24, 1, base="t3", rows=[0, 23]), split=4)
    maker.exact("u1", nudged(rng, "F32", 9), Chunk(a=[x / 8 for x in range(24)], offset=250), delta=True)
    maker.add("u2", "C64", (2, 0, 3), same(base=None))
    return maker


def all_kinds(numbers: str = "F32") -> ExactMaker:
    """A little of everything: most invalid vectors of section 15 are edits of this one."""
    rng = rng_of("exact all_kinds")
    base = {n: noise(rng, "BF16", 10, 12) for n in ("m.a", "m.b", "m.c")} | {"m.d": noise(rng, "F32", 6)}
    maker = ExactMaker(base, numbers, SUMMARY)
    maker.index |= {"prefix": ["", "m."], "metadata": {"format": "pt"}}
    maker.add("a", "BF16", (10, 12), some_lowrank(rng, [(2, 4), (3, 2)], 10, 12, rows=[0, 2, 3, 9], cols=[1, 5, 11]))
    maker.add("b", "BF16", (10, 12), same(height=4), some_values(rng, 8, 6, 12, height=6, per=True, rows=[0, 4]))
    maker.add("c", "BF16", (10, 12), some_lowrank(rng, [(1, 16), (2, 8)], 10, 12))
    maker.add("d", "F32", (6,), some_values(rng, 2, 6, 1, rows=[0, 2, 3, 4, 5]))
    maker.add("e", "BF16", (2, 70), raw(b"".join(struct.pack("BB", i, 63) for i in range(140)), planes=True))
    maker.add("f", "BF16", (2, 70), tie("e"))
    maker.add("g", "I64", (3,), raw(noise(rng, "I64", 3).data))
    maker.add("h", "BF16", (10, 12), same(base="m.c"))
    rows = [0, *range(1, 9), 0]
    coded = [rows[i // 12] > 0 for i in range(120)]
    change = nudged(rng, "BF16", 3)
    maker.exact(
        "a",
        lambda p: [x if c else y for x, y, c in zip(change(p), p, coded, strict=True)],
        Chunk(rows=rows, offset=258, t=0.5),
        delta=True,
    )
    maker.exact("b", at({5: 1, 17: -2, 119: 3}, 16), Chunk(positions=True, offset=262))
    maker.exact(
        "c", nudged(rng, "BF16", 9), Chunk(columns=list(range(12, 0, -1)), a=[0.5] * 10, offset=262), delta=True
    )
    maker.exact("g", nudged(rng, "I64", 2), Chunk())
    maker.carry("config.json", b'{"vocab_size": 10}\n')
    maker.weigh("model.safetensors", header_of(maker, "gfedcbah", {"format": "pt"}))
    return maker


# --- weight files ---


def header_of(
    maker: Maker, names: str | list[str], metadata: dict[str, str] | None = None, folder: str = "", spaces: int = 0
) -> bytes:
    """Of a file with these tensors in this order."""
    tensors = {}
    for name in names:
        entry, _ = maker.entries[folder + name]
        size = math.prod(entry["shape"]) * WIDTH[entry["dtype"]] // 8
        tensors[name] = T(entry["dtype"], tuple(entry["shape"]), bytes(size))
    return weight_header(tensors, metadata, spaces)


def some_tensors(what: str, names: list[str]) -> ExactMaker:
    rng = rng_of(what)
    maker = ExactMaker({"w": noise(rng, "BF16", 4, 6)})
    for name in names:
        maker.add(name, "BF16", (4, 6), same(base="w" if name != "w" else same().base))
        maker.exact(name, nudged(rng, "BF16", 2), Chunk(offset=262))
    return maker


def weights_single() -> ExactMaker:
    """A header as other writers make it: with spaces, keys in no order, and an empty tensor amid the others."""
    maker = some_tensors("weights_single", ["w", "x", "y"])
    maker.add("empty", "I8", (0, 4), raw(b""))
    text = b"""{"y" : {"dtype":"BF16", "shape":[4,6], "data_offsets":[48,96]},
 "w":{"data_offsets":[96,144],"shape":[4,6],"dtype":"BF16"}, "__metadata__":{"b":"\\u00e9","a":""},
 "empty":{"dtype":"I8","shape":[0,4],"data_offsets":[48,48]},
 "x":{"dtype":"BF16","shape":[4,6],"data_offsets":[0,48]}}  \n """
    maker.weigh("any.safetensors", struct.pack("<Q", len(text)) + text)
    return maker


def weights_shards() -> ExactMaker:
    maker = some_tensors("weights_shards", ["w", "x", "y", "z"])
    for number, names in ((1, "zw"), (2, "yx")):
        header = header_of(maker, names, spaces=100)
        maker.weigh(f"model-0000{number}-of-00002.safetensors", header, lambda d: pinned_frame(d))
    places = {n: f"model-0000{1 + (n in 'xy')}-of-00002.safetensors" for n in "wxyz"}
    text = json.dumps({"metadata": {"total_size": 192}, "weight_map": places}, indent=2)
    maker.weigh("model.safetensors.index.json", text.encode() + b"\n" + b" " * 100, lambda d: pinned_frame(d))
    return maker


def weights_folders() -> ExactMaker:
    """Folders within folders; a folder that is none of the index; a variant's index that is no JSON."""
    names = ["1_Router/q/0_Dense/bias", "1_Router/scale", "2_Dense.other/bias", "2_Dense/linear.weight", "w"]
    maker = some_tensors("weights_folders", names)
    maker.index["folders"] = ["1_Router", "1_Router/q/0_Dense", "2_Dense"]
    maker.weigh("1_Router/model.safetensors", header_of(maker, ["scale"], folder="1_Router/"))
    maker.weigh("1_Router/q/0_Dense/a.safetensors", header_of(maker, ["bias"], folder="1_Router/q/0_Dense/"))
    maker.weigh("2_Dense/model.safetensors", header_of(maker, ["linear.weight"], folder="2_Dense/"))
    maker.weigh("unet/model.safetensors", header_of(maker, ["w", "2_Dense.other/bias"]))
    maker.weigh("model.safetensors.index.fp16.json", b"stored as it is")
    return maker


def layer_blocks() -> ExactMaker:
    """A header that is long enough for two digest blocks of the residual layer."""
    maker = some_tensors("layer_blocks", ["w"])
    maker.weigh("model.safetensors", header_of(maker, "w", spaces=2**20 + 4096))
    return maker


def chained(parts: Parts) -> None:
    parts.summary["base"]["pack"] = "0123456789abcdef" * 4


def exact_cases() -> list[Valid]:
    cases = [
        ("all-kinds", "X1 X2 X3 X4 X5 X6 D4 L1", "a little of everything", all_kinds()),
        ("numbers-bf16", "X4 X5", "the same with numbers in BF16", all_kinds("BF16")),
        ("nothing", "X1 X2 S2", "no tensors: only the arenas that must be there", ExactMaker()),
        ("worked", "X4", "the worked examples of sections 15.3 and 15.4", worked()),
        ("dtypes", "X4 X5", "all dtypes, of which all elements differ", dtypes(False)),
        ("dtypes-few", "X4 X5", "all dtypes, of which few elements differ", dtypes(True)),
        (
            "special-floats",
            "X4 X5",
            "zeros, subnormal numbers, infinities and NaNs, each predicted by each",
            special_floats(),
        ),
        ("far-integers", "X4 X5", "distances that wrap around", far_integers()),
        ("deltas", "X5", "predictions by base and delta, of each width and dtype", deltas()),
        ("subsets", "X5", "deltas of some rows and columns", subsets()),
        ("products", "X5", "products of integers for many components, tiny and zero ones", products()),
        ("bases", "X5 R2", "bases of another dtype", other_bases()),
        ("factors", "X4 X5", "factors of rows and of the delta", factors()),
        ("blocks", "X5 B1", "several blocks in a tensor", several_blocks()),
        ("codes", "X4", "each code, with integers that escape", all_codes()),
        ("positions", "X4", "positions and gaps", positions()),
        ("scales", "X4", "scales of rows and columns", scales()),
        ("chunks", "X2 X4", "several chunks, some empty", several_chunks()),
        ("frames", "X4 I1", "frames of the real compressor and one with a large window", frames()),
        ("ties", "X2 X3", "ties before and after what they name", ties()),
        ("shapes", "X2 T1 B2", "0, 1, 4 and 8 dimensions, splits, tensors without elements", shapes()),
        ("weights-single", "X6", "a weight file with a header as others write it", weights_single()),
        ("weights-shards", "X6 F2", "shards and their index", weights_shards()),
        ("weights-folders", "X6 F3", "weight files in folders", weights_folders()),
        ("layer-blocks", "D1 D4", "two digest blocks of the residual layer", layer_blocks()),
    ]
    valid = [Valid(f"exact-{name}", rules, what, maker) for name, rules, what, maker in cases]
    return [
        *valid,
        Valid("exact-chain", "S2", "a base that another pack decodes to", all_kinds(), chained),
        Valid("exact-optional", "C8", "an optional arena before the residual layer", all_kinds(), optional),
        Valid("exact-claim", "S4", "a claim beside a residual layer", ties(), claim()),
    ]

"""Small tables, one for each step of decoding a residual layer (section 15), as those of `stage_tables.py`."""

import math
import random
import struct

from builder import PRECISION, floats, nearest, noise, some_codes, unpack_floats
from exact_cases import by_context, specials
from layer_builder import (
    MANTISSA,
    Choose,
    Chunk,
    Elements,
    Piece,
    context,
    distance,
    join_elements,
    predict,
    product,
    size_of,
    split_elements,
    write_integers,
)
from stage_tables import Table, as_text


def rng_of(name: str) -> random.Random:
    return random.Random(f"dtscodec {name}")


def products() -> Table:
    rng = rng_of("products")
    cases: list[tuple[list[list[float]], list[list[float]]]] = [
        ([[1.0, -0.5]], [[-2.0, 1.0, 2.0]]),
        ([[0.0, -1.0]], [[0.0, 1.0]]),
        ([[0.0, -0.0]], [[3.0, 1.0]]),
        ([[1.0, 2.0**-26, 2.0**-27, 1 + 2.0**-23]], [[1.0, 1 / 3]]),  # k is 26: some are ties, some become 0
        ([[2.0**200, 3 * 2.0**170]], [[2.0**-300, -(2.0**-310)]]),
    ]
    for r in (2, 3, 4, 5, 16, 17):
        cases.append(([[rng.gauss(0, 1) for _ in range(2)] for _ in range(r)], [[rng.gauss(0, 9)] for _ in range(r)]))
    rows = []
    for u, v in cases:
        delta = product(u, v, len(u[0]), len(v[0]))
        texts = {key: [[as_text(x) for x in row] for row in m] for key, m in (("u", u), ("v", v), ("delta", delta))}
        rows.append({"components": len(u)} | texts)
    what = "Section 15.2: products of u s (a row for each component) and v that are the same in every decoder."
    return {"what": what, "rules": ["X5"], "cases": rows}


def predictions() -> Table:
    """One element each. Deltas are numbers of F16."""
    rng = rng_of("predictions")
    rows: list[Table] = []
    for dtype in PRECISION:
        own: list[tuple[str, bytes, float | None, float | None, float]]
        own = [(dtype, join_elements([x], dtype), None, None, 1.0) for x in specials(dtype)]
        own += [(dtype, join_elements([x], dtype), -0.0, None, 1.0) for x in specials(dtype)]
        own += [(dtype, join_elements([x], dtype), None, 0.25, 1.0) for x in specials(dtype)]
        other = "F32" if dtype != "F32" else "F64"
        hard = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 65520.0, 3.4e38, math.nan, -math.inf, 2.0**-134, -0.0]
        own += [(other, floats(other, (), [x]).data, None, None, 1.0) for x in hard]
        own += [(other, floats(other, (), [x]).data, None, -1.0, 1.0) for x in hard]
        for _ in range(12):
            base = noise(rng, dtype, 1).data
            d = unpack_floats(struct.pack("<H", some_codes(rng, 1, 16)[0]), "F16")[0]
            own.append((dtype, base, d, rng.choice([None, rng.gauss(0, 1)]), rng.choice([1.0, 0.0, rng.gauss(0, 1)])))
        rows += [predicted(dtype, *case) for case in own]
    what = (
        "Section 15.2: the prediction of an element from the base's, a delta (null: none), a factor of the row (null: "
        "none) and one of the delta. Little-endian."
    )
    return {"what": what, "rules": ["X5"], "cases": rows}


def predicted(dtype: str, base_dtype: str, base: bytes, d: float | None, a: float | None, t: float) -> Table:
    a, t = None if a is None else nearest(a, "F32"), nearest(t, "F32")
    bits = split_elements(base, dtype) if base_dtype == dtype else None
    piece = Piece(bits, unpack_floats(base, base_dtype), None if d is None else [d])
    p = join_elements(predict(piece, dtype, 1, None if a is None else [a], t), dtype)
    texts = {"delta": None if d is None else as_text(d), "a": None if a is None else as_text(a), "t": as_text(t)}
    return {"dtype": dtype, "base_dtype": base_dtype, "base_hex": base.hex()} | texts | {"prediction_hex": p.hex()}


def distances() -> Table:
    rows = [distance_row("BF16", 0xBF80, 0xBF7F)]
    for dtype in MANTISSA:
        own = specials(dtype)
        rows += [distance_row(dtype, p, i) for k, p in enumerate(own) for i in (p, own[k - 1], own[k - 7])]
    for dtype in ("BOOL", "U8", "F4", "F8_E8M0", "F8_E4M3FNUZ", "I16", "U32", "I64"):
        top = 2 ** (8 * size_of(dtype) - 1)
        some = [(0, 1), (1, 0), (top - 1, top), (top, top - 1), (0, top), (2 * top - 1, 0), (3, 2 * top - 1)]
        rows += [distance_row(dtype, p, i) for p, i in some]
    what = "Section 15.3: z of an element and its prediction, all as little-endian bytes; F4 and F6 by bytes."
    return {"what": what, "rules": ["X4"], "cases": rows}


def distance_row(dtype: str, p: int, i: int) -> Table:
    named = {"prediction": p, "element": i, "z": distance(i, p, dtype)}
    return {"dtype": dtype} | {f"{key}_hex": join_elements([x], dtype).hex() for key, x in named.items()}


def contexts() -> Table:
    rows = []
    for dtype in (*MANTISSA, "U8", "I64"):
        own = specials(dtype) if dtype in MANTISSA else [0, 255]
        for k, p in enumerate(own):
            offset, s, t = (-20, 300, 8191, -8191, 60)[k % 5], (0, 255, 7)[k % 3], (0, 1, 255, 90)[k % 4]
            rows.append(
                {"dtype": dtype, "prediction_hex": join_elements([p], dtype).hex(), "offset": offset, "row": s}
                | {"column": t, "context": context(p, dtype, offset, s, t)}
            )
    what = "Section 15.4: the context of an element by its prediction, the offset, and scales of its row and column."
    return {"what": what, "rules": ["X4"], "cases": rows}


def integers() -> Table:
    rng = rng_of("integers")
    rows = [integer_row(1, [1, 0, 3, 7, 2], [0] * 5, lambda c, z: 2)]
    for w in (1, 2, 4, 8):
        for code in [4 * fours + g for fours in range(2 * w) for g in range(3)]:
            most = 16 ** (code >> 2) * 2 ** (8 >> (code & 3))
            some = [rng.randrange(min(most, 2 ** (8 * w))) for _ in range(5)] + [2 ** (8 * w) - 1, 0]
            rows.append(integer_row(w, some, [0] * 7, by_context([code])))
    many = [rng.randrange(2 ** rng.randrange(1, 17)) for _ in range(40)]
    rows.append(integer_row(2, many, [rng.choice([0, 5, 77, 127]) for _ in many], lambda c, z: c % 3 + 4 * (c % 4)))
    what = "Section 15.4: unsigned integers of known contexts, little-endian, and how they are stored."
    return {"what": what, "rules": ["X4"], "cases": rows}


def integer_row(w: int, some: Elements, known: list[int], choose: Choose) -> Table:
    plain = b"".join(z.to_bytes(w, "little") for z in some).hex()
    return {"bytes": w, "contexts": known, "integers_hex": plain, "hex": write_integers(some, known, w, choose).hex()}


def chunks() -> Table:
    rng = rng_of("chunks")
    a = [0.5, -0.125, 0.0]
    some: list[tuple[str, str, Chunk, float]] = [
        ("an empty chunk", "BF16", Chunk(is_empty=True), 0.0),
        ("all elements", "BF16", Chunk(offset=262), 1.0),
        ("scales of rows", "F16", Chunk(offset=30, rows=[9, 0, 12]), 1.0),
        ("scales of columns", "F32", Chunk(offset=260, columns=[9, 8, 7, 0]), 1.0),
        ("scales of both", "F64", Chunk(offset=2040, rows=[0, 9, 3], columns=[9, 8, 0, 7]), 1.0),
        ("factors of rows", "F32", Chunk(offset=260, a=a), 1.0),
        ("a factor of the delta, which there is not", "F16", Chunk(offset=20, t=0.5), 1.0),
        ("positions", "I16", Chunk(positions=True), 0.3),
        ("positions and factors of rows", "BF16", Chunk(positions=True, offset=262, a=a), 0.3),
        ("no positions, but factors of rows", "BF16", Chunk(positions=True, a=a), 0.0),
        ("no positions", "U8", Chunk(positions=True), 0.0),
    ]
    rows = []
    for what, dtype, chunk, share in some:
        base = noise(rng, dtype, 3, 4).data
        piece = Piece(split_elements(base, dtype), unpack_floats(base, dtype) if dtype in PRECISION else None)
        p = predict(piece, dtype, 4, chunk.a, 1.0)
        coded = [
            (chunk.rows is None or chunk.rows[k // 4] > 0) and (chunk.columns is None or chunk.columns[k % 4] > 0)
            for k in range(12)
        ]
        bits = 8 * size_of(dtype)
        steps = [rng.randrange(-5, 6) if c and rng.random() < share else 0 for c in coded]
        elements = [(x + s) % 2**bits for x, s in zip(p, steps, strict=True)]
        rows.append(
            {"what": what, "dtype": dtype, "rows": 3, "columns": 4, "base_hex": base.hex()}
            | {"hex": chunk.write(elements, p, dtype, 4).hex(), "elements_hex": join_elements(elements, dtype).hex()}
        )
    what = (
        "Section 15.5: chunks of a tensor of one block, `same`, and their elements. Frames store their content plain."
    )
    return {"what": what, "rules": ["X4"], "cases": rows}


def exact_stage_tables() -> dict[str, Table]:
    return {
        "chunks": chunks(),
        "contexts": contexts(),
        "distances": distances(),
        "integers": integers(),
        "predictions": predictions(),
        "products": products(),
    }

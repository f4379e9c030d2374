"""Small tables, one for each step of decoding, that need no pack: integers, hex bytes, and floats as C99 hex text."""

import hashlib
import math
import random
import struct
from typing import Any

from builder import (
    FIXED,
    Place,
    base_digest,
    bitmap,
    code_value,
    convert,
    delta_of,
    floats,
    leaf,
    lowrank,
    noise,
    pack_codes,
    pack_float,
    some_codes,
    split_planes,
    unpack_floats,
    values,
)

Table = dict[str, Any]


def as_text(x: float) -> str:
    return "nan" if math.isnan(x) else x.hex()


def codes() -> Table:
    rng = random.Random("dtscodec codes")
    cases: list[Table] = [
        {"bits": 2, "codes": [3, 0, 2, 1]},
        {"bits": 2, "codes": [3, 2, 2, 1, 1]},
        {"bits": 4, "codes": [0, 15, 8]},
    ]
    cases += [{"bits": 8, "codes": [0, 127, 128, 255]}, {"bits": 16, "codes": [0, 1, 32767, 32768, 65535]}]
    cases += [
        {"bits": b, "codes": some_codes(rng, n, b)} for b in (2, 4, 8, 16) for n in (1, 7, 128 // b, 128 // b + 1)
    ]
    for case in cases:
        case["hex"] = pack_codes(case["codes"], case["bits"]).hex()
    return {"what": "Section 5.3: vectors of codes, with their padding.", "rules": ["E1"], "cases": cases}


def levels() -> Table:
    table = [-1.5, -0.25, -0.25, 2.0]
    some = {
        2: range(4),
        4: range(16),
        8: (0, 1, 127, 128, 255),
        16: (0, 1, 0x8000, 0x3C00, 0x3555, 0x7BFF, 0xFBFF, 0x03FF),
    }
    cases = [
        {"bits": bits, "code": code, "value": as_text(code_value(code, bits, table))}
        for bits, chosen in some.items()
        for code in chosen
    ]
    return {
        "what": "Section 5.3: the values of codes; those of 2 bits with the levels given here.",
        "rules": ["N2", "E2"],
        "levels": [as_text(x) for x in table],
        "fixed": [as_text(x) for x in FIXED],
        "cases": cases,
    }


def rounding() -> Table:
    hard = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1 / 3,
        math.inf,
        -math.inf,
        math.nan,
        65504.0,
        65519.99609375,
        65520.0,
        2.0**-14,
        2.0**-24,
    ]
    hard += [
        2.0**-25,
        2.0**-25 * (1 + 2.0**-20),
        3 * 2.0**-25,
        2.0**-126,
        2.0**-133,
        2.0**-134,
        3 * 2.0**-134,
        2.0**-149,
    ]
    hard += [
        1 + 2.0**-8,
        1 + 3 * 2.0**-8,
        1 + 2.0**-8 + 2.0**-23,
        1 + 2.0**-11,
        1 + 3 * 2.0**-11,
        1 + 2.0**-11 + 2.0**-23,
    ]
    hard += [
        2.0**128 - 2.0**119,
        2.0**128 - 2.0**119 - 2.0**104,
        2.0**127 * (2 - 2.0**-23),
        1023.75 * 2.0**-24,
        2047.5 * 2.0**-15,
    ]
    more = [
        1 + 2.0**-24,
        1 + 3 * 2.0**-24,
        1 + 2.0**-24 + 2.0**-52,
        1 + 2.0**-8 + 2.0**-40,
        1 + 2.0**-11 + 2.0**-40,
        2.0**-150,
    ]
    more += [2.0**128 - 2.0**103, 1e39, 5e-324, 2.0**-149 * 1.5, 1 + 2.0**-8 - 2.0**-40]
    cases = [rounded(x, "F32", y) for x in hard for y in ("BF16", "F16")]
    cases += [rounded(x, "F64", y) for x in hard + more for y in ("F32", "BF16", "F16")]
    wide = {
        "F16": (0x0001, 0x83FF, 0x0400, 0x3C01, 0x7BFF, 0xFC00, 0x8000),
        "BF16": (0x0001, 0x807F, 0x3F81, 0x7F7F, 0xFF80, 0x8000),
    }
    cases += [
        rounded(unpack_floats(struct.pack("<H", bits), x)[0], x, y)
        for x, chosen in wide.items()
        for bits in chosen
        for y in ("F32", "F64", "BF16" if x == "F16" else "F16")
    ]
    what = "Section 6.1: conversions; from F64 to 16 bits by way of F32. Little-endian; any NaN stands for any NaN."
    return {"what": what, "rules": ["L1", "R2"], "cases": cases}


def rounded(x: float, source: str, target: str) -> Table:
    y = convert(x, target)
    into, out = pack_float(x, source).hex(), pack_float(y, target).hex()
    return {"from": source, "to": target, "x": as_text(x), "x_hex": into, "y": as_text(y), "y_hex": out}


def bitmaps() -> Table:
    cases: list[tuple[int, list[int]]] = [
        (5, [0, 1, 2, 4]),
        (8, [0]),
        (8, [7]),
        (9, [8]),
        (10, [0, 2, 3, 9]),
        (17, [0, 15, 16]),
    ]
    rows = [{"bits": n, "set": chosen, "hex": bitmap(chosen, n).hex()} for n, chosen in cases]
    return {"what": "Sections 1 and 5.1: bitmaps, each padded to a byte.", "rules": ["W1"], "cases": rows}


def planes() -> Table:
    rng = random.Random("dtscodec planes")
    cases = [{"dtype": "BF16", "hex": "803f0040"}]
    cases += [{"dtype": d, "hex": noise(rng, d, 4).data.hex()} for d in ("F4", "U8", "I16", "F32", "F64", "C64")]
    width = {"BF16": 2, "I16": 2, "F32": 4, "F64": 8, "C64": 8}
    rows = [
        c | {"planes": [p.hex() for p in split_planes(bytes.fromhex(c["hex"]), width.get(c["dtype"], 1))]}
        for c in cases
    ]
    return {"what": "Section 5.4: byte planes of one chunk, before zstd.", "rules": ["P1"], "cases": rows}


def leaves() -> Table:
    rng = random.Random("dtscodec leaves")
    some = {"a": noise(rng, "F32", 2, 3), "b.weight": noise(rng, "BF16", 4), "scalar": floats("F32", (), [1.0])}
    some |= {
        "empty": noise(rng, "I8", 0, 3),
        "\u00e9": noise(rng, "F4", 2),
        "\U0001f600": noise(rng, "U8", 1),
        "\uffee": noise(rng, "U8", 1),
    }
    cases = [{"dtype": t.dtype, "shape": t.shape, "hex": t.data.hex(), "leaf": leaf(t).hex()} for t in some.values()]
    named = {name: leaf(t) for name, t in some.items()}
    sets: list[list[str]] = [["a"], ["b.weight", "a"], list(some), []]
    digests = [
        {"leaves": {n: named[n].hex() for n in s}, "digest": base_digest({n: named[n] for n in s})} for s in sets
    ]
    return {
        "what": "Section 7: leaves of tensors, digests of sets of them.",
        "rules": ["H2", "H3"],
        "cases": cases,
        "digests": digests,
    }


def json_texts() -> Table:
    accepted = [
        "{}",
        "[]",
        "null",
        "true",
        "0",
        "-1",
        '""',
        '{"a":1,"b":[2,null,true]}',
        f"{2**53 - 1}",
        f"-{2**53 - 1}",
    ]
    accepted += [
        '"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\/\x7f\u2028\u00e9"',
        '{"\U0001f600":1,"\uffee":2}',
        '{"":1,"A":2,"a":3}',
    ]
    accepted += ["[" * 8 + "]" * 8, '{"a":' * 4 + "[[[[1]]]]" + "}" * 4]
    refused = {
        "": "nothing", " {}": "space", "{} ": "space", '{"a": 1}': "space", "{}\n": "space",
        '{"b":1,"a":2}': "order of keys", '{"\uffee":2,"\U0001f600":1}': "order of keys is that of UTF-16",
        '{"a":1,"a":1}': "a key twice", "false": "false", "1.0": "fraction", "1e2": "exponent", "-0": "minus zero",
        "01": "leading zero", "+1": "plus", f"{2**53}": "large", f"-{2**53}": "large", "NaN": "not JSON",
        "Infinity": "not JSON", '"\\u0061"': "escape", '"\\/"': "escape", '"\\u000a"': "there is a shorter escape",
        '"\\u001F"': "capitals", '"\\u007f"': "escape", '"\\ud83d\\ude00"': "escape", '"\\ud800"': "half a pair",
        '"\x01"': "control character", "[1,]": "comma", "'a'": "quotes", "{}{}": "two values",
        "\ufeff{}": "byte order mark", "[" * 9 + "]" * 9: "nested 9 deep",
    }  # fmt: skip
    table = [{"hex": text.encode().hex(), "text": text, "why": why} for text, why in refused.items()]
    table += [{"hex": h, "why": "not UTF-8"} for h in ("22ff22", "22c08022", "22eda08022", "22f490808022")]
    good = [{"hex": text.encode().hex(), "text": text} for text in accepted]
    what = "Section 4.1: UTF-8 bytes that are canonical, and bytes that are not. An array or object in none is 1 deep."
    return {"what": what, "rules": ["I2", "S2", "C3"], "accepted": good, "refused": table}


def examples() -> Table:
    worked = lowrank([(2, [[[3, 1], [0, 2, 3]]])], [-1, -0.5, 0.5, 1, -2, -1, 1, 2, 0.5])
    two = lowrank([(4, [[[0, 9], [3, 8]]]), (16, [[[0x3C00, 0xB800], [0x3555, 0x4000]]])], [0.1])
    vector = lowrank(
        [(2, [[[0, 3], [1, 2]], [[2, 1], [3, 0]]])], [*(i / 8 for i in range(-8, 8)), 0.5, 3.0], vector=True
    )
    some = [("lowrank", worked, 2, 3), ("lowrank", two, 2, 2), ("lowrank with a table for each vector", vector, 2, 2)]
    some += [
        ("values", values(2, [3, 2, 2, 1], [-1, -1, 1.5, 3]), 1, 4),
        ("values", values(8, [1, 128, 255, 3], [0.1]), 2, 2),
    ]
    some += [("values with a scale for each row", values(4, [0, 9, 15, 8], [0.1, 3.0], per=True), 2, 2)]
    cases = []
    for what, b, rows, columns in some:
        numbers = [struct.unpack("<f", struct.pack("<f", x or 0.0))[0] for x in b.numbers]
        delta = delta_of(b, Place("F64", rows, columns, "F64", b""), numbers)
        stream = b"".join(pack_codes(c, bits) for bits, r in b.bands for record in r for c in record)
        case = {"what": what, "rows": rows, "columns": columns, "block": b.json(True), "codes_hex": stream.hex()}
        cases.append(
            case | {"numbers": [as_text(x) for x in numbers], "delta": [[as_text(x) for x in row] for row in delta]}
        )
    what = (
        "Section 6: the delta of a block in F64, from F32 numbers and the bytes of its codes. The norm is given as 0."
    )
    return {"what": what, "rules": ["L1"], "cases": cases}


def pack_ids() -> Table:
    head, rest = b"\x18" + bytes(7) + b"{}" + b" " * 22, bytes(range(256)) * 300
    rows = b"".join(hashlib.sha256(rest[i : i + 65536]).digest() for i in range(0, len(rest), 65536))
    case = {
        "first_bytes_hex": head.hex(),
        "block": 65536,
        "rows_hex": rows.hex(),
        "id": hashlib.sha256(head + rows).hexdigest(),
    }
    what = (
        "Section 3.4: the pack id from the first 8 + N bytes and the other rows, here of the bytes 0 to 255, 300 times."
    )
    return {"what": what, "rules": ["D1", "D2", "D3"], "cases": [case]}


def stage_tables() -> dict[str, Table]:
    return {
        "bitmaps": bitmaps(),
        "codes": codes(),
        "examples": examples(),
        "json": json_texts(),
        "leaves": leaves(),
        "levels": levels(),
        "pack-ids": pack_ids(),
        "planes": planes(),
        "rounding": rounding(),
    }

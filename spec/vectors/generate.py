"""The only writer of the vectors: `generate.py` writes them, `generate.py --check` says what differs from them.

Bytes are compared, as nothing here depends on a zstd version: frames are written by hand or pinned in `frames.json`,
and a pinned frame must inflate to the stream it stands for. Both ways `../decoder.py` runs on all vectors, and each
rule of `../dtscodec.md` must be named by a case."""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import builder
import numpy as np
from builder import Maker, T, safetensors
from exact_cases import exact_cases
from exact_invalid_cases import exact_invalid_cases
from exact_stage_tables import exact_stage_tables
from invalid_cases import Invalid, invalid_cases
from layer_builder import ExactMaker
from stage_tables import stage_tables
from valid_cases import Valid, valid_cases

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import checks  # noqa: E402
import decoder  # noqa: E402
import residual  # noqa: E402
import stages  # noqa: E402


def rule_sections() -> dict[str, str]:
    """Where the specification states each rule."""
    sections: dict[str, str] = {}
    section = ""
    for line in (HERE.parent / "dtscodec.md").read_text().splitlines():
        heading = re.match(r"##+ (\d+(\.\d+)?)", line)
        section = heading[1] if heading else section
        for rule in re.findall(r"\[([A-Z]\d+)\]", line) if section != "1" else []:
            sections.setdefault(rule, section)
    return sections


# --- what the files hold ---


def table_text(table: dict[str, Any]) -> bytes:
    """JSON with a line for each case."""
    lines = []
    for key, value in table.items():
        rows = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        text = json.dumps(value) if rows is None else "[\n  " + ",\n  ".join(json.dumps(r) for r in rows) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def file_facts(content: tuple[bytes, bytes] | str, changed: bool) -> dict[str, Any]:
    if isinstance(content, str):
        return {"carried": None, "sha256": content}
    return {"carried": not changed, "size": len(content[0]), "sha256": hashlib.sha256(content[0]).hexdigest()}


def content_facts(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def front_of(case: Valid) -> builder.Parts:
    """The same pack without its residual layer."""
    summary = {key: v for key, v in case.parts.summary.items() if key not in ("requires", "content")}
    return dataclasses.replace(case.parts, layer=None, residual=b"", summary=summary)


def weight_files(maker: ExactMaker) -> dict[str, bytes]:
    """Of each header the tensors in the order of their bytes."""
    result = {}
    for name, (head, _) in sorted(maker.weights.items()):
        folders = [f + "/" for f in maker.index.get("folders", []) if name.startswith(f + "/")]
        folder = max(folders, key=len, default="")
        own = json.loads(head[8:]) if name.endswith(".safetensors") else {}
        own.pop("__metadata__", None)
        placed = sorted(own, key=lambda key: own[key]["data_offsets"])
        result[name] = head + b"".join(maker.tensors[folder + key].data for key in placed)
    return result


def base_at(base: dict[str, T], base_files: dict[str, bytes] | None) -> Iterator[tuple[str, bytes]]:
    """A single file, or a directory where it has other files, too."""
    if base_files is None:
        yield from [("base.safetensors", safetensors(base))] if base else []
        return
    yield "base/model.safetensors", safetensors(base)
    yield from ((f"base/{name}", data) for name, data in base_files.items())


def valid_files(case: Valid) -> Iterator[tuple[str, bytes]]:
    facts: dict[str, Any] = {"rules": case.rules.split(), "what": case.what}
    index = case.parts.index
    facts |= {key: index[key] for key in ("metadata", "absent", "stem", "folders") if key in index}
    maker: Maker = case.maker
    files = {name: file_facts(f, name in maker.changed) for name, f in maker.files.items()}
    facts |= {"files": files} if files else {}
    if isinstance(maker, ExactMaker):
        facts["stripped"] = content_facts(front_of(case).file())
        facts["weights"] = {name: content_facts(data) for name, data in weight_files(maker).items()}
    yield "case.json", table_text(facts)
    yield "pack.safetensors", case.parts.file()
    exact = maker.tensors if isinstance(maker, ExactMaker) else None
    yield "expected.safetensors", safetensors(maker.expected if exact is None else exact, index.get("metadata"))
    if exact is not None:
        yield "front.safetensors", safetensors(maker.expected, index.get("metadata"))
    yield from base_at(maker.base, maker.base_files)


def invalid_files(case: Invalid, sections: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    rules = case.rules.split()
    facts = {"rules": rules, "reason": case.reason, "section": sections[rules[0]], "what": case.what}
    yield "case.json", table_text(facts)
    yield "pack.safetensors", case.data
    yield from base_at(case.base, case.base_files)


def all_files(valid: list[Valid], invalid: list[Invalid], sections: dict[str, str]) -> dict[str, bytes]:
    tables = stage_tables() | exact_stage_tables()
    files = {f"stages/{name}.json": table_text(table) for name, table in tables.items()}
    for v in valid:
        files |= {f"valid/{v.name}/{name}": data for name, data in valid_files(v)}
    for i in invalid:
        files |= {f"invalid/{i.name}/{name}": data for name, data in invalid_files(i, sections)}
    return files | {"frames.json": (json.dumps(builder.pins_used, indent=1, sort_keys=True) + "\n").encode()}


# --- what must be true of them ---


def as_base(base: dict[str, T]) -> dict[str, decoder.Tensor]:
    return decoder.read_safetensors(safetensors(base))


def comparable(t: decoder.Tensor | T | None) -> Any:
    """A tensor with all NaNs made one: which NaN a conversion or a sum gives is not specified."""
    if t is None or t.dtype not in stages.STORED:
        return t and tuple(t)
    values = stages.widen(np.frombuffer(t.data, stages.STORED[t.dtype]), t.dtype)
    data = np.where(np.isnan(values), np.array(np.nan, values.dtype), values).tobytes()
    return t.dtype, t.shape, data


def as_tuple(t: decoder.Tensor | T | None) -> Any:
    return t and tuple(t)


def check_valid(case: Valid) -> Iterator[str]:
    try:
        maker = case.maker
        data, base = case.parts.file(), as_base(maker.base)
        tensors, files = decoder.decode(data, base, base_files=maker.base_files, lossy=True)
        pack = decoder.Pack(data)
        if isinstance(maker, ExactMaker):
            yield from check_exact(case.name, maker, data, base)
            if decoder.strip(data) != front_of(case).file():
                yield f"valid/{case.name}: the front is something else"
    except decoder.Refused as error:
        yield f"valid/{case.name}: {error}"
        return
    index = case.parts.index
    if (pack.stem, pack.folders) != (index.get("stem", "model"), index.get("folders", [])):
        yield f"valid/{case.name}: stem or folders are something else"
    wanted = maker.expected
    for name in sorted(tensors.keys() | wanted.keys()):
        if comparable(tensors.get(name)) != comparable(wanted.get(name)):
            yield f"valid/{case.name}: tensor {name!r} decodes to something else"
    named = maker.base_files or {}
    expected = {name: named.get(name, f) if isinstance(f, str) else f[0] for name, f in maker.files.items()}
    for name in sorted(files.keys() | expected.keys()):
        if files.get(name) != expected.get(name):
            yield f"valid/{case.name}: file {name!r} is something else"


def check_exact(where: str, maker: ExactMaker, data: bytes, base: dict[str, decoder.Tensor]) -> Iterator[str]:
    """Bit for bit, NaNs as well."""
    tensors, _ = decoder.decode(data, base, base_files=maker.base_files)
    for name in sorted(tensors.keys() | maker.tensors.keys()):
        if as_tuple(tensors.get(name)) != as_tuple(maker.tensors.get(name)):
            yield f"valid/{where}: tensor {name!r} is not exact"
    if decoder.weight_files(data, base) != weight_files(maker):
        yield f"valid/{where}: weight files are something else"


def check_invalid(case: Invalid) -> Iterator[str]:
    try:
        decoder.decode(case.data, as_base(case.base), base_files=case.base_files)
        yield f"invalid/{case.name}: accepted"
    except decoder.Refused as error:
        if error.reason != case.reason or error.rule not in case.rules.split():
            yield f"invalid/{case.name}: should be {case.reason} by {case.rules}, is {error}"


def is_canonical(text: bytes) -> bool:
    try:
        checks.canonical_json(text, "index", "I2")
    except decoder.Refused:
        return False
    return True


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def numbers_of(texts: list[str]) -> Any:
    return np.array([float.fromhex(x) for x in texts])


def stage_json(table: dict[str, Any]) -> Iterator[bool]:
    yield from (is_canonical(unhex(case["hex"])) for case in table["accepted"])
    yield from (not is_canonical(unhex(case["hex"])) for case in table["refused"])


def stage_pack_ids(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        rows = unhex(case["rows_hex"])
        split = [rows[i : i + 32] for i in range(0, len(rows), 32)]
        yield stages.pack_id(unhex(case["first_bytes_hex"]), split).hex() == case["id"]


def stage_bitmaps(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        checks.check_bitmap(unhex(case["hex"]), case["bits"], len(case["set"]))
        yield stages.unpack_bitmap(unhex(case["hex"]), case["bits"]).tolist() == case["set"]


def stage_codes(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        data, n = np.frombuffer(unhex(case["hex"]), np.uint8)[None], len(case["codes"])
        codes = stages.unpack_codes(data, n, case["bits"])[0]
        yield codes.tolist() == case["codes"] and data.size == stages.vector_size(n, case["bits"])


def stage_levels(table: dict[str, Any]) -> Iterator[bool]:
    levels = numbers_of(table["levels"])
    yield stages.FIXED.tolist() == numbers_of(table["fixed"]).tolist()
    for case in table["cases"]:
        codes = np.array([[case["code"]]], "<u2" if case["bits"] == 16 else "u1")
        yield stages.code_values(codes, case["bits"], levels[None])[0, 0] == float.fromhex(case["value"])


def stage_planes(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        planes, data = [unhex(p) for p in case["planes"]], unhex(case["hex"])
        yield stages.join_planes(planes, case["dtype"]) == data
        yield stages.plane_sizes(len(data), case["dtype"]) == [len(p) for p in planes]


def stage_rounding(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        data = stages.convert(unhex(case["x_hex"]), case["from"], case["to"])
        ours, theirs = (decoder.Tensor(case["to"], (), x) for x in (data, unhex(case["y_hex"])))
        yield comparable(ours) == comparable(theirs)


def stage_examples(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        tensor = {"name": "t", "dtype": "F64", "shape": [case["rows"], case["columns"]], "blocks": [case["block"]]}
        checks.check_tensor(tensor, ["", ""])
        (b,) = stages.parse_tensor(tensor, ["", ""]).blocks
        ends = stages.place_streams([b])
        stream, numbers = unhex(case["codes_hex"]), numbers_of(case["numbers"])
        yield (len(stream), len(numbers)) == (ends["codes"], ends["numbers"])
        codes = [stream[at : at + stages.band_size(b, k)] for k, at in enumerate(b.codes_at)]
        delta = stages.block_delta(b, list(stages.block_numbers(b, numbers)), codes)
        yield delta.tolist() == [numbers_of(row).tolist() for row in case["delta"]]


def stage_leaves(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        yield stages.leaf(case["dtype"], case["shape"], unhex(case["hex"])).hex() == case["leaf"]
    for case in table["digests"]:
        leaves = {name: unhex(x) for name, x in case["leaves"].items()}
        yield stages.base_digest(leaves).hex() == case["digest"]


def stage_products(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        u, v, delta = (np.array([numbers_of(row) for row in case[key]]) for key in ("u", "v", "delta"))
        yield residual.exact_product(u, v).tobytes() == delta.tobytes()


def stage_predictions(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        dtype, source, base = case["dtype"], case["base_dtype"], unhex(case["base_hex"])
        d, a = (None if case[key] is None else numbers_of([case[key]]) for key in ("delta", "a"))
        bits = residual.as_elements(base, dtype, 1) if source == dtype else None
        own = residual.Source(1, bits, residual.as_numbers(base, source, 1), None if d is None else d.reshape(1, 1))
        p = residual.predict([own], dtype, 0, 1, a, float.fromhex(case["t"]))
        yield p.tobytes().hex() == case["prediction_hex"]


def stage_distances(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        w = residual.element_size(case["dtype"])
        z, p = (np.frombuffer(unhex(case[f"{key}_hex"]), f"<{x}{w}") for key, x in (("z", "u"), ("prediction", "i")))
        yield residual.from_distances(z, p, case["dtype"]).tobytes().hex() == case["element_hex"]


def stage_contexts(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        p = residual.as_elements(unhex(case["prediction_hex"]), case["dtype"], 1)
        s, t = (np.array([[case[key]]], np.uint8) for key in ("row", "column"))
        yield residual.contexts(p, case["dtype"], case["offset"], s, t).tolist() == [[case["context"]]]


def stage_integers(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        content, w = residual.Content(unhex(case["hex"])), case["bytes"]
        found = content.integers(np.array(case["contexts"]), w)
        content.end()
        yield found.astype(f"<u{w}").tobytes().hex() == case["integers_hex"]


def stage_chunks(table: dict[str, Any]) -> Iterator[bool]:
    for case in table["cases"]:
        dtype, base, shape = case["dtype"], unhex(case["base_hex"]), (case["rows"], case["columns"])
        own = residual.Source(shape[0], residual.as_elements(base, dtype, shape[1]))
        if dtype in stages.STORED:
            own.numbers = residual.as_numbers(base, dtype, shape[1])
        predicted = partial(residual.predict, [own], dtype, 0, shape[0])
        found = residual.decode_chunk(unhex(case["hex"]), predicted, shape, dtype)
        yield found.tobytes().hex() == case["elements_hex"]


STAGES = {
    "json": stage_json,
    "pack-ids": stage_pack_ids,
    "bitmaps": stage_bitmaps,
    "codes": stage_codes,
    "levels": stage_levels,
    "planes": stage_planes,
    "rounding": stage_rounding,
    "examples": stage_examples,
    "leaves": stage_leaves,
    "products": stage_products,
    "predictions": stage_predictions,
    "distances": stage_distances,
    "contexts": stage_contexts,
    "integers": stage_integers,
    "chunks": stage_chunks,
}


def check_stages() -> Iterator[str]:
    """Each table against the function of the decoder that it describes."""
    tables = stage_tables() | exact_stage_tables()
    yield from (f"stages/{name}.json: nothing checks it" for name in sorted(tables.keys() - STAGES.keys()))
    for name, holds in STAGES.items():
        wrong = [i for i, good in enumerate(holds(tables[name])) if not good]
        if wrong:
            yield f"stages/{name}.json: comparisons {wrong} fail"


def check_rules(valid: list[Valid], invalid: list[Invalid], sections: dict[str, str]) -> Iterator[str]:
    named = set(" ".join([case.rules for case in valid] + [case.rules for case in invalid]).split())
    yield from (f"no case names rule {rule}" for rule in sorted(sections.keys() - named))
    yield from (f"there is no rule {rule}" for rule in sorted(named - sections.keys()))


def check_pins() -> Iterator[str]:
    """A pinned frame holds what the compressor was given when it was first written."""
    import zstandard

    for key, (data, frame, prefix) in builder.pins_seen.items():
        raw = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        if zstandard.ZstdDecompressor(dict_data=raw).decompress(frame) != data:
            yield f"frames.json: {key}"


def check_files(files: dict[str, bytes]) -> Iterator[str]:
    there = {p.relative_to(HERE).as_posix() for d in ("stages", "valid", "invalid") for p in (HERE / d).rglob("*.*")}
    there = {name for name in there if (HERE / name).is_file()} | {"frames.json"}
    yield from (f"{name}: not made here" for name in sorted(there - files.keys()))
    for name, data in files.items():
        path = HERE / name
        if not path.exists() or path.read_bytes() != data:
            yield f"{name}: {'differs' if path.exists() else 'is missing'}"


def write(files: dict[str, bytes]) -> None:
    for name in [d for d in check_files(files) if d.endswith(": not made here")]:
        (HERE / name.split(":")[0]).unlink()
    for name, data in files.items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def main() -> None:
    sections, valid = rule_sections(), valid_cases() + exact_cases()
    sources = {case.name: case for case in valid}
    invalid = invalid_cases(sources) + exact_invalid_cases(sources)
    files = all_files(valid, invalid, sections)
    wrong = [*check_rules(valid, invalid, sections), *check_stages(), *check_pins()]
    for v in valid:
        wrong += check_valid(v)
    for i in invalid:
        wrong += check_invalid(i)
    if "--check" in sys.argv[1:]:
        wrong += check_files(files)
    elif not wrong:
        write(files)
    size = sum(map(len, files.values()))
    print(f"{len(valid)} valid, {len(invalid)} invalid, {len(files)} files, {size} bytes", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

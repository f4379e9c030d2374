"""The only writer of the vectors: `generate.py` writes them, `generate.py --check` says what differs from them.

Bytes are compared, as nothing here depends on a zstd version: frames are written by hand or pinned in `frames.json`,
and a pinned frame must inflate to the stream it stands for. Both ways `../decoder.py` runs on all vectors, and each
rule of `../dtscodec.md` must be named by a case."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builder
from builder import T, safetensors
from invalid_cases import Invalid, invalid_cases
from stage_tables import stage_tables
from valid_cases import Valid, valid_cases

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import decoder  # noqa: E402


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


def file_facts(content: tuple[bytes, bytes] | str) -> dict[str, Any]:
    if isinstance(content, str):
        return {"carried": None, "sha256": content}
    return {"carried": True, "size": len(content[0]), "sha256": hashlib.sha256(content[0]).hexdigest()}


def valid_files(case: Valid) -> Iterator[tuple[str, bytes]]:
    facts: dict[str, Any] = {"rules": case.rules.split(), "what": case.what}
    index = case.parts.index
    facts |= {key: index[key] for key in ("metadata", "absent") if key in index}
    facts |= {"files": {name: file_facts(f) for name, f in case.maker.files.items()}} if case.maker.files else {}
    yield "case.json", table_text(facts)
    yield "pack.safetensors", case.parts.file()
    yield "expected.safetensors", safetensors(case.maker.expected, index.get("metadata"))
    if case.maker.base:
        yield "base.safetensors", safetensors(case.maker.base)


def invalid_files(case: Invalid, sections: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    rules = case.rules.split()
    facts = {"rules": rules, "reason": case.reason, "section": sections[rules[0]], "what": case.what}
    yield "case.json", table_text(facts)
    yield "pack.safetensors", case.data
    if case.base:
        yield "base.safetensors", safetensors(case.base)


def all_files(valid: list[Valid], invalid: list[Invalid], sections: dict[str, str]) -> dict[str, bytes]:
    files = {f"stages/{name}.json": table_text(table) for name, table in stage_tables().items()}
    for v in valid:
        files |= {f"valid/{v.name}/{name}": data for name, data in valid_files(v)}
    for i in invalid:
        files |= {f"invalid/{i.name}/{name}": data for name, data in invalid_files(i, sections)}
    return files | {"frames.json": (json.dumps(builder.pins_used, indent=1, sort_keys=True) + "\n").encode()}


# --- what must be true of them ---


def as_base(base: dict[str, T]) -> dict[str, decoder.Tensor]:
    return decoder.read_safetensors(safetensors(base))


def check_valid(case: Valid) -> Iterator[str]:
    try:
        tensors, files = decoder.decode(case.parts.file(), as_base(case.maker.base))
    except decoder.Refused as error:
        yield f"valid/{case.name}: {error}"
        return
    wanted = {name: tuple(t) for name, t in case.maker.expected.items()}
    wrong = [n for n in tensors.keys() | wanted.keys() if tuple(tensors.get(n, ())) != wanted.get(n)]
    expected = {name: f if isinstance(f, str) else f[0] for name, f in case.maker.files.items()}
    if wrong or files != expected:
        yield f"valid/{case.name}: decodes to something else: {wrong}"


def check_invalid(case: Invalid) -> Iterator[str]:
    try:
        decoder.decode(case.data, as_base(case.base))
        yield f"invalid/{case.name}: accepted"
    except decoder.Refused as error:
        if error.reason != case.reason:
            yield f"invalid/{case.name}: should be {case.reason}, is {error}"


def check_stages() -> Iterator[str]:
    tables = stage_tables()
    for case in tables["json"]["accepted"] + tables["json"]["refused"]:
        try:
            decoder.canonical(bytes.fromhex(case["hex"]), "index")
            good = "why" not in case
        except decoder.Refused:
            good = "why" in case
        if not good:
            yield f"stages/json.json: {case}"
    for case in tables["rounding"]["cases"]:
        if decoder.convert(bytes.fromhex(case["x_hex"]), case["from"], case["to"]).hex() != case["y_hex"]:
            yield f"stages/rounding.json: {case}"
    for case in tables["leaves"]["cases"]:
        if decoder.leaf(decoder.Tensor(case["dtype"], case["shape"], bytes.fromhex(case["hex"]))).hex() != case["leaf"]:
            yield f"stages/leaves.json: {case}"


def check_rules(valid: list[Valid], invalid: list[Invalid], sections: dict[str, str]) -> Iterator[str]:
    named = set(" ".join([case.rules for case in valid] + [case.rules for case in invalid]).split())
    yield from (f"no case names rule {rule}" for rule in sorted(sections.keys() - named))
    yield from (f"there is no rule {rule}" for rule in sorted(named - sections.keys()))


def check_pins() -> Iterator[str]:
    """A pinned frame holds what the compressor was given when it was first written."""
    import zstandard

    for key, (data, frame) in builder.pins_seen.items():
        if zstandard.ZstdDecompressor().decompress(frame) != data:
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
    sections, valid = rule_sections(), valid_cases()
    invalid = invalid_cases({case.name: case for case in valid})
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

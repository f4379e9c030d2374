"""``dtscodec info``: what a pack, or a directory of packs, holds. Imports no torch."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console
from dtscodec.storage.paths import is_remote

if TYPE_CHECKING:
    from dtscodec.packs.byte_counts import TensorSize
    from dtscodec.packs.pack_info import DirectoryInfo, PackInfo


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = "Show what a pack holds, and where its bytes go; of a directory its tasks and their base."
    parser.add_argument("pack", metavar="PACK_OR_DIR")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.packs.pack_info import directory_info, info

    if _is_directory_of_packs(options.pack):
        _print_directory(directory_info(options.pack), options.json)
        return
    held = info(options.pack)
    facts = _facts(held)
    if options.json:
        facts["tensors"] = [_tensor_facts(tensor) for tensor in held.tensors] if options.tensors else len(held.tensors)
        console.print_json(facts)
        return
    console.print_lines(*_text(facts), *(["", *_tensor_table(held.tensors)] if options.tensors else []))


def _facts(held: "PackInfo") -> dict[str, Any]:
    """Return everything but the single tensors, as JSON holds it."""
    return {
        "path": held.path,
        "id": held.pack_id,
        "task": held.task,
        "encoder": held.encoder,
        "size": held.size,
        "parameters": held.parameters,
        "fine_tune_size": held.fine_tune_size,
        "base": None if held.base is None else asdict(held.base),
        "kinds": {
            kind: {"tensors": count, "parameters": parameters, "size": size}
            for kind, (count, parameters, size) in held.kinds.items()
        },
        "files": [asdict(entry) for entry in held.files],
        "bitmaps": held.bitmaps,
        "overhead": held.overhead,
        "arenas": dict(held.arenas),
        "prefix": list(held.prefix),
        "absent": list(held.absent),
        "without_base": list(held.without_base),
        "metadata": dict(held.metadata),
        "tensors": len(held.tensors),
    }


def _tensor_facts(tensor: "TensorSize") -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.spec.dtype,
        "shape": list(tensor.spec.shape),
        "kind": tensor.kind,
        "ranks": list(tensor.ranks),
        "widths": list(tensor.bits),
        "without_base": tensor.without_base,
        "size": tensor.size,
    }


def _text(facts: dict[str, Any]) -> list[str]:
    size, whole = facts["size"], facts["fine_tune_size"]
    bits = 8 * size / max(1, facts["parameters"])
    lines = [
        f"pack        {facts['path']}",
        f"task        {facts['task'] or '-'}",
        f"id          {facts['id']}",
        f"encoder     {facts['encoder'] or '-'}",
        f"base        {facts['base']['digest'] if facts['base'] else 'none is needed'}",
        f"size        {console.size(size)} of {console.size(whole)} "
        f"({console.percent(size, whole)}), {bits:.3f} bits/parameter",
        f"tensors     {facts['tensors']}, {facts['parameters']:,} parameters",
        "",
    ]
    rows = [
        [
            kind,
            str(total["tensors"]),
            f"{total['parameters']:,}",
            f"{total['size']:,}",
            console.percent(total["size"], size),
        ]
        for kind, total in facts["kinds"].items()
    ]
    carried = sum(file.get("stored", 0) for file in facts["files"])
    rows.append(["files", str(len(facts["files"])), "-", f"{carried:,}", console.percent(carried, size)])
    for shared in ("bitmaps", "overhead"):
        rows.append([shared, "-", "-", f"{facts[shared]:,}", console.percent(facts[shared], size)])
    rows.append(["all", str(facts["tensors"]), f"{facts['parameters']:,}", f"{size:,}", "100.00 %"])
    lines += console.table(["kind", "count", "parameters", "bytes", "share"], rows)
    for file in facts["files"]:
        where = f"carried, {file['stored']:,} of {file['size']:,} bytes" if "stored" in file else "as beside the base"
        lines.append(f"file        {file['name']}: {where}")
    lines += [f"new         {name}: not in the base; coded, not exact" for name in facts["without_base"]]
    lines += [f"only in the base, so not decoded: {name}" for name in facts["absent"]]
    return lines


def _tensor_table(tensors: "Sequence[TensorSize]") -> list[str]:
    rows = []
    for tensor in tensors:
        shape = "x".join(map(str, tensor.spec.shape)) or "scalar"
        ranks = "-" if not tensor.ranks else str(tensor.ranks[0]) if len(set(tensor.ranks)) == 1 else "various"
        bits = ",".join(map(str, tensor.bits)) or "-"
        share = f"{8 * tensor.size / max(1, tensor.spec.elements):.3f}"
        rows.append([tensor.name, tensor.kind, tensor.spec.dtype, shape, ranks, bits, f"{tensor.size:,}", share])
    head = ["tensor", "kind", "dtype", "shape", "rank", "width", "bytes", "bits/param"]
    return console.table(head, rows, left=3)


def _is_directory_of_packs(name: str) -> bool:
    """Return whether a name is that of a local directory with an index of packs."""
    from dtscodec.packs.directory_index import read_directory_index

    return not is_remote(name) and Path(name).is_dir() and read_directory_index(Path(name)) is not None


def _print_directory(held: "DirectoryInfo", as_json: bool) -> None:
    """Print what a directory holds."""
    facts = {
        "path": str(held.path),
        "base": None if held.base is None else asdict(held.base),
        "packs": {
            task: {"file": pack.file, "size": pack.size, "id": pack.id, "figures": dict(pack.figures)}
            for task, pack in held.packs.items()
        },
        "size": held.size,
    }
    if as_json:
        console.print_json(facts)
    else:
        console.print_lines(*_directory_text(facts))


def _directory_text(facts: dict[str, Any]) -> list[str]:
    from dtscodec.packs.directory_index import DISTANCES

    packs, base = facts["packs"], facts["base"]
    known = {key: text for key, text in DISTANCES.items() if any(key in pack["figures"] for pack in packs.values())}
    rows = [
        [task, pack["file"], f"{pack['size']:,}", *(_norm(pack["figures"].get(key)) for key in known), pack["id"][:16]]
        for task, pack in packs.items()
    ]
    far = [f"from {text}" for text in known.values()]
    lines = [f"directory   {facts['path']}", f"base        {_base_text(base)}"]
    lines += [f"packs       {len(packs)}, {console.size(facts['size'])}", ""]
    if known:
        lines.append("norm of each fine-tune's difference vector from candidate bases; the smaller, the less to code:")
    return lines + console.table(["task", "file", "bytes", *far, "id"], rows, left=2)


def _base_text(base: dict[str, Any] | None) -> str:
    if base is None:
        return "is not in the directory"
    if base["stored"] is None:
        return f"{base['name']}" if base["name"].startswith("hf://") else f"{base['name']}, which is not there"
    stored, size = console.size(base["stored"]), console.size(base["size"])
    share = console.percent(base["stored"], base["size"])
    return f"{base['name']}, {stored} for {size} of tensors ({share})" + (
        f", {base['made_by']}" if base["made_by"] else ""
    )


def _norm(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

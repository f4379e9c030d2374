"""``dtscodec info``: the content of a pack or of a directory of packs. Imports no torch."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console
from dtscodec.format.weight_files import DEFAULT_STEM
from dtscodec.packs.claims import claim_facts, claim_words
from dtscodec.storage.paths import is_remote

if TYPE_CHECKING:
    from dtscodec.format.claim import Claim
    from dtscodec.packs.byte_counts import TensorSize
    from dtscodec.packs.pack_info import DirectoryInfo, PackInfo


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Show the tensors and files of a pack and how many bytes each kind takes, or the tasks of a directory and "
        "their base."
    )
    parser.add_argument("pack", metavar="PACK_OR_DIR", help="a pack, or a directory of packs")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.packs.pack_info import directory_info, info

    if _is_directory_of_packs(options.pack):
        _print_directory(directory_info(options.pack), options.json)
        return
    content = info(options.pack)
    document = _document(content)
    if options.json:
        document["tensors"] = (
            [_tensor_document(tensor) for tensor in content.tensors] if options.tensors else len(content.tensors)
        )
        console.print_json(document)
        return
    console.print_lines(
        *_text(document, content.claim), *(["", *_tensor_table(content.tensors)] if options.tensors else [])
    )


def _document(content: "PackInfo") -> dict[str, Any]:
    """Return all but the list of tensors, as a JSON document."""
    return {
        "path": content.path,
        "id": content.pack_id,
        "task": content.task,
        "encoder": content.encoder,
        "claim": None if content.claim is None else claim_facts(content.claim),
        "size": content.size,
        "parameters": content.parameters,
        "fine_tune_size": content.fine_tune_size,
        "base": None if content.base is None else asdict(content.base),
        "kinds": {
            kind: {"tensors": count, "parameters": parameters, "size": size}
            for kind, (count, parameters, size) in content.kinds.items()
        },
        "files": [asdict(entry) for entry in content.files],
        "bitmaps": content.bitmaps,
        "overhead": content.overhead,
        "residual": content.residual,
        "content": content.content,
        "arenas": dict(content.arenas),
        "prefix": list(content.prefix),
        "absent": list(content.absent),
        "without_base": list(content.without_base),
        "metadata": dict(content.metadata),
        "stem": content.stem,
        "folders": list(content.folders),
        "tensors": len(content.tensors),
    }


def _tensor_document(tensor: "TensorSize") -> dict[str, Any]:
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


def _text(document: dict[str, Any], claim: "Claim | None") -> list[str]:
    size, whole = document["size"], document["fine_tune_size"]
    bits = 8 * size / max(1, document["parameters"])
    lines = [
        f"pack        {document['path']}",
        f"task        {document['task'] or '-'}",
        f"id          {document['id']}",
        f"encoder     {document['encoder'] or '-'}",
        *([f"claim       {claim_words(claim)} (the author's claim)"] if claim else []),
        f"base        {_base_words(document['base'])}",
        f"size        {console.size(size)} of {console.size(whole)} "
        f"({console.percent(size, whole)}), {bits:.3f} bits/parameter",
        f"tensors     {document['tensors']}, {document['parameters']:,} parameters",
        *_layer_lines(document),
        *_layout_lines(document),
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
        for kind, total in document["kinds"].items()
    ]
    # What is not part of a tensor: files, then bytes that all tensors share.
    stored = sum(file.get("stored", 0) for file in document["files"])
    rows.append(["files", str(len(document["files"])), "-", f"{stored:,}", console.percent(stored, size)])
    for shared in ("bitmaps", "overhead", *(["residual"] if document["content"] else [])):
        rows.append([shared, "-", "-", f"{document[shared]:,}", console.percent(document[shared], size)])
    rows.append(["all", str(document["tensors"]), f"{document['parameters']:,}", f"{size:,}", "100.00 %"])
    lines += console.table(["kind", "count", "parameters", "bytes", "share"], rows)
    for file in document["files"]:
        lines.append(f"file        {file['name']}: {_file_words(file)}")
    lines += [f"new         {name}: not in the base; coded, not exact" for name in document["without_base"]]
    lines += [f"only in the base, so not decoded: {name}" for name in document["absent"]]
    return lines


def _file_words(file: dict[str, Any]) -> str:
    if "stored" not in file:
        return "not stored, as it lies beside the base"
    how = "stored as a change of the base's" if "digest" in file else "stored"
    return f"{how}, {file['stored']:,} of {file['size']:,} bytes"


def _layer_lines(document: dict[str, Any]) -> list[str]:
    """Return the lines on the two layers of an exact pack; none for a pack without a residual layer."""
    if document["content"] is None:
        return []
    size, residual, whole = document["size"], document["residual"], document["fine_tune_size"]
    parts = [
        ("front       ", size - residual, "approximates the fine-tune; decode --lossy reads it alone"),
        ("residual    ", residual, f"makes it the fine-tune bit for bit, of content {document['content'][:16]}"),
    ]
    return [f"{name}{console.size(part)} ({console.percent(part, whole)}): {what}" for name, part, what in parts]


def _layout_lines(document: dict[str, Any]) -> list[str]:
    """Return the lines on the names of weight files in a restored directory; none for the default names."""
    stem, folders = document["stem"], document["folders"]
    lines = [f"stem        {stem}"] if stem != DEFAULT_STEM else []
    return lines + ([f"folders     {', '.join(folders)}"] if folders else [])


def _base_words(base: dict[str, Any] | None) -> str:
    if base is None:
        return "none needed"
    how = f", of a quantized base dequantized to {base['dequantized']}" if base["dequantized"] else ""
    return f"{base['digest']}{how}"


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
    """Return whether a path is that of a local directory with an index of packs."""
    from dtscodec.packs.directory_index import read_directory_index

    return not is_remote(name) and Path(name).is_dir() and read_directory_index(Path(name)) is not None


def _print_directory(content: "DirectoryInfo", as_json: bool) -> None:
    """Print the tasks of a directory and their base."""
    document = {
        "path": str(content.path),
        "base": None if content.base is None else asdict(content.base),
        "packs": {
            task: {"file": pack.file, "size": pack.size, "id": pack.id, "figures": dict(pack.figures)}
            for task, pack in content.packs.items()
        },
        "size": content.size,
    }
    if as_json:
        console.print_json(document)
    else:
        console.print_lines(*_directory_text(document))


def _directory_text(document: dict[str, Any]) -> list[str]:
    from dtscodec.packs.directory_index import DISTANCES

    packs, base = document["packs"], document["base"]
    known = {key: text for key, text in DISTANCES.items() if any(key in pack["figures"] for pack in packs.values())}
    rows = [
        [task, pack["file"], f"{pack['size']:,}", *(_norm(pack["figures"].get(key)) for key in known), pack["id"][:16]]
        for task, pack in packs.items()
    ]
    distances = [f"from {text}" for text in known.values()]
    lines = [f"directory   {document['path']}", f"base        {_base_text(base)}"]
    lines += [f"packs       {len(packs)}, {console.size(document['size'])}", ""]
    if known:
        lines.append("norm of each fine-tune's delta from three bases; the smaller, the less there is to code:")
    return lines + console.table(["task", "file", "bytes", *distances, "id"], rows, left=2)


def _base_text(base: dict[str, Any] | None) -> str:
    if base is None:
        return "not in the directory"
    if base["stored"] is None:
        return f"{base['name']}" if base["name"].startswith("hf://") else f"{base['name']} (missing)"
    stored, size = console.size(base["stored"]), console.size(base["size"])
    share = console.percent(base["stored"], base["size"])
    return f"{base['name']}, {stored} for {size} of tensors ({share})" + (
        f", {base['made_by']}" if base["made_by"] else ""
    )


def _norm(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

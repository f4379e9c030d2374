"""``dtscodec info DIR``: the tasks of a directory, their base, and how far they are from candidates for it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import console
from dtscodec.storage.paths import is_remote

if TYPE_CHECKING:
    from dtscodec.packs.pack_info import DirectoryInfo


def is_directory_of_packs(name: str) -> bool:
    """Return whether a name is that of a local directory with an index of packs."""
    from dtscodec.packs.directory_index import read_directory_index

    return not is_remote(name) and Path(name).is_dir() and read_directory_index(Path(name)) is not None


def show(held: "DirectoryInfo", as_json: bool) -> None:
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
        console.facts(facts)
    else:
        console.lines(*_text(facts))


def _text(facts: dict[str, Any]) -> list[str]:
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

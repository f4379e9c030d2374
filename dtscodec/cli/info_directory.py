"""``dtscodec info DIR``: the tasks of a directory, their base, and how far they are from candidates for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import console
from dtscodec.storage.paths import is_remote

if TYPE_CHECKING:
    from dtscodec.packs.directory_index import Folder


def folder_at(name: str) -> "Folder | None":
    """The index of a local directory of packs, if it is one."""
    from dtscodec.packs.directory_index import read_folder

    return read_folder(Path(name)) if not is_remote(name) and Path(name).is_dir() else None


def show_folder(directory: Path, folder: "Folder", as_json: bool) -> None:
    """Print what a directory holds."""
    facts = describe(directory, folder)
    if as_json:
        console.facts(facts)
    else:
        console.lines(*_text(facts))


def describe(directory: Path, folder: "Folder") -> dict[str, Any]:
    """All of it, as JSON holds it."""
    packs = {
        task: {"file": pack.file, "size": pack.size, "id": pack.id, "figures": dict(pack.figures)}
        for task, pack in sorted(folder.packs.items())
    }
    base = None if folder.base is None else _base(directory, folder.base)
    return {"path": str(directory), "base": base, "packs": packs, "size": sum(pack["size"] for pack in packs.values())}


def _base(directory: Path, name: str) -> dict[str, Any]:
    """What can be told of the base without fetching it."""
    from dtscodec.checkpoints.base import MADE_BY
    from dtscodec.checkpoints.open import open_checkpoint

    if name.startswith("hf://") or not (directory / name).exists():
        return {"name": name, "stored": None, "size": None, "made_by": None}
    with open_checkpoint(directory / name) as base:
        files = [base.directory / file for file in base.weight_files] if base.directory else []
        return {
            "name": name,
            "stored": sum(file.stat().st_size for file in files),
            "size": sum(spec.nbytes for spec in base.specs.values()),
            "made_by": base.metadata.get(MADE_BY),
        }


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

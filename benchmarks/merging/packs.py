"""Packs as files, shared by the parts."""

from pathlib import Path

import dtscodec
from benchmarks.merging.bench import MergingBench, State
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.targets import Size

PRETRAINED = "pre-trained"


def pack(bench: MergingBench, task: str, name: str, base: Path, size: str, config: EncodeConfig | None = None) -> Path:
    """A pack of a fine-tune against a base, of a size; made where it is missing.

    Parameters
    ----------
    name
        For the file: of the base, and of what is special about the pack.
    config
        Other settings than the size.
    """
    path = bench.folder / "packs" / f"{name.replace(' ', '-')}-{size}" / f"{task}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen = config or EncodeConfig(target=Size.parse(size))
        dtscodec.encode(base, bench.directory(task), path, chosen, task=task)
    return path


def decoded(path: Path, base: Path) -> tuple[State, dict[str, float]]:
    """Return the decoded tensors of a pack, and its bytes."""
    with dtscodec.decode(path, base) as state:
        return dict(state), {"bytes": path.stat().st_size}


def plain(bench: MergingBench, task: str, size: str) -> Path:
    """The pack against the pre-trained base."""
    return pack(bench, task, PRETRAINED, bench.base, size)

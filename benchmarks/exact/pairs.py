"""Pairs of a base and a fine-tune: the demo's in two dtypes, and those of the language model."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.demo.finetune import Settings, finetune
from benchmarks.demo.finetune import base_directory as demo_base
from benchmarks.exact.pair import Pair
from benchmarks.language.base import base_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.tasks import Task

WEIGHTS = "model.safetensors"
DEMO = {"demo fp32": torch.float32, "demo bf16": torch.bfloat16}
"""Names of the demo's pairs, and their dtypes."""


def demo_pairs(cache: Path, folder: Path) -> Iterator[Pair]:
    """Yield the demo's pair in fp32 and in bf16.

    Parameters
    ----------
    cache : Path
        As of `benchmarks.demo`.
    folder : Path
        Where casts are kept.
    """
    settings = Settings()
    base, fine = demo_base(), cache / settings.key / settings.domain
    finetune(base, fine, settings, cache)
    for name, dtype in DEMO.items():
        files = [_cast(path / WEIGHTS, dtype, folder / kind) for path, kind in ((base, "base"), (fine, settings.key))]
        yield Pair.of(name, files[0], files[1], folder)


def _cast(path: Path, dtype: torch.dtype, folder: Path) -> Path:
    """Return a file of the weights in a dtype: the file itself if it has this dtype."""
    state = load_file(path)
    if all(tensor.dtype == dtype for tensor in state.values() if tensor.is_floating_point()):
        return path
    out = folder / f"{str(dtype).removeprefix('torch.')}.safetensors"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        with tempfile.TemporaryDirectory(dir=folder) as staging:
            save_file(cast, Path(staging, out.name), {"format": "pt"})
            Path(staging, out.name).rename(out)
    return out


def language_pairs(tasks: Sequence[Task], cache: Path, folder: Path) -> Iterator[Pair]:
    """Yield the base of `benchmarks.language` and each of some fine-tunes.

    Parameters
    ----------
    tasks : sequence of Task
        The fine-tunes.
    cache : Path
        As of `benchmarks.language`.
    folder : Path
        Where laid-out bases are kept.
    """
    for task in tasks:
        yield Pair.of(task.name, base_directory(cache) / WEIGHTS, fine_tune(task, cache) / WEIGHTS, folder)

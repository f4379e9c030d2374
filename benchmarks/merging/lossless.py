"""Part `lossless`: a merged base in our format, against zipnn and zstd without byte planes.

zipnn is no requirement: ``pip install --no-deps --target DIR zipnn==0.5.3`` (it is compiled then), and
``PYTHONPATH=DIR``. Without it its rows are left out, and the table says so.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.merging.bench import FOUR, MergingBench
from benchmarks.merging.merges import AVERAGE, merged
from benchmarks.merging.rows import Row
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.format.primitives.zstd_frames import RAW_LEVEL, compress, decompress
from dtscodec.merging.family_base import write_base_pack

PART, REPEATS = "lossless", 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ZIPNN = "zipnn"


@dataclass(frozen=True, slots=True)
class Coder:
    """A way to compress: there, back, the bytes of what came out, and whether what came back is the same."""

    pack: Callable[[], Any]
    unpack: Callable[[Any], Any]
    size: Callable[[Any], int]
    same: Callable[[Any], bool]


def run(bench: MergingBench) -> None:
    """Both dtypes, by every way that is there; what comes back is compared."""
    for dtype in DTYPES:
        path = _checkpoint(bench, dtype)
        ways = {"dtscodec": _ours(bench, path, dtype), "zstd, no planes": _zstd(path)}
        if importlib.util.find_spec(ZIPNN):
            ways[ZIPNN] = _zipnn(path, dtype)
        for name, coder in ways.items():
            if not bench.log.has(PART, name, dtype, ""):
                bench.log.put(Row(PART, name, dtype, "", _measured(path, coder)))


def _checkpoint(bench: MergingBench, dtype: str) -> Path:
    """The average of four fine-tunes."""
    path = merged(bench, FOUR, AVERAGE) / "model.safetensors"
    if dtype == "fp32":
        return path
    half = bench.folder / f"average-{dtype}.safetensors"
    if not half.exists():
        tensors = load_file(path)
        save_file({n: t.to(DTYPES[dtype]) if t.is_floating_point() else t for n, t in tensors.items()}, half)
    return half


def _measured(path: Path, coder: Coder) -> dict[str, float]:
    """Bytes, and the median of seconds there and back."""
    there, back = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        packed = coder.pack()
        there.append(time.perf_counter() - start)
        start = time.perf_counter()
        plain = coder.unpack(packed)
        back.append(time.perf_counter() - start)
    assert coder.same(plain)
    return {
        "bytes": coder.size(packed),
        "share": coder.size(packed) / path.stat().st_size,
        "compress": path.stat().st_size / statistics.median(there),
        "decompress": path.stat().st_size / statistics.median(back),
    }


def _ours(bench: MergingBench, path: Path, dtype: str) -> Coder:
    """A base as a pack, from file to file, and its tensors back into memory, each digest checked."""
    out = bench.folder / f"{dtype}.pack.safetensors"

    def pack() -> Path:
        with open_checkpoint(path) as plain:
            write_base_pack(out, plain.specs, plain.read, metadata={}, ties={}, made_by="benchmark", force=True)
        return out

    def unpack(packed: Path) -> dict[str, Any]:
        with open_checkpoint(packed) as base:
            return {name: base.read(name) for name in base.specs}

    def same(found: dict[str, Any]) -> bool:
        with open_checkpoint(path) as plain:
            return all(np.array_equal(plain.read(name), found[name]) for name in plain.specs)

    return Coder(pack, unpack, lambda packed: packed.stat().st_size, same)


def _zstd(path: Path) -> Coder:
    """The whole file in memory, at the level that our format uses."""
    data = path.read_bytes()
    return Coder(
        lambda: compress(data, RAW_LEVEL),
        lambda packed: decompress(packed, len(data))[0],
        len,
        lambda found: found == data,
    )


def _zipnn(path: Path, dtype: str) -> Coder:
    """The whole file in memory, on one thread."""
    from zipnn import ZipNN  # type: ignore[import-not-found]

    data = path.read_bytes()
    kind = {"fp32": "float32", "bf16": "bfloat16"}[dtype]

    def coder() -> Any:
        return ZipNN(input_format="byte", bytearray_dtype=kind, threads=1)

    return Coder(
        lambda: bytes(coder().compress(bytearray(data))),  # It changes what it is given, even if that is immutable.
        lambda packed: bytes(coder().decompress(packed)),
        len,
        lambda found: found == data,
    )

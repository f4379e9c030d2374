"""Peak memory of encode and decode, on a checkpoint larger than what they may take: ``python -m benchmarks.memory``.

The limit is a matter of the largest tensor, not of the model: 8 times its size in fp32, and 400 MB for Python, torch
and the threads' buffers. Measured is anonymous memory, in RAM or swapped out: what is read from a mapped file costs
nothing that the system cannot take back. Linux only.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.environment import environment
from benchmarks.common.process_usage import Usage, run_measured
from dtscodec.checkpoints.torch_dtypes import dtype_code, tensor_bytes
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_suffix(".json")

WIDTH, INNER, VOCABULARY = 1024, 2816, 32_000
"""Narrow and many layers, so that full decompositions take minutes, and the embedding is by far the largest tensor."""

FACTOR, ALLOWANCE = 8, 400_000_000
"""The limit: so many times the largest tensor in fp32, and so many bytes."""

SHARD_BYTES = 500_000_000
DELTA_RANK = 8
PACK = "fine.dts.safetensors"
SEED = 0


@dataclass(frozen=True, slots=True)
class Result:
    """Sizes and peaks in bytes, times in seconds."""

    dtype: str
    checkpoint: int
    tensors: int
    largest: int
    pack: int
    encode: Usage
    decode: Usage

    @property
    def limit(self) -> int:
        """The most that either command may take."""
        return FACTOR * self.largest + ALLOWANCE

    @property
    def holds(self) -> bool:
        """Return whether both commands stayed within the limit."""
        return max(self.encode.peak_memory, self.decode.peak_memory) <= self.limit


def main(argv: Sequence[str] | None = None) -> int:
    """Make the checkpoints, run both commands and print what they took; 1 if that is too much."""
    options = _parse(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.folder))
    try:
        result = measure(folder, options.gigabytes, getattr(torch, options.dtype))
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    print(table(result))
    if options.record:
        RECORD.write_text(json.dumps(document(result), indent=2) + "\n")
    return 0 if result.holds else 1


# Checkpoints


def shapes(gigabytes: float, element_bytes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama with as many layers as fit, at least one.

    >>> round(sum(math.prod(shape) for shape in shapes(2, 4).values()) * 4 / 1e9, 1)
    2.0
    """
    layer: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
    layer |= {f"mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
    layer |= {"mlp.down_proj.weight": (WIDTH, INNER)}
    layer |= {f"{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    rest: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (VOCABULARY, WIDTH), "norm.weight": (WIDTH,)}
    budget = gigabytes * 1e9 / element_bytes - sum(map(math.prod, rest.values()))
    count = max(1, int(budget / sum(map(math.prod, layer.values()))))
    layers = {f"layers.{i}.{name}": shape for i in range(count) for name, shape in layer.items()}
    return {f"model.{name}": shape for name, shape in (rest | layers).items()}


def write_pair(folder: Path, gigabytes: float, dtype: torch.dtype) -> dict[str, TensorSpec]:
    """Write `base` and `fine`, sharded, one tensor in memory at a time; return what tensors they have."""
    sizes = shapes(gigabytes, dtype.itemsize)
    specs = {name: TensorSpec(dtype_code(dtype), shape) for name, shape in sizes.items()}

    def base(name: str) -> Bytes:
        return tensor_bytes(_base(name, sizes[name]).to(dtype))

    def fine(name: str) -> Bytes:
        return tensor_bytes(_base(name, sizes[name]).add_(_delta(name, sizes[name])).to(dtype))

    for kind, read in (("base", base), ("fine", fine)):
        write_checkpoint(folder / kind, specs, read, metadata={"format": "pt"}, shard_bytes=SHARD_BYTES)
    return specs


def _base(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=_generator("base", name)).mul_(0.02)


def _delta(name: str, shape: tuple[int, ...]) -> Tensor:
    """A strong part of low rank, and noise everywhere, so that no row or column is left out."""
    random = _generator("delta", name)
    noise = torch.randn(shape, generator=random).mul_(1e-4)
    if len(shape) == 1:
        return noise
    left = torch.randn(shape[0], DELTA_RANK, generator=random).mul_(1e-3)
    return noise.addmm_(left, torch.randn(DELTA_RANK, shape[1], generator=random))


def _generator(part: str, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{SEED} {part} {name}".encode()))


# Measuring


def measure(folder: Path, gigabytes: float, dtype: torch.dtype) -> Result:
    """Make the pair in `folder`, encode, decode, and watch both."""
    print(f"writing two checkpoints of {gigabytes:g} GB to {folder}", flush=True)
    specs = write_pair(folder, gigabytes, dtype)
    encode = run_measured(["encode", "base", "fine", "-o", PACK], folder)
    decode = run_measured(["decode", PACK, "--base", "base", "-o", "decoded"], folder)
    return Result(
        dtype=str(dtype).removeprefix("torch."),
        checkpoint=sum(spec.nbytes for spec in specs.values()),
        tensors=len(specs),
        largest=4 * max(spec.elements for spec in specs.values()),
        pack=(folder / PACK).stat().st_size,
        encode=encode,
        decode=decode,
    )


# Reporting


def table(result: Result) -> str:
    """Return the measured figures as text for a terminal of 80 columns."""
    state = "within" if result.holds else "ABOVE"
    rows = [
        ("checkpoint, each of two", _megabytes(result.checkpoint), f"{result.tensors} tensors, {result.dtype}"),
        ("largest tensor in fp32", _megabytes(result.largest), ""),
        ("limit", _megabytes(result.limit), f"{FACTOR} x that + {_megabytes(ALLOWANCE)}"),
        ("peak of encode", _megabytes(result.encode.peak_memory), f"{result.encode.seconds:.1f} s"),
        ("peak of decode", _megabytes(result.decode.peak_memory), f"{result.decode.seconds:.1f} s"),
    ]
    lines = [f"{name:24} {size:>10}  {note}".rstrip() for name, size, note in rows]
    return "\n".join(["", *lines, f"anonymous memory, {state} the limit"])


def document(result: Result) -> dict[str, Any]:
    """The result as JSON has it, with the circumstances."""
    sizes = {name: getattr(result, name) for name in ("dtype", "checkpoint", "tensors", "largest", "limit", "pack")}
    peaks = {
        name: {"peak": peak.peak_memory, "seconds": round(peak.seconds, 1)}
        for name, peak in (("encode", result.encode), ("decode", result.decode))
    }
    return {**environment(), **sizes, **peaks}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description="Encode and decode a large sharded checkpoint, and check how much memory that takes.",
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".cache" / "memory", help="scratch (default: %(default)s)"
    )
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of each of the two checkpoints (default: 2)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--keep", action="store_true", help="leave checkpoints and pack in the folder")
    parser.add_argument("--record", action="store_true", help=f"write benchmarks/{RECORD.name}")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

"""Measurements on one fine-tune only: the merged LoRA, a small pack's container, and the real packages."""

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import dtscodec
from benchmarks.demo.finetune import base_directory
from benchmarks.fidelity.peers import packages
from benchmarks.fidelity.sweep import FineTuneBench
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.targets import Size
from dtscodec.packs.byte_counts import bitmap_bytes, overhead, tensor_sizes

ASKED = {
    "--error 0.02": EncodeConfig(target=dtscodec.MaxError(0.02)),
    "--error 0.3": EncodeConfig(target=dtscodec.MaxError(0.3)),
    "default size": EncodeConfig(),
}
SMALL = "0.1%"
RANKS = (1, 16)
"""Of sparse-llm's lossy mode; 16 is its default."""


def lora_rows(bench: FineTuneBench) -> list[dict[str, Any]]:
    """Packs of the merged LoRA: size, behaviour, and what the encoder found."""
    rows = []
    for asked, config in ASKED.items():
        path = bench.encode(config)
        with dtscodec.decode(path, base_directory()) as decoded:
            state = dict(decoded)
            tensors = tensor_sizes(decoded.pack)
        figures = bench.judge.verdict(state).figures._asdict()
        coded = [tensor for tensor in tensors if tensor.ranks]
        rows.append(
            {
                "asked": asked,
                "bytes": path.stat().st_size,
                "share": path.stat().st_size / bench.weights.nbytes(),
                **figures,
                "error": bench.weights.error(state),
                "ranks": f"{len(coded)} matrices of rank {_span(tensor.ranks[0] for tensor in coded)}",
                "bits": _span(bits for tensor in coded for bits in tensor.bits),
                "same": sum(tensor.kind == "same" for tensor in tensors),
            }
        )
        path.unlink()
    return rows


def _span(values: Any) -> str:
    found = sorted(set(values))
    return "-" if not found else str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def container_row(bench: FineTuneBench) -> dict[str, Any]:
    """Return the bytes of a small pack that belong to no tensor."""
    path = bench.encode(EncodeConfig(target=Size.parse(SMALL)))
    with dtscodec.open(path) as pack:
        sizes = tensor_sizes(pack)
        container, bitmaps = overhead(pack, sizes), bitmap_bytes(pack)
        files = pack.size - container - bitmaps - sum(tensor.size for tensor in sizes)
        row = {"asked": SMALL, "bytes": pack.size, "overhead": container, "files": files, "bitmaps": bitmaps}
    path.unlink()
    return row


def package_rows(bench: FineTuneBench, python: str) -> list[dict[str, Any]]:
    """Zipnn and sparse-llm, where they are installed."""
    files = base_directory() / "model.safetensors", bench.directory / "model.safetensors"
    rows = []
    for name, rank in (
        ("zipnn 0.5.3, lossless", -1),
        ("sparse-llm 0.0.5", None),
        *((f"sparse-llm 0.0.5, rank {r}", r) for r in RANKS),
    ):
        with tempfile.TemporaryDirectory() as work:
            if rank == -1:
                packed = packages.zipnn(*files, Path(work), python)
            else:
                packed = packages.sparse_llm(*files, Path(work), rank, python)
            rows.append(_package(bench, name, packed))
    return rows


def _package(bench: FineTuneBench, name: str, packed: packages.Packed | packages.Missing) -> dict[str, Any]:
    if isinstance(packed, packages.Missing):
        return {"name": name, "missing": packed.reason}
    row = {"name": name, "bytes": packed.size, "share": packed.size / bench.weights.nbytes()}
    if packed.restored is None:
        return {**row, "kl": 0.0, "error": 0.0}
    state = {key: tensor.float() for key, tensor in load_file(packed.restored).items()}
    return {**row, "kl": bench.judge.verdict(state).figures.kl, "error": bench.weights.error(state)}

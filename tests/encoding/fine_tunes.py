"""Small fine-tunes whose deltas are such as training leaves, and what comes of encoding them."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dtscodec
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.targets import Size
from dtscodec.format.blocks import Block
from dtscodec.packs.byte_counts import TensorSize, tensor_sizes
from tests.support import make_pack

State = dict[str, Tensor]

WIDTH = 64
VOCABULARY, TOUCHED = 400, 30
"""Rows of the embedding, and how many of them changed."""


def normal(rng: np.random.Generator, *shape: int, scale: float = 0.02) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape) * scale).float()


def power_law(rng: np.random.Generator, rows: int, columns: int, power: float, rms: float = 1e-3) -> Tensor:
    """A full-rank matrix whose singular values fall by a power law."""
    side = min(rows, columns)
    u, v = (torch.linalg.qr(torch.from_numpy(rng.standard_normal((n, side))))[0] for n in (rows, columns))
    matrix: Tensor = (u * torch.arange(1, side + 1, dtype=torch.float64) ** -power) @ v.T
    return (matrix * (rms / matrix.square().mean().sqrt())).float()


def low_rank(rng: np.random.Generator, rows: int, columns: int, rank: int, rms: float = 1e-3) -> Tensor:
    """The delta of a LoRA."""
    matrix = normal(rng, rows, rank) @ normal(rng, rank, columns)
    return matrix * (rms / matrix.square().mean().sqrt())


@dataclass(frozen=True)
class Pair:
    """A base and a fine-tune of it, in memory."""

    base: State
    fine: State

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.fine.values())

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.fine.values())

    def in_bytes(self, size: str) -> int:
        return Size.parse(size).in_bytes(self.nbytes, self.parameters)

    def delta(self, name: str, of: State | None = None) -> Tensor:
        """Return the delta of a tensor; in another state, its difference from the base there."""
        return (of or self.fine)[name].double() - self.base[name].double()

    @property
    def shared(self) -> list[str]:
        return [name for name in self.fine if name in self.base]


@cache
def transformer(dtype: torch.dtype = torch.float32, layers: int = 2, seed: int = 0) -> Pair:
    """Matrices with spectra from flat to steep, norms, an embedding with few changed rows, a convolution, a new head,
    and an unchanged matrix.
    """
    rng = np.random.default_rng(seed)
    base: State = {}
    changed: State = {}
    for i in range(layers):
        for part, (rows, columns) in {"q": (1, 1), "up": (2, 1), "down": (1, 2)}.items():
            name = f"layer.{i}.{part}.weight"
            base[name] = normal(rng, rows * WIDTH, columns * WIDTH)
            changed[name] = power_law(rng, rows * WIDTH, columns * WIDTH, 0.4 + 0.3 * i)
        base[f"layer.{i}.norm.weight"] = 1 + normal(rng, WIDTH)
        base[f"layer.{i}.norm.bias"] = normal(rng, WIDTH)
        for part in ("weight", "bias"):
            changed[f"layer.{i}.norm.{part}"] = normal(rng, WIDTH, scale=1e-3)
    base["conv.weight"] = normal(rng, 16, 8, 3, 3)
    changed["conv.weight"] = power_law(rng, 16, 72, 0.5).reshape(16, 8, 3, 3)
    base["embed.weight"] = normal(rng, VOCABULARY, WIDTH)
    changed["embed.weight"] = torch.zeros(VOCABULARY, WIDTH)
    changed["embed.weight"][:: VOCABULARY // TOUCHED][:TOUCHED] = normal(rng, TOUCHED, WIDTH, scale=5e-3)
    base["frozen.weight"] = normal(rng, WIDTH, WIDTH)
    fine = {name: tensor + changed.get(name, 0) for name, tensor in base.items()}
    fine |= {"head.weight": normal(rng, 3, WIDTH), "head.bias": normal(rng, 3)}
    return Pair(*({name: tensor.to(dtype) for name, tensor in state.items()} for state in (base, fine)))


class Packed:
    """A fine-tune's pack, which the spec's decoder has checked, and what it decodes to."""

    def __init__(self, pair: Pair, *, size: str | None = None, recipe: Recipe | None = None, **settings: Any) -> None:
        if size is not None:
            settings["target"] = Size.parse(size)
        if recipe is not None:
            settings["preset"] = dtscodec.Best(recipe)
        with tempfile.TemporaryDirectory() as folder:
            self.report = make_pack(pair.base, pair.fine, Path(folder) / "pack", **settings)
            self.file = self.report.path.read_bytes()
        with dtscodec.decode(self.file, pair.base) as decoded:
            self.decoded: State = {name: tensor.clone() for name, tensor in decoded.items()}
            self.sizes: dict[str, TensorSize] = {size.name: size for size in tensor_sizes(decoded.pack)}
            self.blocks: dict[str, tuple[Block, ...]] = {t.name: t.blocks for t in decoded.pack.index.tensors}
            self.encoder = decoded.pack.summary.encoder or ""

    def kind(self, name: str) -> str:
        return self.sizes[name].kind


def relative_error(pair: Pair, decoded: State) -> float:
    """Norm of the error by the norm of the delta, over all tensors that the base has."""
    wrong = sum(float((decoded[name].double() - pair.fine[name].double()).square().sum()) for name in pair.shared)
    whole = sum(float(pair.delta(name).square().sum()) for name in pair.shared)
    return float((wrong / whole) ** 0.5)

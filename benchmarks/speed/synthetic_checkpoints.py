"""A model of Llama's shapes and a fine-tune of it, in bfloat16 and sharded, made by script."""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_bytes
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec

METADATA = {"format": "pt"}
SHARD_BYTES = 2_000_000_000
WEIGHT, DELTA = 0.02, 3e-4
"""Root mean squares of weights and of what a fine-tune adds."""
RANK, POWER, REST = 256, 0.6, 0.5
"""Of a delta's leading part: singular values that fall by a power law. The rest is noise, at this share of its size."""
POOL = 2**26
VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model."""

    width: int
    inner: int
    layers: int

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes.

        >>> round(SHAPES["7"].parameters() / 1e9, 1)
        6.7
        """
        layer: dict[str, tuple[int, ...]] = {f"self_attn.{n}_proj.weight": (self.width, self.width) for n in "qkvo"}
        layer |= {f"mlp.{name}_proj.weight": (self.inner, self.width) for name in ("gate", "up")}
        layer |= {"mlp.down_proj.weight": (self.width, self.inner)}
        layer |= {f"{name}_layernorm.weight": (self.width,) for name in ("input", "post_attention")}
        rest: dict[str, tuple[int, ...]] = {
            "lm_head.weight": (VOCABULARY, self.width),
            "model.embed_tokens.weight": (VOCABULARY, self.width),
            "model.norm.weight": (self.width,),
        }
        return rest | {f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in layer.items()}

    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(map(math.prod, self.tensors().values()))


SHAPES = {
    "0.1": Shape(640, 1728, 12),
    "0.5": Shape(1536, 4096, 14),
    "1": Shape(2048, 5632, 17),
    "3": Shape(3200, 8640, 24),
    "7": Shape(4096, 11008, 32),
}
"""By billions of parameters."""


def write_pair(folder: Path, shape: Shape) -> int:
    """Write `base` and `fine`, one tensor in memory at a time; return the bytes of the tensors of one."""
    return write_family(folder, shape, {"fine": ""})


def write_family(folder: Path, shape: Shape, fine_tunes: Mapping[str, str]) -> int:
    """Write `base` and fine-tunes of it, one tensor in memory at a time; return the bytes of the tensors of one.

    Parameters
    ----------
    folder : Path
    shape : Shape
    fine_tunes : mapping
        Their names, and what tells the delta of each from those of the others.
    """
    sizes, pool = shape.tensors(), pool_of_numbers()
    specs = {name: TensorSpec("BF16", size) for name, size in sizes.items()}

    def base(name: str) -> Tensor:
        return (normal(pool, f"base {name}", sizes[name]) * WEIGHT).bfloat16()

    def fine(own: str, name: str) -> Tensor:
        return (base(name).float() + delta(pool, own + name, sizes[name])).bfloat16()

    kinds = {"base": base} | {kind: partial(fine, own) for kind, own in fine_tunes.items()}
    for kind, tensor in kinds.items():
        read = partial(_bytes_of, tensor)
        write_checkpoint(folder / kind, specs, read, metadata=METADATA, shard_bytes=SHARD_BYTES)
    return sum(spec.nbytes for spec in specs.values())


def _bytes_of(tensor: Callable[[str], Tensor], name: str) -> Bytes:
    return tensor_bytes(tensor(name))


def pool_of_numbers() -> Tensor:
    """Normal numbers, always the same, for `normal` and `delta`."""
    return torch.randn(POOL, generator=torch.Generator().manual_seed(0))


def delta(pool: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a delta like training's: a leading part of falling singular values, and noise everywhere."""
    noise = normal(pool, f"noise {name}", shape)
    if len(shape) == 1:
        return noise * DELTA
    rows, columns = shape
    falling = torch.arange(1, RANK + 1) ** -POWER
    left = normal(pool, f"left {name}", (rows, RANK)) * (falling / falling.norm())
    whole = torch.addmm(noise * REST, left, normal(pool, f"right {name}", (RANK, columns)))
    scaled: Tensor = whole * (DELTA / (1 + REST**2) ** 0.5)
    return scaled


def normal(pool: Tensor, key: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers from a pool of normal ones, from a place that depends on the key: drawing billions would take hours."""
    count = math.prod(shape)
    repeated = pool.repeat(1 + count // len(pool)) if count > len(pool) // 2 else pool
    begin = zlib.crc32(key.encode()) % (len(repeated) - count + 1)
    return repeated[begin : begin + count].reshape(shape)

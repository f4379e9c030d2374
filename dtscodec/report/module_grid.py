"""Facts of tensors put together: by module, and on a grid of modules and depths."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dtscodec.report.statistics import PARTS, TensorStatistics, relative

_NUMBER = re.compile("[0-9]{1,4}")

MAX_COLUMNS = 160
"""Columns of a grid; of a deeper model neighbours share one."""


@dataclass(frozen=True, slots=True)
class ModulePath:
    """Where a tensor is in its model.

    Parameters
    ----------
    depth : int or None
        The number of its layer, the first number in its name; None outside of layers.
    module : str
        Its name within each layer; outside of layers its full name.
    """

    depth: int | None
    module: str


def module_paths(names: Iterable[str]) -> dict[str, ModulePath]:
    """Where each tensor of a model is.

    Further numbers (experts, say) become ``*``: what differs in them only is one module. The text before the
    layer's number distinguishes modules only if there are several such stacks, as in an encoder and decoder.

    >>> module_paths(["bert.layer.3.attention.query.weight", "pooler.weight"]).values()
    dict_values([ModulePath(depth=3, module='attention.query'), ModulePath(depth=None, module='pooler')])
    >>> module_paths(["encoder.block.0.wi", "decoder.block.0.wi"])["encoder.block.0.wi"]
    ModulePath(depth=0, module='encoder.block.*.wi')
    """
    parsed = {name: _parse(name) for name in names}
    several = len({stack for stack, depth, _ in parsed.values() if depth is not None}) > 1
    return {
        name: ModulePath(depth, f"{stack}.*.{module}" if several and depth is not None else module)
        for name, (stack, depth, module) in parsed.items()
    }


def _parse(name: str) -> tuple[str, int | None, str]:
    """Return the text before the layer's number, the number, and the text after it."""
    parts = name.split(".")
    numbers = [position for position, part in enumerate(parts[:-1]) if _NUMBER.fullmatch(part)]
    if not numbers:
        return "", None, _without_weight(parts)
    first = numbers[0]
    after = ["*" if _NUMBER.fullmatch(part) else part for part in parts[first + 1 :]]
    return ".".join(parts[:first]), int(parts[first]), _without_weight(after)


def _without_weight(parts: list[str]) -> str:
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "weight" else parts)


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Some tensors together."""

    tensors: tuple[TensorStatistics, ...]

    @property
    def elements(self) -> int:
        """Elements of all."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """Bits for each element."""
        return 8 * self.size / max(1, self.elements)

    @property
    def rank(self) -> float | None:
        """Mean rank; None if nothing is low-rank."""
        ranks = [rank for tensor in self.tensors for rank in tensor.ranks]
        return sum(ranks) / len(ranks) if ranks else None

    @property
    def error(self) -> float | None:
        """Relative error of all differences together."""
        measured = [t for t in self.tensors if t.error_square is not None and t.delta_square is not None]
        return relative(sum(t.error_square or 0 for t in measured), sum(t.delta_square or 0 for t in measured))

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by `PARTS`."""
        return {part: sum(tensor.parts.get(part, 0) for tensor in self.tensors) for part in PARTS}


@dataclass(frozen=True, slots=True)
class ModuleGrid:
    """Matrices by module and depth.

    Parameters
    ----------
    columns : tuple of str
        Depths.
    layers : dict
        For each module its group in each column, where there is one.
    others : dict
        Matrices outside of layers.
    """

    columns: tuple[str, ...]
    layers: dict[str, dict[int, TensorGroup]]
    others: dict[str, TensorGroup]


def by_module(tensors: Iterable[TensorStatistics]) -> dict[str, TensorGroup]:
    """Tensors of each module, in order of the first one's name."""
    groups: dict[str, list[TensorStatistics]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.module].append(tensor)
    return {module: TensorGroup(tuple(members)) for module, members in groups.items()}


def module_grid(tensors: Iterable[TensorStatistics]) -> ModuleGrid:
    """Put matrices on a grid. Vectors would double its rows and hold next to nothing."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    depths = sorted({tensor.depth for tensor in matrices if tensor.depth is not None})
    share = -(-len(depths) // MAX_COLUMNS) or 1
    columns = [depths[i : i + share] for i in range(0, len(depths), share)]
    column_of = {depth: column for column, shared in enumerate(columns) for depth in shared}
    layers = {}
    for module, group in by_module(tensor for tensor in matrices if tensor.depth is not None).items():
        cells: dict[int, list[TensorStatistics]] = defaultdict(list)
        for tensor in group.tensors:
            if tensor.depth is not None:
                cells[column_of[tensor.depth]].append(tensor)
        layers[module] = {column: TensorGroup(tuple(members)) for column, members in cells.items()}
    labels = tuple(str(shared[0]) if len(shared) == 1 else f"{shared[0]}–{shared[-1]}" for shared in columns)
    return ModuleGrid(labels, layers, by_module(tensor for tensor in matrices if tensor.depth is None))

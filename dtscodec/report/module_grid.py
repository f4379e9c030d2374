"""Tensors by module and depth, as their names show them: groups, and a grid of modules and layers."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dtscodec.report.statistics import PARTS, TensorStatistics, relative

_NUMBER = re.compile("[0-9]{1,4}")

MAX_COLUMNS = 160
"""Most columns of a grid; in a deeper model neighbouring layers share one."""


@dataclass(frozen=True, slots=True)
class ModulePath:
    """Depth and module of a tensor.

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
    """Return depth and module of each tensor of a model.

    Further numbers, such as those of experts, become ``*``, so that tensors that differ in them only are one module.
    The text before the layer's number is part of the module only if there are several stacks of layers, such as an
    encoder and a decoder.

    Parameters
    ----------
    names : iterable of str
        Names of the tensors.

    Examples
    --------
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
    # The last part is the tensor's own name, never a layer.
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
    """Statistics of several tensors together.

    Parameters
    ----------
    tensors : tuple of TensorStatistics
        The tensors.
    """

    tensors: tuple[TensorStatistics, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def size(self) -> int:
        """Bytes that the pack takes for them."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """Bits per element."""
        return 8 * self.size / max(1, self.elements)

    @property
    def rank(self) -> float | None:
        """Mean rank; None if no tensor is of low rank."""
        ranks = [rank for tensor in self.tensors for rank in tensor.ranks]
        return sum(ranks) / len(ranks) if ranks else None

    @property
    def error(self) -> float | None:
        """Relative error of all deltas together; None if none was measured."""
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
        Labels of the columns: one depth, or the first and last of several.
    layers : dict
        Groups of each module by position of their column, by the module's name.
    others : dict
        Groups of matrices outside of layers, by module.
    """

    columns: tuple[str, ...]
    layers: dict[str, dict[int, TensorGroup]]
    others: dict[str, TensorGroup]


def by_module(tensors: Iterable[TensorStatistics]) -> dict[str, TensorGroup]:
    """Return the tensors of each module, by its name, in the order of the first tensors."""
    groups: dict[str, list[TensorStatistics]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.module].append(tensor)
    return {module: TensorGroup(tuple(members)) for module, members in groups.items()}


def module_grid(tensors: Iterable[TensorStatistics]) -> ModuleGrid:
    """Return the grid of the matrices; vectors would double its rows, and take few bytes.

    Parameters
    ----------
    tensors : iterable of TensorStatistics
        Tensors of a pack; those of fewer than two dimensions are left out.
    """
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    depths = sorted({tensor.depth for tensor in matrices if tensor.depth is not None})
    # Depths per column: the fewest for which MAX_COLUMNS suffice.
    share = -(-len(depths) // MAX_COLUMNS) or 1
    columns = [depths[i : i + share] for i in range(0, len(depths), share)]
    column_of = {depth: column for column, shared in enumerate(columns) for depth in shared}
    layers = {}
    for module, group in by_module(tensor for tensor in matrices if tensor.depth is not None).items():
        # Depths that share a column share a group.
        cells: dict[int, list[TensorStatistics]] = defaultdict(list)
        for tensor in group.tensors:
            if tensor.depth is not None:
                cells[column_of[tensor.depth]].append(tensor)
        layers[module] = {column: TensorGroup(tuple(members)) for column, members in cells.items()}
    labels = tuple(str(shared[0]) if len(shared) == 1 else f"{shared[0]}–{shared[-1]}" for shared in columns)
    return ModuleGrid(labels, layers, by_module(tensor for tensor in matrices if tensor.depth is None))

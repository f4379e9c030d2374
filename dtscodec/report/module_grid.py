"""Facts of tensors put together: by module, and on a grid of modules and depths."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dtscodec.report.facts import PARTS, TensorFacts, relative

MAX_COLUMNS = 160
"""Columns of a grid; of a deeper model neighbours share one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some tensors together."""

    tensors: tuple[TensorFacts, ...]

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
class Grid:
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
    layers: dict[str, dict[int, Group]]
    others: dict[str, Group]


def by_module(tensors: Iterable[TensorFacts]) -> dict[str, Group]:
    """Tensors of each module, in order of the first one's name."""
    groups: dict[str, list[TensorFacts]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.module].append(tensor)
    return {module: Group(tuple(members)) for module, members in groups.items()}


def grid(tensors: Iterable[TensorFacts]) -> Grid:
    """Put matrices on a grid. Vectors would double its rows and hold next to nothing."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    depths = sorted({tensor.depth for tensor in matrices if tensor.depth is not None})
    share = -(-len(depths) // MAX_COLUMNS) or 1
    columns = [depths[i : i + share] for i in range(0, len(depths), share)]
    column_of = {depth: column for column, shared in enumerate(columns) for depth in shared}
    layers = {}
    for module, group in by_module(tensor for tensor in matrices if tensor.depth is not None).items():
        cells: dict[int, list[TensorFacts]] = defaultdict(list)
        for tensor in group.tensors:
            if tensor.depth is not None:
                cells[column_of[tensor.depth]].append(tensor)
        layers[module] = {column: Group(tuple(members)) for column, members in cells.items()}
    labels = tuple(str(shared[0]) if len(shared) == 1 else f"{shared[0]}–{shared[-1]}" for shared in columns)
    return Grid(labels, layers, by_module(tensor for tensor in matrices if tensor.depth is None))

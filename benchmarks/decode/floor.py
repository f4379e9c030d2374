"""The least that a change of weights takes: dense factors at hand, an `addmm` for each matrix, a copy for the rest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dtscodec.decoding.reconstruct import LoadedTensor
from dtscodec.kernels.packed import PackedFactors, PackedValues
from dtscodec.kernels.unpack import unpack_factors, unpack_values

Step = Callable[[], object]


@dataclass(frozen=True)
class Floor:
    """The steps of a change into tensors that exist.

    Parameters
    ----------
    base, out : mapping
        Tensors of the base and of the model, by the names of the pack.
    """

    base: Mapping[str, Tensor]
    out: Mapping[str, Tensor]

    def steps(self, new: Mapping[str, LoadedTensor], old: Sequence[str] = ()) -> list[Step]:
        """Return a step per tensor: compute what the new task changes, copy what only the old one changed."""
        copies: list[Step] = [partial(self.out[name].copy_, self.base[name]) for name in old if name not in new]
        return copies + [step for name, tensor in new.items() for step in self._of(name, tensor)]

    def _of(self, name: str, tensor: LoadedTensor) -> list[Step]:
        out = self.out[name]
        steps: list[Step] = []
        for block in tensor.blocks:
            shape = (tensor.entry.spec.matrix(tensor.entry.split)[0], -1)
            rows = slice(block.row, block.row + block.block.height)
            part = out.view(shape)[rows]
            if isinstance(block.payload, PackedFactors):
                steps.append(_add_product(self.base[name].view(shape)[rows], block.payload, part))
            elif isinstance(block.payload, PackedValues):
                steps.append(_add_values(self.base.get(name), shape, rows, block.payload, part))
            elif isinstance(block.payload, Tensor):
                steps.append(partial(part.copy_, block.payload.view(out.dtype).view(part.shape)))
        return steps


def _add_product(base: Tensor, factors: PackedFactors, out: Tensor) -> Step:
    """One `addmm` for the whole matrix; rows and columns that are not coded have factors of zero."""
    rows, cols = factors.where()
    block = factors.block
    left, right = torch.zeros(block.height, block.rank), torch.zeros(block.rank, factors.columns)
    u, v = unpack_factors(factors)
    left[rows if isinstance(rows, slice) else rows.flatten()] = u.T
    right[:, cols] = v
    return partial(torch.addmm, base, left, right, out=out)


def _add_values(base: Tensor | None, shape: tuple[int, int], rows: slice, values: PackedValues, out: Tensor) -> Step:
    delta = torch.zeros(values.block.height, values.columns)
    delta[values.where()] = unpack_values(values)
    if base is None:
        return partial(out.copy_, delta)
    return partial(torch.add, base.view(shape)[rows], delta, out=out)

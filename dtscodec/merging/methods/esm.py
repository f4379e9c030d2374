"""ESM (arXiv 2602.20208): essential subspaces of the tasks, scaled towards what is strong, made orthonormal."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.activations.gram_file import Gram
from dtscodec.merging.matrices import fuse_by_matrix, share
from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.methods.essential_subspace import essential
from dtscodec.merging.methods.method import Fuse, Told
from dtscodec.merging.methods.option_checks import check_number
from dtscodec.merging.methods.polar import polar
from dtscodec.merging.task_vectors import Moves

ENERGY_POWER = 0.15
"""Of the extension's factor (arXiv 2606.19164)."""


@dataclass(frozen=True, slots=True)
class Esm:
    """Base + alpha * fused essential subspaces; of what is no matrix, + the tasks' mean.

    Where nothing is known of a matrix's inputs, the SVD stands in, with as many components as for TSV-M, and alpha is
    1; where nothing is known of any, alpha is for all matrices. The authors' code for images doubles merged matrices:
    alpha = 2 here. All singular values become their mean, which is small where few directions hold most of a move, so
    alpha should be searched, and may well be 5 or 10.

    Parameters
    ----------
    alpha : float
    alpha_everywhere : bool
        Multiply every merged tensor by alpha, as the authors' code for text does; theirs for images does not.
    damping : float
        Share of the mean squared input that is added to each input's, which lets directions count that few inputs
        did not show. 0 is what was published.
    task_scaling, dimension_scaling, layer_scaling : bool
        The three levels of polarized scaling: squared norm relative to the mean, of a task's move among all tasks of
        a layer, of an input's column among all of a layer, of a merged layer among all of its kind.
    energy_scaling : bool
        Scale each direction by its share of the outputs' shift, as the extension of the method does.
    orthogonal : bool
        Make bases and coordinates of all tasks orthonormal, at their mean singular value.
    """

    name: ClassVar[str] = "esm"
    passes: ClassVar[int] = 0
    edges: ClassVar[bool] = True
    alpha: float = 1.0
    alpha_everywhere: bool = False
    damping: float = 0.01
    task_scaling: bool = True
    dimension_scaling: bool = True
    layer_scaling: bool = True
    energy_scaling: bool = False
    orthogonal: bool = True

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("damping", self.damping, least=0)

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """How a tensor's moves become one, but for the scaling of layers, which needs all of them."""

        def fuse(moves: Moves) -> Tensor:
            return fuse_by_matrix(moves, lambda deltas, edges: self._fuse_outputs(tasks, moves.name, deltas, edges))

        return fuse

    def scaled(self, tasks: Tasks) -> list[str]:
        """Names of the tensors whose merged move alpha multiplies."""
        if self.alpha_everywhere:
            return tasks.moved
        return [name for name in tasks.matrices if tasks.has_grams(name)] or tasks.matrices

    def _fuse_outputs(self, tasks: Tasks, name: str, deltas: list[Tensor], edges: list[float]) -> Tensor:
        """Fuse moves of a weight [d_out, d_in], or, as GPT-2 has some, [d_in, d_out]: outputs are what counts."""
        whole = tasks.specs[name].shape == deltas[0].shape
        grams = [tasks.gram(task, name) if whole else None for task in range(len(deltas))]
        if any(gram is not None and gram.input_first for gram in grams):
            return self._fuse([delta.T for delta in deltas], grams, edges).T
        return self._fuse(deltas, grams, edges)

    def _fuse(self, deltas: list[Tensor], grams: Sequence[Gram | None], edges: list[float]) -> Tensor:
        scales = relative_squares([float(delta.double().square().sum()) ** 0.5 for delta in deltas])
        bases, coordinates = [], []
        for delta, gram, edge, scale in zip(deltas, grams, edges, scales, strict=True):
            side = min(delta.shape) if gram is None else len(delta)
            part = essential(delta, gram, self.damping, edge).top(share(side, len(deltas)))
            energy = energy_factors(part.s) if self.energy_scaling else torch.ones_like(part.s)
            bases.append(part.u * energy)
            coordinates.append((scale if self.task_scaling else 1.0) * energy[:, None] * part.v)
        basis, inner = torch.cat(bases, 1), torch.cat(coordinates)
        if self.dimension_scaling:
            inner = inner * inner.new_tensor(relative_squares(inner.norm(dim=0).tolist()))
        if not self.orthogonal:
            return basis @ inner
        left, right = polar(basis), polar(inner)
        return (left.mean * left.factor) @ (right.mean * right.factor)


def relative_squares(norms: Sequence[float]) -> list[float]:
    """The squares of norms relative to their mean; 1 for each if all are zero.

    >>> relative_squares([1.0, 3.0]), relative_squares([0.0, 0.0])
    ([0.25, 2.25], [1.0, 1.0])
    """
    mean = sum(norms) / max(1, len(norms))
    return [(norm / mean) ** 2 if mean else 1.0 for norm in norms]


def energy_factors(s: Tensor) -> Tensor:
    """What the extension scales directions by: their share of the energy, to a small power, with a mean of 1.

    Parameters
    ----------
    s : float64 [k]
        Positive: the square root of each direction's energy.
    """
    if not len(s):
        return s
    energies = s.square()
    factors = (energies / energies.mean()) ** ENERGY_POWER
    return factors / factors.mean()


def layer_factors(norms: Mapping[str, float]) -> dict[str, float]:
    """What each merged layer is multiplied by: its squared norm relative to the mean of its kind.

    Layers are of one kind if their names differ in numbers only.

    Parameters
    ----------
    norms : mapping
        Frobenius norms of merged matrices, by name.

    >>> layer_factors({"layer.0.up": 1.0, "layer.1.up": 3.0, "layer.0.down": 5.0})
    {'layer.0.up': 0.25, 'layer.1.up': 2.25, 'layer.0.down': 1.0}
    """
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, norm in norms.items():
        kinds[kind_of(name)].append(norm)
    means = {kind: sum(found) / len(found) for kind, found in kinds.items()}
    return {name: (norm / mean) ** 2 if (mean := means[kind_of(name)]) else 1.0 for name, norm in norms.items()}


def kind_of(name: str) -> str:
    """The kind of a layer: its name with a star for each number.

    >>> kind_of("model.layers.12.mlp.up_proj.weight")
    'model.layers.*.mlp.up_proj.weight'
    """
    return re.sub(r"[0-9]+", "*", name)

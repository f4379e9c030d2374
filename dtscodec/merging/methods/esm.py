"""ESM (arXiv 2602.20208): essential subspaces of the tasks, polarized by norms and orthonormalized."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.activations.gram_file import Gram
from dtscodec.linalg.essential_subspace import essential_triplets, symmetric_root
from dtscodec.linalg.svd import Triplets, triplets
from dtscodec.merging.by_matrix import combine_by_matrix, components_per_task, polar
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import Combine, MergeMethod, check_number
from dtscodec.merging.task_vectors import TaskVectors
from dtscodec.progress import ProgressCallback

ENERGY_POWER = 0.15
"""Exponent of the extension's energy factor (arXiv 2606.19164)."""


@dataclass(frozen=True, slots=True)
class Esm(MergeMethod):
    """Base + alpha * merged essential subspaces. Tensors that are not matrices get the mean of the task vectors.

    A matrix without Gram matrices of its inputs is merged by the SVD, with as many components as in TSV-M, and at
    alpha = 1; if no matrix has any, alpha scales all matrices. The authors' code for images doubles merged matrices:
    alpha = 2 here. All singular values become their mean, which is small where few directions hold most of a task
    vector, so alpha should be searched; the best one may be 5 or 10.

    Parameters
    ----------
    alpha : float
        Scale of the merged task vector.
    alpha_everywhere : bool
        Scale tensors that are not matrices, and matrices without Gram matrices, by alpha, too. The authors' code for
        text does; theirs for images does not.
    damping : float
        Share of the mean squared input that is added to the mean square of every input, so that directions that
        few inputs have are not neglected. Published: 0.
    task_scaling : bool
        Scale each task's coordinates in a layer by the squared norm of its task vector, relative to the mean of all
        tasks. First level of polarized scaling.
    dimension_scaling : bool
        Scale each input dimension of a layer by the squared norm of its column, relative to the mean of all columns.
        Second level of polarized scaling.
    layer_scaling : bool
        Scale each merged layer by its squared norm, relative to the mean of all layers of its kind. Third level of
        polarized scaling.
    energy_scaling : bool
        Scale each direction by its share of the energy of the outputs' shift, as the method's extension does.
    orthogonal : bool
        Orthonormalize bases and coordinates of all tasks, at their mean singular value.
    """

    name: ClassVar[str] = "esm"
    needs_noise_edges: ClassVar[bool] = True
    takes_grams: ClassVar[bool] = True
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

    @property
    def scales_layers(self) -> bool:
        """True if `layer_scaling` is on."""
        return self.layer_scaling

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine:
        """Return the function that merges one tensor; layers are scaled later, since that needs all of them."""

        def combine(vectors: TaskVectors) -> Tensor:
            return combine_by_matrix(
                vectors, lambda deltas, edges: self._merge_layer(inputs, vectors.name, deltas, edges)
            )

        return combine

    def scaled_names(
        self, names: Collection[str], matrices: Collection[str], with_grams: Collection[str]
    ) -> Collection[str]:
        """Return all names with `alpha_everywhere`, else those of matrices with Gram matrices, or of all matrices."""
        return names if self.alpha_everywhere else with_grams or matrices

    def layer_factors(self, norms: Mapping[str, float]) -> dict[str, float]:
        """Return the factor of each layer, if `layer_scaling` is on."""
        return relative_squares_by_kind(norms) if self.layer_scaling else {}

    def _merge_layer(self, inputs: MergeInputs, name: str, deltas: list[Tensor], noise_edges: list[float]) -> Tensor:
        """Merge the task vectors of one weight, [d_out, d_in] or, in layers such as GPT-2's, [d_in, d_out]."""
        is_whole = inputs.specs[name].shape == deltas[0].shape  # Gram matrices are of whole weights, not of stacks.
        grams = [inputs.gram(task, name) if is_whole else None for task in range(len(deltas))]
        # Inputs enter by columns below, so weights [d_in, d_out] are transposed.
        if any(gram is not None and gram.input_first for gram in grams):
            return self._merge_matrices([delta.T for delta in deltas], grams, noise_edges).T
        return self._merge_matrices(deltas, grams, noise_edges)

    def _merge_matrices(self, deltas: list[Tensor], grams: Sequence[Gram | None], noise_edges: list[float]) -> Tensor:
        """Merge the task vectors of one weight [d_out, d_in]: float64."""
        # Squared norm of each task vector in this layer, relative to the mean norm of all tasks.
        scales = relative_squares([float(delta.double().square().sum()) ** 0.5 for delta in deltas])
        bases, coordinates = [], []
        for delta, gram, edge, scale in zip(deltas, grams, noise_edges, scales, strict=True):
            # Essential subspace: the leading directions of the outputs' shift, and the delta's coordinates in it.
            side = min(delta.shape) if gram is None else len(delta)
            part = essential(delta, gram, self.damping, edge).top(components_per_task(side, len(deltas)))
            # Polarized scaling of tasks; the extension scales directions by their energy.
            energy = energy_factors(part.s) if self.energy_scaling else torch.ones_like(part.s)
            bases.append(part.u * energy)
            coordinates.append((scale if self.task_scaling else 1.0) * energy[:, None] * part.v)
        basis, inner = torch.cat(bases, 1), torch.cat(coordinates)
        # Polarized scaling of input dimensions.
        if self.dimension_scaling:
            inner = inner * inner.new_tensor(relative_squares(inner.norm(dim=0).tolist()))
        if not self.orthogonal:
            return basis @ inner
        # Orthonormalize both factors, each at its mean singular value.
        left, right = polar(basis), polar(inner)
        return (left.mean * left.factor) @ (right.mean * right.factor)


def essential(delta: Tensor, gram: Gram | None, damping: float = 0.0, edge: float = 0.0) -> Triplets:
    """Return the essential subspace of a task vector: an orthonormal basis E, and the coordinates E^T delta in it.

    Among all matrices of rank k, ``E[:, :k] @ E[:, :k].T @ delta`` changes the layer's outputs most like delta does.
    For isotropic inputs (X = I), and for strong damping, it is the truncated SVD.

    Parameters
    ----------
    delta : float [m, n]
        Task vector of a linear layer's weight.
    gram : Gram or None
        Of the layer's inputs, [n, n]; without it the SVD is used.
    damping : float
        See `Gram.damped`.
    edge : float
        Noise edge, used without a `gram`: smaller singular values are noise.

    Returns
    -------
    Triplets
        u : the basis E; s : root mean square of the outputs' change along each direction, descending; v : E^T delta,
        whose rows are neither unit nor orthogonal.
    """
    if gram is None:
        found = triplets(delta, edge)
        return Triplets(found.u, found.s, found.s[:, None] * found.v)
    wide = delta.double()
    root = symmetric_root(gram.damped(damping).to(wide.device))
    # Without damping, the moment's rank is at most the number of inputs.
    return essential_triplets(wide, root, gram.rows if gram.rows and not damping else None)


def relative_squares(norms: Sequence[float]) -> list[float]:
    """Return the squares of norms relative to their mean; 1 for each if all are zero.

    Parameters
    ----------
    norms : sequence of float
        The norms.

    Examples
    --------
    >>> relative_squares([1.0, 3.0]), relative_squares([0.0, 0.0])
    ([0.25, 2.25], [1.0, 1.0])
    """
    mean = sum(norms) / max(1, len(norms))
    return [(norm / mean) ** 2 if mean else 1.0 for norm in norms]


def energy_factors(s: Tensor) -> Tensor:
    """Return the extension's factors on directions: energy relative to the mean, to a small power, with a mean of 1.

    Parameters
    ----------
    s : float64 [k]
        Square roots of the directions' energies; positive.
    """
    if not len(s):
        return s
    energies = s.square()
    factors = (energies / energies.mean()) ** ENERGY_POWER
    return factors / factors.mean()


def relative_squares_by_kind(norms: Mapping[str, float]) -> dict[str, float]:
    """Return the factor of each merged layer: its squared norm relative to the mean norm of its kind.

    Layers are of one kind if their names differ in numbers only.

    Parameters
    ----------
    norms : mapping
        Frobenius norms of merged matrices, by name.

    Examples
    --------
    >>> relative_squares_by_kind({"layer.0.up": 1.0, "layer.1.up": 3.0, "layer.0.down": 5.0})
    {'layer.0.up': 0.25, 'layer.1.up': 2.25, 'layer.0.down': 1.0}
    """
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, norm in norms.items():
        kinds[layer_kind(name)].append(norm)
    means = {kind: sum(found) / len(found) for kind, found in kinds.items()}
    return {name: (norm / mean) ** 2 if (mean := means[layer_kind(name)]) else 1.0 for name, norm in norms.items()}


def layer_kind(name: str) -> str:
    """Return the kind of a layer: its name with a star for each number.

    >>> layer_kind("model.layers.12.mlp.up_proj.weight")
    'model.layers.*.mlp.up_proj.weight'
    """
    return re.sub(r"[0-9]+", "*", name)

"""Merging as the papers have it, in plain numpy on whole models in float64: what ours is held against."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""NDArray[np.float64]: numpy's own types tell too little of it."""
Model: TypeAlias = dict[str, Array]


def task_vectors(base: Model, tasks: list[Model]) -> list[Model]:
    return [{name: task[name] - base[name] for name in base} for task in tasks]


def average(tasks: list[Model]) -> Model:
    return {name: np.mean([task[name] for task in tasks], axis=0) for name in tasks[0]}


def task_arithmetic(base: Model, tasks: list[Model], alpha: float) -> Model:
    return {name: base[name] + alpha * sum(vector[name] for vector in task_vectors(base, tasks)) for name in base}


def ties(base: Model, tasks: list[Model], alpha: float, keep: float, combine: str) -> Model:
    flat = np.stack([np.concatenate([vector[name].ravel() for name in base]) for vector in task_vectors(base, tasks)])
    count = flat.shape[1]
    if keep < 1:
        least = np.sort(np.abs(flat), axis=1)[:, count - int(keep * count) - 1][:, None]
        flat = np.where(np.abs(flat) >= least, flat, 0)
    sign = np.sign(flat.sum(0))
    sign[sign == 0] = np.sign(sign.sum())
    agreeing = np.where(np.sign(flat) == sign, flat, 0)
    merged = agreeing.sum(0)
    if combine == "mean":
        merged /= np.maximum((agreeing != 0).sum(0), 1)
    result, begin = {}, 0
    for name, values in base.items():
        result[name] = values + alpha * merged[begin : begin + values.size].reshape(values.shape)
        begin += values.size
    return result


def by_matrix(base: Model, tasks: list[Model], alpha: float, fuse: Callable[[list[Array]], Array]) -> Model:
    result = {}
    for name, values in base.items():
        deltas = [vector[name] for vector in task_vectors(base, tasks)]
        result[name] = values + alpha * (fuse(deltas) if values.ndim == 2 else np.mean(deltas, axis=0))
    return result


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    return np.linalg.svd(matrix, full_matrices=False)


def whitened(matrix: Array) -> Array:
    """X (X^T X)^(-1/2), of a matrix with at least as many rows as columns; else the same of its transpose."""
    if matrix.shape[0] < matrix.shape[1]:
        return whitened(matrix.T).T
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ (vectors * squares**-0.5) @ vectors.T


def tsv(deltas: list[Array]) -> Array:
    k = min(deltas[0].shape) // len(deltas)
    parts = [svd(delta) for delta in deltas]
    u = whitened(np.hstack([part[0][:, :k] for part in parts]))
    v = whitened(np.vstack([part[2][:k] for part in parts]))
    return u @ np.diag(np.concatenate([part[1][:k] for part in parts])) @ v


def iso_c(deltas: list[Array]) -> Array:
    u, s, v = svd(sum(deltas, np.zeros_like(deltas[0])))
    return s.mean() * u @ v


def iso_cts(deltas: list[Array], share: float = 0.8) -> Array:
    side = min(deltas[0].shape)
    each = round((side - int(share * side)) / len(deltas))
    common = side - each * len(deltas)
    u, s, v = svd(sum(deltas, np.zeros_like(deltas[0])))
    us, ss, vs = [u[:, :common]], [s[:common]], [v[:common]]
    for delta in deltas:
        own = svd(delta - us[0] @ us[0].T @ delta)
        us, ss, vs = [*us, own[0][:, :each]], [*ss, own[1][:each]], [*vs, own[2][:each]]
    return np.concatenate(ss).mean() * whitened(np.hstack(us)) @ whitened(np.vstack(vs))


def relative_square(norms: Array) -> Array:
    return (norms / norms.mean()) ** 2


def esm(
    deltas: list[Array],
    inputs: list[Array] | None,
    by_task: bool = True,
    by_dimension: bool = True,
    by_energy: bool = False,
    orthogonal: bool = True,
) -> Array:
    """One layer, by the SVD of the outputs' shifts themselves (inputs: [rows, d_in] of each task)."""
    side = len(deltas[0]) if inputs is not None else min(deltas[0].shape)
    k = side // len(deltas)
    scales = relative_square(np.array([np.linalg.norm(delta) for delta in deltas]))
    bases, rows = [], []
    for task, delta in enumerate(deltas):
        x = inputs[task] if inputs is not None else np.eye(delta.shape[1])
        _, s, basis = svd(x @ delta.T)
        essential = basis[:k].T
        coordinates = essential.T @ delta * (scales[task] if by_task else 1)
        energy = np.ones(essential.shape[1])
        if by_energy:
            energy = (s[:k] ** 2 / (s[:k] ** 2).mean()) ** 0.15
            energy /= energy.mean()
        bases.append(essential * energy)
        rows.append(energy[:, None] * coordinates)
    p, a = np.hstack(bases), np.vstack(rows)
    if by_dimension:
        a = a * relative_square(np.linalg.norm(a, axis=0))
    if not orthogonal:
        return p @ a
    return (svd(p)[1].mean() * whitened(p)) @ (svd(a)[1].mean() * whitened(a))

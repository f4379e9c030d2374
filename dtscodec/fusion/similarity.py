"""Weights of tasks for one that was not trained: how like it each of them is (DTS, the variant for unseen tasks).

A task is known by a vector: its classification head, flattened, or any embedding of what it is about. Its weight is the
cosine to the unseen task's vector, as a share of all. The authors divide by the plain sum; here a task that points away
counts nothing (negative cosines are clamped), since else weights grow without bound as cosines cancel.

Heads that were trained from one common initial head hardly move, so their cosines are all near 1. Subtract it then
(`minus`). The mean of all heads would be no substitute: of two tasks one always points away from it, however alike.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dtscodec.errors import ConfigError, Remedy

ALL_ALIKE = 0.99
"""Where the least similar of several tasks has this cosine, something common hides how they differ."""
CANCELLED = 0.1
"""Share of the sum of magnitudes that a plain sum of cosines must have: else weights are beyond ten in all."""


def task_vector(tensor: Tensor) -> Tensor:
    """What a task is compared by.

    Parameters
    ----------
    tensor : [d] or [classes, d]
        A vector, or one of each class, such as text embeddings.

    Returns
    -------
    float64 [d]
        For classes the mean row, of norm 1: numbers of classes may differ.

    >>> task_vector(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    tensor([1., 0.], dtype=torch.float64)
    """
    wide = tensor.double()
    if wide.ndim != 2:
        return wide.reshape(-1)
    mean = wide.mean(0)
    return mean / norm if (norm := float(mean.norm())) else mean


def head_vectors(unseen: Mapping[str, Tensor], seen: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Vectors of heads: that of the unseen task, and those of the others.

    Their tensors of equal names and shapes, flattened and one after the other. If there are none, since numbers of
    classes differ, the mean rows of those with rows of one length.

    Raises
    ------
    ConfigError
        Heads have nothing in common.
    """
    names = sorted(name for name in unseen if all(name in head for head in seen))
    same = [name for name in names if all(head[name].shape == unseen[name].shape for head in seen)]
    if any(unseen[name].ndim > 1 for name in same) or (same and same == names):
        return _joined(unseen, same), [_joined(head, same) for head in seen]
    rows = [name for name in names if _are_rows([unseen[name], *(head[name] for head in seen)])]
    if not rows:
        detail = "expected heads with tensors of one shape, or rows of one length"
        got = f"only {', '.join(names)} in all, of other shapes" if names else "no tensor that all have"
        raise ConfigError(f"similarity: {detail}, got {got}", Remedy("give {weights} or {vectors}"))
    one, *others = (
        torch.cat([task_vector(head[name]) for name in rows]) for head in (unseen, *seen)
    )  # fmt: skip
    return one, others


def _joined(head: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.cat([head[name].double().reshape(-1) for name in names])


def _are_rows(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.ndim == 2 and tensor.shape[1] == tensors[0].shape[1] for tensor in tensors)


def cosines(unseen: Tensor, seen: Sequence[Tensor]) -> tuple[float, ...]:
    """Cosines between the unseen task's vector and the others; 0 for a vector of zeros.

    Raises
    ------
    ConfigError
        Lengths differ, elements are not finite, or the unseen task's vector is zero.
    """
    for other in seen:
        if len(other) != len(unseen):
            raise ConfigError(f"similarity: expected vectors of {len(unseen)} elements, got one of {len(other)}")
    if not all(bool(vector.isfinite().all()) for vector in (unseen, *seen)):
        raise ConfigError("similarity: expected finite vectors, got NaN or infinity", Remedy("give {weights}"))
    largest = [float(vector.abs().max()) if len(vector) else 0.0 for vector in (unseen, *seen)]
    if not largest[0]:
        raise ConfigError("similarity: expected a vector of the unseen task that is not zero, got zeros")
    one, *others = (vector / size if size else vector for vector, size in zip((unseen, *seen), largest, strict=True))
    return tuple(float(one @ other / (one.norm() * other.norm())) if bool(other.any()) else 0.0 for other in others)


def weights_of(similarities: Sequence[float], plain_sum: bool = False) -> tuple[float, ...]:
    """Weights that add up to 1.

    Parameters
    ----------
    similarities : sequence of float
    plain_sum : bool
        Negative ones count too, as the authors of DTS have it.

    Raises
    ------
    ConfigError
        None is positive, or with `plain_sum` they cancel. Equal weights would be a guess that nothing speaks for.

    >>> weights_of([0.75, 0.25, -0.5])
    (0.75, 0.25, 0.0)
    >>> weights_of([0.5, 0.75, -0.25], plain_sum=True)
    (0.5, 0.75, -0.25)
    """
    counted = similarities if plain_sum else [max(0.0, similarity) for similarity in similarities]
    total = sum(counted)
    least = CANCELLED * sum(map(abs, counted)) if plain_sum else 0.0
    if total <= 0 or total < least:
        got = ", ".join(f"{similarity:.3g}" for similarity in similarities)
        wanted = "cosines that do not cancel" if plain_sum else "a cosine above 0"
        raise ConfigError(
            f"similarity: expected {wanted}, got {got}", Remedy("no pack is like this task, so give {weights}")
        )
    return tuple(similarity / total for similarity in counted)


def are_all_alike(similarities: Sequence[float]) -> bool:
    """Whether several cosines are all next to 1, so that they tell nothing."""
    return len(similarities) > 1 and min(similarities) > ALL_ALIKE

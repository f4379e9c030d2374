"""Similarity of tasks to an unseen one, and weights from it (arXiv 2512.01461, the variant for unseen tasks).

A task is represented by a vector: its classification head, flattened, or an embedding of its description. The weight
of a task is the cosine of its vector and the unseen task's, divided by the sum of all cosines. The authors use the
plain sum; here negative cosines are clamped at zero, since otherwise weights grow without bound as cosines cancel.

Heads that were trained from one initial head stay near it, so that their cosines are all near 1; subtract it (`minus`).
The mean of all heads is no substitute: relative to the mean of two heads, these point in opposite directions, however
similar they are.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dtscodec.errors import ConfigError, Remedy

ALL_ALIKE = 0.99
"""If the least similar of several tasks exceeds this cosine, a common part hides how they differ."""
CANCELLED = 0.1
"""Smallest plain sum of cosines, as a share of the sum of magnitudes; below it weights exceed ten."""


def task_vector(tensor: Tensor) -> Tensor:
    """Return the vector that a task is compared by.

    Parameters
    ----------
    tensor : [d] or [classes, d]
        A vector, or one per class, such as text embeddings.

    Returns
    -------
    float64 [d]
        For classes the mean row, normalized: numbers of classes may differ.

    Examples
    --------
    >>> task_vector(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    tensor([1., 0.], dtype=torch.float64)
    """
    wide = tensor.double()
    if wide.ndim != 2:
        return wide.reshape(-1)
    # The mean row has the same length, whatever the number of classes.
    mean = wide.mean(0)
    return mean / norm if (norm := float(mean.norm())) else mean


def head_vectors(unseen: Mapping[str, Tensor], known: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Return the vectors of heads: the unseen task's, and those of the known tasks.

    A head's vector is the concatenation of the tensors that all heads have in one shape, flattened. If there are none,
    since numbers of classes differ, it is the concatenation of the mean rows of those with rows of one length.

    Parameters
    ----------
    unseen : mapping of tensors
        The unseen task's head.
    known : sequence of mappings of tensors
        Heads of the known tasks.

    Returns
    -------
    unseen : float64 [d]
        Vector of the unseen task.
    known : list of float64 [d]
        Vectors of the known tasks.

    Raises
    ------
    ConfigError
        The heads have no tensors that can be compared.
    """
    # Tensors that all heads have; among them those of one shape.
    names = sorted(name for name in unseen if all(name in head for head in known))
    same = [name for name in names if all(head[name].shape == unseen[name].shape for head in known)]
    # Flattened tensors. Biases alone do not represent a head, unless heads have nothing else.
    if any(unseen[name].ndim > 1 for name in same) or (same and same == names):
        return _joined(unseen, same), [_joined(head, same) for head in known]
    # Else mean rows, since numbers of classes differ.
    rows = [name for name in names if _are_rows([unseen[name], *(head[name] for head in known)])]
    if not rows:
        detail = "expected heads with tensors of one shape, or rows of one length"
        got = f"only {', '.join(names)} in all, of other shapes" if names else "no tensor that all have"
        raise ConfigError(f"similarity: {detail}, got {got}", Remedy("give {weights} or {vectors}"))
    one, *others = (
        torch.cat([task_vector(head[name]) for name in rows]) for head in (unseen, *known)
    )  # fmt: skip
    return one, others


def _joined(head: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.cat([head[name].double().reshape(-1) for name in names])


def _are_rows(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.ndim == 2 and tensor.shape[1] == tensors[0].shape[1] for tensor in tensors)


def cosines(unseen: Tensor, known: Sequence[Tensor]) -> tuple[float, ...]:
    """Return the cosines between the unseen task's vector and the known ones'; 0 for a vector of zeros.

    Parameters
    ----------
    unseen : float64 [d]
        Vector of the unseen task.
    known : sequence of float64 [d]
        Vectors of the known tasks.

    Raises
    ------
    ConfigError
        Lengths differ, elements are not finite, or the unseen task's vector is zero.
    """
    for other in known:
        if len(other) != len(unseen):
            raise ConfigError(f"similarity: expected vectors of {len(unseen)} elements, got one of {len(other)}")
    if not all(bool(vector.isfinite().all()) for vector in (unseen, *known)):
        raise ConfigError("similarity: expected finite vectors, got NaN or infinity", Remedy("give {weights}"))
    largest = [float(vector.abs().max()) if len(vector) else 0.0 for vector in (unseen, *known)]
    if not largest[0]:
        raise ConfigError("similarity: expected a vector of the unseen task that is not zero, got zeros")
    # Divide by the largest magnitude first: squares of huge or tiny elements would overflow or underflow.
    one, *others = (vector / size if size else vector for vector, size in zip((unseen, *known), largest, strict=True))
    return tuple(float(one @ other / (one.norm() * other.norm())) if bool(other.any()) else 0.0 for other in others)


def normalize_similarities(similarities: Sequence[float], plain_sum: bool = False) -> tuple[float, ...]:
    """Return weights that add up to 1.

    Parameters
    ----------
    similarities : sequence of float
        Cosines.
    plain_sum : bool
        Let negative ones count, as the authors of DTS do.

    Raises
    ------
    ConfigError
        No cosine is positive, or with `plain_sum` they cancel. Equal weights would be an unfounded guess.

    Examples
    --------
    >>> normalize_similarities([0.75, 0.25, -0.5])
    (0.75, 0.25, 0.0)
    >>> normalize_similarities([0.5, 0.75, -0.25], plain_sum=True)
    (0.5, 0.75, -0.25)
    """
    # The authors' plain sum, or negative cosines clamped at zero.
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


def are_indistinct(similarities: Sequence[float]) -> bool:
    """Return whether several cosines are all near 1, so that they do not distinguish tasks."""
    return len(similarities) > 1 and min(similarities) > ALL_ALIKE

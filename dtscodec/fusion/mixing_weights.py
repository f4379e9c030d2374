"""What each pack counts in a fusion: as it is told, or by how like its task is to the unseen one."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

from torch import Tensor

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import ConfigError, Remedy
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.fusion.heads import Head, HeadSource
from dtscodec.fusion.similarity import cosines, head_vectors, task_vector, weights_of
from dtscodec.fusion.source_packs import Seen
from dtscodec.packs.pack import Pack

Vectors: TypeAlias = "Source"
"""A safetensors file, or tensors in memory: a vector for each task."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of packs.

    Parameters
    ----------
    tasks : tuple of str
        The packs' names.
    weights : tuple of float
    similarities : tuple of float or None
        What they were made of; None if they were told.
    head : Head or None
        What the unseen task brings, if it was named by that.
    """

    tasks: tuple[str, ...]
    weights: tuple[float, ...]
    similarities: tuple[float, ...] | None
    head: Head | None


def weigh(
    seen: Seen,
    stack: ExitStack,
    *,
    weights: Sequence[float] | None,
    like: "HeadSource | None",
    vectors: "Vectors | None",
    minus: "HeadSource | None",
    plain_sum: bool,
) -> Weights:
    """Tell the weights; see `dtscodec.fusion.fuse.fuse` for the parameters.

    Raises
    ------
    ConfigError
        They cannot be told, or settings exclude each other.
    """
    tasks = tuple(map(_task, seen.packs))
    if weights is not None:
        if vectors is not None or minus is not None or plain_sum:
            raise ConfigError("expected weights, or something to tell them by, got both")
        return Weights(tasks, _checked(weights, len(tasks)), None, None if like is None else Head(like, seen, stack))
    if like is None:
        raise ConfigError("expected the unseen task or weights, got neither", Remedy("give {like} or {weights}"))
    if vectors is not None:
        if minus is not None:
            raise ConfigError("expected an initial head to subtract from heads, got it with vectors")
        head, similarities = None, _of_vectors(seen, vectors, like)
    else:
        head = Head(like, seen, stack)
        similarities = _of_heads(seen, head, None if minus is None else Head(minus, seen, stack))
    return Weights(tasks, weights_of(similarities, plain_sum), similarities, head)


def _checked(weights: Sequence[float], count: int) -> tuple[float, ...]:
    if len(weights) != count:
        raise ConfigError(f"expected a weight for each of {count} packs, got {len(weights)}")
    told = tuple(float(weight) for weight in weights)
    if not all(map(isfinite, told)) or not any(told):
        raise ConfigError(f"expected finite weights, not all of them 0, got {', '.join(map(str, told))}")
    return told


def _task(pack: Pack) -> str:
    """A pack's task, or else its file's name."""
    return pack.summary.task or (_stem(pack) if pack.path else "pack")


def _stem(pack: Pack) -> str:
    return pack.path.name.removesuffix(".safetensors").removesuffix(".dts") if pack.path else ""


def _of_heads(seen: Seen, head: Head, minus: Head | None) -> tuple[float, ...]:
    """Cosines of heads."""
    names = [name for name in head.names if head.specs[name].dtype in CODED_DTYPES]
    unseen = {name: head.read(name).tensor() for name in names}
    others = [
        {
            name: seen.stored(pack, name, f"{name!r}, which is compared, is a delta").tensor()
            for name in names
            if name in entries
        }
        for pack, entries in zip(seen.packs, seen.entries, strict=True)
    ]
    if minus is not None:
        initial = {name: minus.read(name).tensor() for name in names if name in minus.names}
        unseen, *others = (_relative(tensors, initial) for tensors in (unseen, *others))
    return cosines(*head_vectors(unseen, others))


def _relative(tensors: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A head by what training made of it; without tensors that the initial one has not, or in another shape."""
    return {
        name: tensor.double() - initial[name].double()
        for name, tensor in tensors.items()
        if name in initial and initial[name].shape == tensor.shape
    }


def _of_vectors(seen: Seen, vectors: "Vectors", like: "HeadSource") -> tuple[float, ...]:
    """Cosines of vectors that are given."""
    with open_checkpoint(vectors) as given:
        unseen = _vector(given, like) if isinstance(like, str) and like in given.specs else _only_vector(like)
        others = []
        for pack in seen.packs:
            name = next((name for name in (pack.summary.task, _stem(pack)) if name in given.specs), None)
            if name is None:
                known = ", ".join(list(given.specs)[:5])
                raise ConfigError(f"{given.location}: expected a vector for {_task(pack)!r}, got {known or 'none'}")
            others.append(_vector(given, name))
    return cosines(unseen, others)


def _vector(given: Checkpoint, name: str) -> Tensor:
    spec = given.specs[name]
    if spec.dtype not in CODED_DTYPES or len(spec.shape) not in (1, 2) or not spec.elements:
        raise ConfigError(f"{given.location}: expected {name!r} as a vector or rows of vectors, got {spec}")
    return task_vector(tensor_from_bytes(given.read(name), spec))


def _only_vector(like: "HeadSource") -> Tensor:
    """The vector of a file that has just one."""
    if isinstance(like, Pack) or not isinstance(like, (str, os.PathLike, Mapping)):
        raise ConfigError("expected the unseen task's vector, or its name among the vectors, got a checkpoint")
    with open_checkpoint(like) as given:
        if len(given.specs) != 1:
            detail = f"expected a file of one vector, or a name among the vectors, got {len(given.specs)} tensors"
            raise ConfigError(f"{given.location}: {detail}", Remedy("give a head with {head}"))
        return _vector(given, next(iter(given.specs)))

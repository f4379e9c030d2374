"""Mixing weights of a fusion: given, or computed from the similarity of each task to the unseen one."""

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
from dtscodec.fusion.similarity import cosines, head_vectors, normalize_similarities, task_vector
from dtscodec.fusion.source_packs import SourcePacks
from dtscodec.packs.pack import Pack

Vectors: TypeAlias = "Source"
"""A safetensors file, or tensors in memory: a vector for each task."""


@dataclass(frozen=True, slots=True)
class MixingWeights:
    """The mixing weights of source packs.

    Parameters
    ----------
    tasks : tuple of str
        The packs' tasks.
    weights : tuple of float
        The factor on each pack's delta.
    similarities : tuple of float or None
        Cosines that they were computed from; None if weights were given.
    head : Head or None
        The unseen task's head, if that was given.
    """

    tasks: tuple[str, ...]
    weights: tuple[float, ...]
    similarities: tuple[float, ...] | None
    head: Head | None


def find_weights(
    sources: SourcePacks,
    stack: ExitStack,
    *,
    weights: Sequence[float] | None,
    like: "HeadSource | None",
    vectors: "Vectors | None",
    minus: "HeadSource | None",
    plain_sum: bool,
) -> MixingWeights:
    """Return the mixing weights; parameters as for `dtscodec.fuse`.

    Raises
    ------
    ConfigError
        They cannot be computed, or arguments exclude each other.
    """
    tasks = tuple(map(_task, sources.packs))
    if weights is not None:
        if vectors is not None or minus is not None or plain_sum:
            raise ConfigError("expected weights, or vectors and heads to compute them from, got both")
        return MixingWeights(
            tasks, _checked(weights, len(tasks)), None, None if like is None else Head(like, sources, stack)
        )
    if like is None:
        raise ConfigError("expected the unseen task or weights, got neither", Remedy("give {like} or {weights}"))
    if vectors is not None:
        if minus is not None:
            raise ConfigError("expected an initial head to subtract from heads, got it with vectors")
        head, similarities = None, _of_vectors(sources, vectors, like)
    else:
        head = Head(like, sources, stack)
        similarities = _of_heads(sources, head, None if minus is None else Head(minus, sources, stack))
    return MixingWeights(tasks, normalize_similarities(similarities, plain_sum), similarities, head)


def _checked(weights: Sequence[float], count: int) -> tuple[float, ...]:
    if len(weights) != count:
        raise ConfigError(f"expected a weight for each of {count} packs, got {len(weights)}")
    checked = tuple(float(weight) for weight in weights)
    if not all(map(isfinite, checked)) or not any(checked):
        raise ConfigError(f"expected finite weights, not all of them 0, got {', '.join(map(str, checked))}")
    return checked


def _task(pack: Pack) -> str:
    """Return a pack's task, or else the name of its file."""
    return pack.summary.task or (_stem(pack) if pack.path else "pack")


def _stem(pack: Pack) -> str:
    return pack.path.name.removesuffix(".safetensors").removesuffix(".dts") if pack.path else ""


def _of_heads(sources: SourcePacks, head: Head, minus: Head | None) -> tuple[float, ...]:
    """Return the cosines of the packs' heads to the unseen task's."""
    names = [name for name in head.names if head.specs[name].dtype in CODED_DTYPES]
    unseen = {name: head.read(name).tensor() for name in names}
    others = [
        {
            name: sources.stored(pack, name, f"{name!r}, which is compared, is a delta").tensor()
            for name in names
            if name in entries
        }
        for pack, entries in zip(sources.packs, sources.entries, strict=True)
    ]
    if minus is not None:
        initial = {name: minus.read(name).tensor() for name in names if name in minus.names}
        unseen, *others = (_relative(tensors, initial) for tensors in (unseen, *others))
    return cosines(*head_vectors(unseen, others))


def _relative(tensors: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a head minus the initial one, without tensors that the latter lacks or has in another shape."""
    return {
        name: tensor.double() - initial[name].double()
        for name, tensor in tensors.items()
        if name in initial and initial[name].shape == tensor.shape
    }


def _of_vectors(sources: SourcePacks, vectors: "Vectors", like: "HeadSource") -> tuple[float, ...]:
    """Return the cosines of given vectors to the unseen task's."""
    with open_checkpoint(vectors) as given:
        unseen = _vector(given, like) if isinstance(like, str) and like in given.specs else _only_vector(like)
        others = []
        for pack in sources.packs:
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
    """Return the vector of a file with just one."""
    if isinstance(like, Pack) or not isinstance(like, (str, os.PathLike, Mapping)):
        raise ConfigError("expected the unseen task's vector, or its name among the vectors, got a checkpoint")
    with open_checkpoint(like) as given:
        if len(given.specs) != 1:
            detail = f"expected a file of one vector, or a name among the vectors, got {len(given.specs)} tensors"
            raise ConfigError(f"{given.location}: {detail}", Remedy("give a head with {head}"))
        return _vector(given, next(iter(given.specs)))

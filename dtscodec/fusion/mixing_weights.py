"""Mixing weights of a fusion: given, or computed from the similarity of each task to the unseen one."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import ConfigError, Remedy, assert_never
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.fusion.heads import Head, HeadSource
from dtscodec.fusion.similarity import cosines, head_vectors, normalize_similarities, task_vector
from dtscodec.fusion.source_packs import SourcePacks
from dtscodec.packs.pack import Pack


@dataclass(frozen=True, slots=True)
class HeadSimilarity:
    """Compares tasks by their heads; a value of `like` in `dtscodec.fuse`.

    Parameters
    ----------
    head : path, mapping of tensors, Checkpoint or Pack
        The unseen task's head, or a model or pack that has it.
    minus : path, mapping of tensors, Checkpoint or Pack, optional
        The initial head that all heads were trained from; subtracted before they are compared.
    plain_sum : bool
        Let negative cosines count, as the authors of DTS do, in place of clamping them at zero.
    """

    head: HeadSource
    minus: "HeadSource | None" = None
    plain_sum: bool = False


@dataclass(frozen=True, slots=True)
class VectorSimilarity:
    """Compares tasks by given vectors, such as embeddings of their descriptions; a value of `like` in `dtscodec.fuse`.

    Parameters
    ----------
    task : str, path or mapping of tensors
        The unseen task: its name among `vectors`, or a file or mapping of one vector.
    vectors : path or mapping of tensors
        A vector for each of the packs' tasks by name, [d], or one per class, [classes, d], of which the mean is
        compared.
    plain_sum : bool
        As for `HeadSimilarity`.
    """

    task: Source
    vectors: Source
    plain_sum: bool = False


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
        Cosines that the weights were computed from; None if weights were given.
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
    weights: Sequence[float] | None,
    like: "HeadSource | HeadSimilarity | VectorSimilarity | None",
) -> MixingWeights:
    """Return the mixing weights.

    Parameters
    ----------
    sources : SourcePacks
        The packs of the fusion.
    stack : ExitStack
        Closes the files that are opened here.
    weights, like
        As for `dtscodec.fuse`.

    Raises
    ------
    ConfigError
        They cannot be computed, or arguments exclude each other.
    """
    tasks = tuple(map(_task, sources.packs))
    if isinstance(like, (HeadSimilarity, VectorSimilarity)):
        if weights is not None:
            raise ConfigError("expected weights, or vectors or heads to compute them from, got both")
        return _by_similarity(sources, stack, tasks, like)
    if weights is not None:
        head = None if like is None else Head(like, sources, stack)
        return MixingWeights(tasks, _checked(weights, len(tasks)), None, head)
    if like is None:
        raise ConfigError("expected the unseen task or weights, got neither", Remedy("give {like} or {weights}"))
    return _by_similarity(sources, stack, tasks, HeadSimilarity(like))


def _by_similarity(
    sources: SourcePacks, stack: ExitStack, tasks: tuple[str, ...], like: HeadSimilarity | VectorSimilarity
) -> MixingWeights:
    """Return the mixing weights that follow from cosines, and the head that was compared."""
    match like:
        case VectorSimilarity():
            head, similarities = None, _of_vectors(sources, like)
        case HeadSimilarity():
            head = Head(like.head, sources, stack)
            similarities = _of_heads(sources, head, None if like.minus is None else Head(like.minus, sources, stack))
        case _:
            assert_never(like)
    return MixingWeights(tasks, normalize_similarities(similarities, like.plain_sum), similarities, head)


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
    # Integers, such as counters, are not compared.
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
    # Subtract the initial head, which the heads trained from it have in common.
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


def _of_vectors(sources: SourcePacks, like: VectorSimilarity) -> tuple[float, ...]:
    """Return the cosines of given vectors to the unseen task's."""
    with open_checkpoint(like.vectors) as given:
        # The unseen task is a name among the vectors, or a file with its own.
        is_name = isinstance(like.task, str) and like.task in given.specs
        unseen = _vector(given, str(like.task)) if is_name else _only_vector(like.task)
        others = []
        for pack in sources.packs:
            # By the pack's task, else by the name of its file.
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


def _only_vector(source: Source) -> Tensor:
    """Return the vector of a file with just one."""
    with open_checkpoint(source) as given:
        if len(given.specs) != 1:
            detail = f"expected a file of one vector, or a name among the vectors, got {len(given.specs)} tensors"
            raise ConfigError(f"{given.location}: {detail}", Remedy("give a head with {head}"))
        return _vector(given, next(iter(given.specs)))

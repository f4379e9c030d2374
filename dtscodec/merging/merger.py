"""Merged tensors, made one at a time as they are read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.activations.gram_file import Grams
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.identity import MADE_BY, Base
from dtscodec.checkpoints.open_inputs import as_base, as_checkpoint, weight_paths
from dtscodec.checkpoints.stored_tensor import convert_dtype, is_finite
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, torch_dtype
from dtscodec.errors import ConfigError, MergeError
from dtscodec.files.random_access import Bytes
from dtscodec.linalg.devices import usable_device
from dtscodec.merging.alpha_search import Search, golden_section
from dtscodec.merging.distances import Distances, Sizes
from dtscodec.merging.matrices import in_pieces
from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.methods.average import Average, mean_of
from dtscodec.merging.methods.esm import Esm, layer_factors
from dtscodec.merging.methods.method import Fuse, TaskMethod, Told
from dtscodec.merging.methods.registry import Method, describe, make_method
from dtscodec.merging.task_vector_store import Kept, kept_in
from dtscodec.merging.task_vectors import Moves
from dtscodec.storage.paths import work_folder
from dtscodec.storage.staging import fetched_for

FineTune: TypeAlias = "Source | Checkpoint"
GramSource: TypeAlias = "Source | Grams"


def reads(method: Method) -> int:
    """How often a merge reads every fine-tune, and tells `progress` of it; a search of alpha reads once more."""
    return 1 if isinstance(method, Average) else 1 + method.passes + _keeps(method)


@contextmanager
def merging(
    fine_tunes: Sequence[FineTune],
    out: Path,
    method: str | Method = "average",
    base: "Source | Base | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[GramSource] = (),
    device: str = "cpu",
    progress: Told = lambda size: None,
) -> Iterator["Merger"]:
    """A merge whose result is read tensor by tensor within the ``with``; arguments as for `merge`."""
    chosen = make_method(method) if isinstance(method, str) else method
    _check(chosen, len(fine_tunes), base is not None, bool(grams))
    usable_device(device)
    with ExitStack() as stack:
        fetched = stack.enter_context(fetched_for(out, base, *fine_tunes))
        opened = [stack.enter_context(as_checkpoint(fine, fetched, whole=True)) for fine in fine_tunes]
        opened_base = stack.enter_context(as_base(base, fetched, whole=True)).checkpoint if base is not None else None
        tasks = Tasks(opened, opened_base, raw, [stack.enter_context(_as_grams(source)) for source in grams])
        if not tasks.merged and not tasks.averaged:
            raise MergeError(f"{opened[0].location}: expected tensors to merge, got none that all fine-tunes share")
        kept = stack.enter_context(kept_in(work_folder(out)))
        yield Merger(tasks, chosen, kept, device, progress)


def _check(method: Method, count: int, has_base: bool, has_grams: bool) -> None:
    least = 2 if isinstance(method, Average) else 1
    if count < least:
        raise MergeError(f"{method.name}: expected at least {least} fine-tune{'s' * (least > 1)}, got {count}")
    if not isinstance(method, Average) and not has_base:
        raise ConfigError(f"{method.name}: expected the base of the fine-tunes, got none; name it with --base")
    if has_grams and not isinstance(method, Esm):
        raise ConfigError(f"{method.name}: expected no Gram matrices, got some; --grams is for esm")


def _as_grams(source: GramSource) -> "AbstractContextManager[Grams]":
    return nullcontext(source) if isinstance(source, Grams) else Grams(source)


def _keeps(method: Method) -> bool:
    """Whether all merged moves must be known before the first is used."""
    return isinstance(method, Esm) and method.layer_scaling


def _prepared(method: TaskMethod, tasks: Tasks, told: Told) -> Fuse:
    return method.prepare(tasks, told)


class Merger:
    """Merged tensors, made when they are read, and account of what was seen meanwhile."""

    def __init__(self, tasks: Tasks, method: Method, kept: Kept, device: str, progress: Told) -> None:
        self.tasks, self.method = tasks, method
        self._kept, self._device, self._progress = kept, device, progress
        self._sizes = Sizes(len(tasks), tasks.base is not None)
        self._fuse = None if isinstance(method, Average) else _prepared(method, tasks, progress)
        self._factors: dict[str, float] | None = None
        self._scaled = frozenset(method.scaled(tasks) if isinstance(method, Esm) else tasks.moved)
        if _keeps(method):
            self._keep_all()

    def _keep_all(self) -> None:
        """Compute all merged moves once."""
        for name in self.tasks.moved:
            self._kept.add(name, self._merged_move(self._moves(name)))
            self._progress(self._nbytes(name))
        self._factors = {}
        if isinstance(self.method, Esm) and self.method.layer_scaling:
            self._factors = layer_factors({name: self._kept.norms[name] for name in self.tasks.matrices})

    def search(self, search: Search) -> None:
        """Set alpha to what a user's score likes best.

        Raises
        ------
        ConfigError
            The method has no alpha.
        """
        if isinstance(self.method, Average):
            raise ConfigError("average: expected a method that has an alpha to search, got none")
        if self._factors is None:
            self._keep_all()
        found, _ = golden_section(lambda alpha: search.score(_Weights(self, alpha)), search)
        self.method = replace(self.method, alpha=found)

    # Tensors

    def read(self, name: str) -> Bytes:
        """The bytes of a merged tensor; counts how far it is from each fine-tune's."""
        self._progress(self._nbytes(name))
        if name in self.tasks.copied:
            return self.tasks.first(name).data
        if self.tasks.base is None or name in self.tasks.averaged:
            values = list(self.tasks.values(name))
            merged = self._mean(name, values)
            if self.tasks.base is None:
                self._sizes.add(values, merged)
            return tensor_bytes(merged)
        return tensor_bytes(self._read_merged(name))

    def _read_merged(self, name: str) -> Tensor:
        moves = self._moves(name)
        start = self.tasks.base_values(name)
        if isinstance(self.method, Average):
            merged = self._mean(name, list(self.tasks.values(name)))
        else:
            move = self._merged_move(moves) if self._factors is None else self._known_move(name)
            merged = self._moved(name, start, move, self.method.alpha)
        exact = in_pieces([merged, start], torch.float64, lambda pair: pair[0].double() - pair[1].double())
        self._sizes.add(moves.deltas, exact)
        return merged

    def weights(self, name: str, alpha: float) -> Tensor:
        """A tensor of the result, with another alpha; all merged moves are known."""
        if name in self.tasks.copied:
            return self.tasks.first(name).tensor()
        if name in self.tasks.averaged:
            return self._mean(name, list(self.tasks.values(name)))
        return self._moved(name, self.tasks.base_values(name), self._known_move(name), alpha)

    def _known_move(self, name: str) -> Tensor:
        return self._kept.read(name) * (self._factors or {}).get(name, 1.0)

    def _moved(self, name: str, start: Tensor, move: Tensor, alpha: float) -> Tensor:
        """The base's tensor with a move, in the result's dtype."""
        factor = alpha if name in self._scaled else 1.0
        fits = start.dtype != torch.float64 and abs(factor) <= torch.finfo(torch.float32).max
        wide = torch.float32 if fits else torch.float64

        def add(pair: list[Tensor]) -> Tensor:
            return torch.add(pair[0].to(wide), pair[1], alpha=factor)

        return self._result(name, [start, move], add, "choose a smaller --alpha, or leave it out with --raw")

    def _mean(self, name: str, values: list[Tensor]) -> Tensor:
        return self._result(name, values, mean_of, "leave it out with --raw")

    def _result(self, name: str, parts: list[Tensor], make: Callable[[list[Tensor]], Tensor], way_out: str) -> Tensor:
        """What a function makes of some tensors, in the result's dtype; MergeError if that does not hold it."""
        dtype = self.tasks.specs[name].dtype
        found = in_pieces(parts, torch_dtype(dtype), lambda pieces: convert_dtype(make(pieces), dtype))
        if not is_finite(found):
            raise MergeError(f"{name}: expected finite merged weights in {dtype}, got infinity or NaN; {way_out}")
        return found

    def _moves(self, name: str) -> Moves:
        return self.tasks.moves(name, edges=not isinstance(self.method, Average) and self.method.edges)

    def _merged_move(self, moves: Moves) -> Tensor:
        assert self._fuse is not None
        there = [delta.to(self._device) for delta in moves.deltas]
        return self._fuse(Moves(moves.name, there, moves.edges)).cpu()

    def _nbytes(self, name: str) -> int:
        return len(self.tasks) * self.tasks.specs[name].nbytes

    # What there is to say

    @property
    def text(self) -> str:
        """The method and all its options."""
        return describe(self.method)

    @property
    def metadata(self) -> dict[str, str]:
        """The first fine-tune's, and how the result was made."""
        return {**self.tasks.fine_tunes[0].metadata, MADE_BY: self.text}

    def inputs(self, out: Path) -> Iterator[Path]:
        """Files that are read, and must not be replaced."""
        opened = [*self.tasks.fine_tunes, *([self.tasks.base] if self.tasks.base is not None else [])]
        return weight_paths(out, *opened)

    def distances(self) -> tuple[Distances, ...]:
        """How far each fine-tune is from candidate bases; all tensors have been read."""
        return self._sizes.distances()

    def without_inputs(self) -> tuple[str, ...]:
        """Matrices for which the SVD stands in, since nothing is known of their inputs."""
        known = self.tasks.has_grams
        return tuple(name for name in self.tasks.matrices if not known(name)) if isinstance(self.method, Esm) else ()


class _Weights(Mapping[str, Tensor]):
    """The merged weights for some alpha, each made when it is asked for."""

    def __init__(self, merger: Merger, alpha: float) -> None:
        self._merger, self._alpha = merger, alpha

    def __getitem__(self, name: str) -> Tensor:
        return self._merger.weights(self._merger.tasks.ties.get(name, name), self._alpha)

    def __iter__(self) -> Iterator[str]:
        return iter(self._merger.tasks.specs)

    def __len__(self) -> int:
        return len(self._merger.tasks.specs)

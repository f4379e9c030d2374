"""Merged tensors, each computed when it is read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.activations.gram_file import GramFile
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.merged_base import MADE_BY
from dtscodec.checkpoints.open import as_checkpoint, weight_paths
from dtscodec.checkpoints.stored_tensor import convert_dtype, is_finite
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, torch_dtype
from dtscodec.errors import MergeError, Remedy
from dtscodec.files.range_reader import Bytes
from dtscodec.linalg.devices import usable_device
from dtscodec.merging.alpha_search import AlphaSearch, golden_section
from dtscodec.merging.distances import Distances, DistanceTotals
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.merging.methods.registry import make_method
from dtscodec.merging.quantized_fine_tunes import check_base_quantization
from dtscodec.merging.task_vector_store import TaskVectorStore, open_store
from dtscodec.merging.task_vectors import TaskVectors, map_chunks, mean_tensors
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, staging_folder_for
from dtscodec.storage.paths import work_folder

FineTune: TypeAlias = "Source | Checkpoint"
GramSource: TypeAlias = "Source | GramFile"


@contextmanager
def open_merger(
    fine_tunes: Sequence[FineTune],
    out: Path,
    method: str | MergeMethod = "average",
    base: "Source | Base | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[GramSource] = (),
    device: str = "cpu",
    dequantize_base: bool = False,
    progress: ProgressCallback = no_progress,
) -> Iterator["Merger"]:
    """Open a merge, whose tensors can be read within a ``with`` block.

    Parameters
    ----------
    fine_tunes, method, base, raw, grams, device, dequantize_base, progress
        As for `dtscodec.merge`.
    out : Path
        The output; temporary files lie beside it.

    Raises
    ------
    DtsError
        As for `dtscodec.merge`.
    """
    chosen = make_method(method) if isinstance(method, str) else method
    chosen.check_inputs(len(fine_tunes), base is not None, bool(grams))
    usable_device(device)
    with ExitStack() as stack:
        staging = stack.enter_context(staging_folder_for(out, base, *fine_tunes))
        access = Access(staging, whole=True)
        opened = [stack.enter_context(as_checkpoint(fine, access)) for fine in fine_tunes]
        pretrained = None if base is None else stack.enter_context(as_base(base, access, dequantize_base))
        check_base_quantization(pretrained, opened, raw)
        matrices = [stack.enter_context(_as_grams(source)) for source in grams]
        inputs = MergeInputs(opened, pretrained.checkpoint if pretrained else None, raw, matrices)
        if not inputs.merged and not inputs.averaged:
            raise MergeError(f"{opened[0].location}: expected tensors to merge, got none that all fine-tunes share")
        yield Merger(inputs, chosen, stack.enter_context(open_store(work_folder(out))), device, progress)


def _as_grams(source: GramSource) -> "AbstractContextManager[GramFile]":
    return nullcontext(source) if isinstance(source, GramFile) else GramFile(source)


class Merger:
    """Merged tensors, each computed when it is read, and the distances of the fine-tunes from them.

    Parameters
    ----------
    inputs : MergeInputs
        The fine-tunes, and their base.
    method : MergeMethod
        How they are merged.
    store : TaskVectorStore
        Stores merged task vectors if all are needed before the first is used.
    device : str
        Device to combine task vectors on.
    progress : callable
        Called with the bytes of fine-tunes that have been read.
    """

    def __init__(
        self, inputs: MergeInputs, method: MergeMethod, store: TaskVectorStore, device: str, progress: ProgressCallback
    ) -> None:
        self.inputs, self.method = inputs, method
        self._store, self._device, self._progress = store, device, progress
        self._totals = DistanceTotals(len(inputs), inputs.base is not None)
        self._combine = method.prepare(inputs, progress)
        self._factors: dict[str, float] | None = None
        """Factors of layers; None while merged task vectors are not in the store, and are computed on access."""
        with_grams = [name for name in inputs.matrix_names if inputs.has_grams(name)]
        self._scaled = frozenset(method.scaled_names(inputs.task_vector_names, inputs.matrix_names, with_grams))
        if method.scales_layers:
            self._store_all()

    def _store_all(self) -> None:
        """Compute and store all merged task vectors, and compute the factors of layers."""
        for name in self.inputs.task_vector_names:
            self._store.add(name, self._merge_vectors(self._task_vectors(name)))
            self._progress(self.inputs.nbytes(name))
        self._factors = self.method.layer_factors({name: self._store.norms[name] for name in self.inputs.matrix_names})

    def search(self, search: AlphaSearch) -> None:
        """Set alpha to the value with the best score.

        Parameters
        ----------
        search : AlphaSearch
            The score and the settings of the search.

        Raises
        ------
        ConfigError
            The method has no alpha.
        """
        self.method.with_alpha(1.0)  # Raises ConfigError now, before the longer work.
        if self._factors is None:
            self._store_all()
        found, _ = golden_section(lambda alpha: search.score(_Weights(self, alpha)), search)
        self.method = self.method.with_alpha(found)

    # Tensors

    def read(self, name: str) -> Bytes:
        """Compute a merged tensor, add its distances from the fine-tunes' to the totals, and return its bytes."""
        self._progress(self.inputs.nbytes(name))
        if name in self.inputs.copied:
            return self.inputs.first_tensor(name).data
        if self.inputs.base is None or name in self.inputs.averaged:
            values = list(self.inputs.fine_tune_tensors(name))
            merged = self._mean(name, values)
            # Differences of tensors equal those of task vectors: distances need no base.
            if self.inputs.base is None:
                self._totals.add(values, merged)
            return tensor_bytes(merged)
        return tensor_bytes(self._read_merged(name))

    def _read_merged(self, name: str) -> Tensor:
        vectors = self._task_vectors(name)
        start = self.inputs.base_tensor(name)
        if self._combine is None:
            merged = self._mean(name, list(self.inputs.fine_tune_tensors(name)))
        else:
            vector = self._merge_vectors(vectors) if self._factors is None else self._stored_vector(name)
            merged = self._add(name, start, vector, self.method.alpha)
        # Merged minus base, after rounding to the result's dtype: packs are relative to the rounded weights.
        exact = map_chunks([merged, start], torch.float64, lambda pair: pair[0].double() - pair[1].double())
        self._totals.add(vectors.deltas, exact)
        return merged

    def weights(self, name: str, alpha: float) -> Tensor:
        """Return a tensor of the result at some alpha, once all merged task vectors are stored."""
        if name in self.inputs.copied:
            return self.inputs.first_tensor(name).tensor()
        if name in self.inputs.averaged:
            return self._mean(name, list(self.inputs.fine_tune_tensors(name)))
        return self._add(name, self.inputs.base_tensor(name), self._stored_vector(name), alpha)

    def _stored_vector(self, name: str) -> Tensor:
        return self._store.read(name) * (self._factors or {}).get(name, 1.0)

    def _add(self, name: str, start: Tensor, vector: Tensor, alpha: float | None) -> Tensor:
        """Return base + alpha * merged task vector, in the result's dtype."""
        # Tensors that alpha does not scale get their task vectors as they are.
        factor = alpha if name in self._scaled and alpha is not None else 1.0
        # In float64 if the base is, or if float32 cannot hold the factor.
        fits = start.dtype != torch.float64 and abs(factor) <= torch.finfo(torch.float32).max
        wide = torch.float32 if fits else torch.float64

        def add(pair: list[Tensor]) -> Tensor:
            return torch.add(pair[0].to(wide), pair[1], alpha=factor)

        return self._convert(name, [start, vector], add, Remedy("choose a smaller {alpha}, or leave it out with {raw}"))

    def _mean(self, name: str, values: list[Tensor]) -> Tensor:
        return self._convert(name, values, mean_tensors, Remedy("leave it out with {raw}"))

    def _convert(
        self, name: str, parts: list[Tensor], make: Callable[[list[Tensor]], Tensor], remedy: Remedy
    ) -> Tensor:
        """Return an elementwise function of tensors in the result's dtype; MergeError if that overflows."""
        dtype = self.inputs.specs[name].dtype
        found = map_chunks(parts, torch_dtype(dtype), lambda chunks: convert_dtype(make(chunks), dtype))
        if not is_finite(found):
            raise MergeError(f"{name}: expected finite merged weights in {dtype}, got infinity or NaN", remedy)
        return found

    def _task_vectors(self, name: str) -> TaskVectors:
        return self.inputs.task_vectors(name, self.method.needs_noise_edges)

    def _merge_vectors(self, vectors: TaskVectors) -> Tensor:
        assert self._combine is not None
        deltas = [delta.to(self._device) for delta in vectors.deltas]
        return self._combine(TaskVectors(vectors.name, deltas, vectors.noise_edges)).cpu()

    # Report

    @property
    def metadata(self) -> dict[str, str]:
        """The first fine-tune's metadata, and the method with all options."""
        return {**self.inputs.fine_tunes[0].metadata, MADE_BY: self.method.describe()}

    def paths(self, out: Path) -> Iterator[Path]:
        """Yield the input files beside the output, which must not be replaced."""
        opened = [*self.inputs.fine_tunes, *([self.inputs.base] if self.inputs.base is not None else [])]
        return weight_paths(out, *opened)

    def distances(self) -> tuple[Distances, ...]:
        """Return the distances of each fine-tune from candidate bases, once all tensors have been read."""
        return self._totals.distances()

    def without_grams(self) -> tuple[str, ...]:
        """Return the weights that are merged by their SVD, since a Gram matrix of their inputs is missing."""
        names = self.inputs.matrix_names if self.method.takes_grams else []
        return tuple(name for name in names if not self.inputs.has_grams(name))


class _Weights(Mapping[str, Tensor]):
    """The merged weights at some alpha, each computed on access; the argument of a score."""

    def __init__(self, merger: Merger, alpha: float) -> None:
        self._merger, self._alpha = merger, alpha

    def __getitem__(self, name: str) -> Tensor:
        return self._merger.weights(self._merger.inputs.ties.get(name, name), self._alpha)

    def __iter__(self) -> Iterator[str]:
        return iter(self._merger.inputs.specs)

    def __len__(self) -> int:
        return len(self._merger.inputs.specs)

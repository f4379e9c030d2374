"""A model and what it is given -> the Gram matrices of its layers' inputs (`dtscodec.activations.gram_file`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.activations.gram_file import Gram, GramSet, save_grams
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.checkpoint_names import checkpoint_names
from dtscodec.evaluation.compare_behaviour import model_directory
from dtscodec.evaluation.prepared_samples import prepare_samples
from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors
from dtscodec.runtime.branches.factory import branch_class
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.storage.paths import as_output


class GramCollector:
    """Watches the inputs of a model's linear layers. What several layers share is counted once.

    Parameters
    ----------
    model : nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            f"{name}.weight" if name else "weight": module
            for name, module in model.named_modules()
            if branch_class(module) in (LinearBranch, Conv1DBranch)
        }
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._same: dict[str, str] = {}
        self._seen: dict[int, tuple[Tensor, str]] = {}
        self._mask: Tensor | None = None

    @contextmanager
    def watching(self, mask: Tensor | None = None) -> Iterator[None]:
        """A context for one call of the model.

        Parameters
        ----------
        mask : [texts, tokens], optional
            Not 0 where a token is none of the padding, which images have none of.
        """
        self._mask = mask
        hooks = [
            module.register_forward_pre_hook(partial(self._look, name), with_kwargs=True)
            for name, module in self._layers.items()
        ]
        try:
            yield
        finally:
            self._seen.clear()
            for hook in hooks:
                hook.remove()

    def _look(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Add the inputs of a layer, unless another one has been given the very same tensor."""
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        _, first = self._seen.setdefault(id(x), (x, name))  # Held, so that no other tensor gets its id meanwhile.
        if name not in self._sums:
            self._same.setdefault(name, first)
        if self._same[name] == name:
            self._add(name, unpadded_rows(x.detach(), self._mask).double())

    def _add(self, name: str, rows: Tensor) -> None:
        moment, total, count = self._sums.get(name, (0.0, 0.0, 0))
        self._sums[name] = moment + rows.T @ rows, total + rows.sum(0), count + len(rows)

    def grams(self) -> GramSet:
        """What was seen, by weight as the model names it."""
        found = {
            name: Gram((moment / max(1, count)).cpu(), (total / max(1, count)).cpu(), count)
            for name, (moment, total, count) in self._sums.items()
        }
        shared = {name: first for name, first in self._same.items() if first != name and first in found}
        input_first = [name for name, module in self._layers.items() if branch_class(module) is Conv1DBranch]
        return GramSet(found, shared, frozenset(input_first))


def unpadded_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """What a layer is given or puts out as [rows, features], without the rows of padding.

    Parameters
    ----------
    values : [..., features]
    mask : [texts, tokens], optional
        Not 0 where a token is none of the padding.
    """
    flat = values.reshape(-1, values.shape[-1])
    return flat[mask.flatten().bool()] if mask is not None and len(flat) == mask.numel() else flat


def collect_grams(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> GramSet:
    """Gram matrices of the inputs of all linear layers of any model.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of mapping
        What it is called with, by keyword: texts, images, sounds. ``attention_mask`` tells padding, if it is there.

    Returns
    -------
    GramSet
        By the model's own names of its weights.
    """
    collector = GramCollector(model)
    for batch in batches:
        with torch.no_grad(), collector.watching(batch.get("attention_mask")):
            model(**batch)
    return collector.grams()


def collect(
    fine_tune: Source,
    out: "str | Path",
    *,
    samples: "str | Path",
    model: "str | Path | None" = None,
    batch_size: int = 16,
    device: str = "cpu",
    force: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> GramSet:
    """Write the Gram matrices of a fine-tune's layers on texts or images, under the names that its checkpoint has.

    Parameters
    ----------
    fine_tune : path or mapping of tensors
    out : path
        ``*.safetensors``.
    samples, model, batch_size
        As for `dtscodec.compare_behaviour`.
    device : str
        Where the model runs.
    force : bool
        Replace a file that exists.
    progress : callable
        Told the number of samples of each batch that is done.

    Raises
    ------
    SamplesError, CheckpointError, BackendError
        As for `dtscodec.compare_behaviour`; a layer is given NaN or infinity.
    OutputError
        The output exists, or cannot be written.
    """
    out = as_output(out)
    architecture = read_architecture(model_directory(model, fine_tune))
    given = prepare_samples(architecture, Path(samples))
    with open_checkpoint(fine_tune, whole=True) as fine:
        built = architecture.load(fine).to(device)
        names, where = checkpoint_names(architecture, fine.specs, built), fine.location
    collector = GramCollector(built)
    with quiet_transformers():
        for batch in given.batches(built, batch_size):
            inputs = batch.to(device).inputs
            told = transformers_errors(type(built).__name__, "a model that takes these samples")
            with torch.no_grad(), collector.watching(inputs.get("attention_mask")), told:
                built(**inputs)
            progress(batch.samples)
    seen = collector.grams()
    _check_finite(seen, names, where)
    found = seen.renamed(names)
    if not found.grams:
        raise CheckpointError(
            f"{architecture.directory}: expected linear layers, got none under the checkpoint's names"
        )
    save_grams(out, found, force)
    return found


def _check_finite(seen: GramSet, names: Mapping[str, str], where: str) -> None:
    """Raise CheckpointError, of the first layer to run, unless a file, of float32, can hold what was seen of all."""
    for name, gram in seen.grams.items():
        if not gram.moment.float().isfinite().all():
            detail = "expected finite inputs of layers, got NaN or infinity; are the weights finite?"
            raise CheckpointError(f"{where}: {names.get(name, name)}: {detail}")

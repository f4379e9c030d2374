"""Bias correction: what a layer puts out too little, in the mean, is added to its bias.

Plain quantizers do it (Nagel et al., arXiv 1906.04721, section 4.2) by the mean of a layer's inputs. Here layers are
corrected in the order in which they run, each by what it puts out after those before it, which are decoded and
corrected already.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.behaviour.batches import Batch
from dtscodec.calibration.collect import rows_of
from dtscodec.calibration.student import Student
from dtscodec.runtime.paths.kinds import path_kind
from dtscodec.runtime.paths.linear import Conv1DPath, LinearPath
from dtscodec.runtime.paths.norm import LayerNormPath

KINDS = LinearPath, Conv1DPath, LayerNormPath
"""Layers that add their bias to all else that they do."""


class OutputMeans:
    """The mean outputs of layers that have a bias and run once in each call.

    Parameters
    ----------
    model : nn.Module

    Attributes
    ----------
    model : nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if path_kind(module) in KINDS and getattr(module, "bias", None) is not None
        }
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._runs: dict[str, int] = {}
        self._calls = 0

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """A context for one call of the model."""
        mask = batch.inputs.get("attention_mask")
        hooks = [
            module.register_forward_hook(partial(self._look, name, mask)) for name, module in self._layers.items()
        ]
        self._calls += 1
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _look(self, name: str, mask: Tensor | None, module: nn.Module, inputs: Any, output: Tensor) -> None:
        rows = rows_of(output, mask)
        self._sums[name] = self._sums.get(name, 0.0) + rows.sum(0)
        self._counts[name] = self._counts.get(name, 0) + len(rows)
        self._runs[name] = self._runs.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """By module, in the order in which they run: float64 [d_out]."""
        return {n: total / self._counts[n] for n, total in self._sums.items() if self._runs[n] == self._calls}


def correct_biases(student: Student, batches: Sequence[Batch], means: Mapping[str, Tensor]) -> None:
    """Make the mean outputs of a student's layers those of its teacher, as far as the pack can hold that.

    A layer whose bias the pack does not code element by element stays as it is. Each that it does takes a call of the
    model, up to that layer, for every batch.

    Parameters
    ----------
    student : Student
    batches : sequence of Batch
    means : mapping
        Of the teacher on these batches, by module, in the order in which they run: float [d_out].
    """
    modules = dict(student.model.named_modules())
    for name, mean in means.items():
        if student.has_bias(modules[name]):
            found = _mean_output(student.model, modules[name], batches)
            student.shift_bias(modules[name], (mean - found).float())
            student.rebuild()


class _Reached(Exception):
    """The layer that is looked at has run; what follows it does not matter."""


@torch.no_grad()
def _mean_output(model: nn.Module, module: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """The mean output of a layer: float64 [d_out]."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(output)
        raise _Reached

    sums, count = torch.zeros(()), 0
    hook = module.register_forward_hook(look)
    try:
        for batch in batches:
            try:
                model(**batch.inputs)
            except _Reached:
                rows = rows_of(seen.pop(), batch.inputs.get("attention_mask"))
                sums, count = sums + rows.sum(0), count + len(rows)
    finally:
        hook.remove()
    return sums / max(1, count)

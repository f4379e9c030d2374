"""A callback for transformers' `Trainer` that appends the weights to a series while training goes on."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from dtscodec.series.series import Series
from dtscodec.series.series_index import Step

WAITING = 1
"""Copies of the weights that may wait for the one that is being encoded."""


class SeriesCallback(TrainerCallback):
    """Appends the model's weights to a series every few steps. One thread encodes, without a decomposition.

    Training waits while the weights are copied, and for the encoder if it is two saves behind. At most four copies are
    in memory: the last save, the one that is encoded, one that waits, and the one that is being made. The end of the
    training waits until all are on disk. An error of the encoder is raised by the next save, or at the end.

    Parameters
    ----------
    series : Series or path
        The series, or its directory.
    every : int
        Number of training steps from one save to the next.
    optimizer : bool
        Whether the optimizer's state is saved, too, as tensors named ``optimizer.NUMBER.KEY``.
    """

    def __init__(self, series: "Series | str | os.PathLike[str]", every: int = 1, *, optimizer: bool = False) -> None:
        if every < 1:
            raise ValueError(f"expected a number of steps of at least 1, got {every}")
        self.series = series if isinstance(series, Series) else Series(series)
        self._every, self._with_optimizer = every, optimizer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="series")
        self._pending: list[Future[Step]] = []
        self._last: dict[str, Tensor] | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Save the weights, if it is time to; see `transformers.TrainerCallback`."""
        if state.global_step % self._every == 0:
            optimizer = objects.get("optimizer") if self._with_optimizer else None
            self.save(objects["model"], state.global_step, optimizer)

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Wait until all saves are on disk; see `transformers.TrainerCallback`."""
        self.wait()

    def save(self, model: nn.Module, step: int, optimizer: "torch.optim.Optimizer | None" = None) -> None:
        """Copy the weights, and let the thread append them.

        Parameters
        ----------
        model : nn.Module
            The model.
        step : int
            Number of the step.
        optimizer : torch.optim.Optimizer, optional
            The optimizer, if its state is to be saved.
        """
        # Wait before the copy: that bounds memory.
        while len(self._pending) > WAITING:
            self._pending.pop(0).result()
        copy = _copied(model.state_dict())
        if optimizer is not None:
            copy |= _copied(_optimizer_tensors(optimizer))
        self._pending.append(self._thread.submit(self._append, copy, step))

    def wait(self) -> None:
        """Wait until all saves are on disk.

        Raises
        ------
        DtsError
            A save could not be appended.
        """
        while self._pending:
            self._pending.pop(0).result()

    def _append(self, weights: dict[str, Tensor], step: int) -> Step:
        added = self.series.append(weights, step=step, previous=self._last)
        self._last = weights
        return added


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies in main memory. Names of one memory get one copy."""
    copies: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = tensor.data_ptr(), tensor.shape, tensor.dtype
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True).contiguous()
        found[name] = copies[key]
    return found


def _optimizer_tensors(optimizer: "torch.optim.Optimizer") -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{key}": value
        for number, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }

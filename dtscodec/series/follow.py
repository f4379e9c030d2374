"""New steps of a series are applied: to a local checkpoint, or in place to a running model."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Plain
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.decoding.decode import decode
from dtscodec.errors import CheckpointError, ModelMismatchError, Remedy
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.runtime.model.model_slots import ModelSlots
from dtscodec.runtime.model.slots import Slot, writable
from dtscodec.series.series import Series
from dtscodec.series.series_index import Step
from dtscodec.storage.open_file import WHOLE


def follow_checkpoint(
    series: Series, out: str | os.PathLike[str], number: int | None = None, *, progress: ProgressCallback = no_progress
) -> Step | None:
    """Bring a local checkpoint to a step of a series; it is replaced at once and whole.

    If the checkpoint is an earlier step that the wanted one is based on, only the packs between them are read. Its
    tensors are checked before they are used.

    Parameters
    ----------
    series : Series
        The series.
    out : path
        The checkpoint: a file, or a model directory. It is written anew if it does not exist, or is of no such step.
    number : int, optional
        The step; by default the last one.
    progress : callable
        Called with the bytes of each tensor that has been written.

    Returns
    -------
    Step or None
        The step that was applied; None if the checkpoint was that already.

    Raises
    ------
    CheckpointError, FormatError, BaseMismatchError, OutputError
        As for `Series.decode` and `Decoded.save`. The checkpoint is as it was then.
    """
    target = series.step(number)
    chain = series.chain(target)
    if Path(out).exists():
        with open_checkpoint(out) as checkpoint:
            current = _step_of(series, checkpoint)
        if current is not None and current.content == target.content:
            return None
        chain = _from(series, target, current, out) or chain
    with decode(series.path(target), chain[:-1] or None, whole=True) as decoded:
        decoded.save(Path(out), force=True, replaces_base=True, progress=progress)
    return target


def follow_model(series: Series, model: nn.Module, number: int | None = None) -> Step | None:
    """Bring a running model to a step of a series, in place. Tensors that do not change are not touched.

    All tensors are decoded and checked before the first one is written, so the model is unchanged if there is an error.

    Parameters
    ----------
    series : Series
        The series.
    model : nn.Module
        The model; it must not run meanwhile. Its tensors have the dtypes of the checkpoints.
    number : int, optional
        The step; by default the last one.

    Returns
    -------
    Step or None
        The step that was applied; None if the model was that already.

    Raises
    ------
    ModelMismatchError
        The model lacks tensors of the step, or has them in another dtype or shape.
    CheckpointError, FormatError
        As for `Series.decode`.
    """
    target = series.step(number)
    with ExitStack() as stack:
        known = stack.enter_context(series.open(target.step))
        slots = ModelSlots(model).find(known.specs)
        state = _state(slots, known)
        held = stack.enter_context(Base(state))
        current = _step_of(series, held.checkpoint)
        if current is not None and current.content == target.content:
            return None
        # From what the model holds, if the step is based on that.
        chain = _from(series, target, current, state)
        source = known if chain is None else stack.enter_context(open_checkpoint(chain, WHOLE))
        wanted = Base(source)
        changed = [name for name in known.specs if wanted.leaf(name) != held.leaf(name)]
        new = {slots[name]: tensor_from_bytes(source.read(name), known.specs[name]) for name in changed}
        with writable(new), torch.no_grad():
            for slot, values in new.items():
                slot.tensor.copy_(values)
    return target


def _state(slots: Mapping[str, Slot], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the model's tensors by their names in the checkpoint."""
    missing = [name for name in checkpoint.specs if name not in slots]
    if missing:
        detail = f"expected a tensor for each of {checkpoint.location}, got none for {missing[0]!r}"
        raise ModelMismatchError(f"the model: {detail}", Remedy("build the model that the series was trained from"))
    for name, spec in checkpoint.specs.items():
        if slots[name].spec != spec:
            raise ModelMismatchError(f"the model: {name!r}: expected {spec}, got {slots[name].spec}")
    return {name: slots[name].tensor.cpu() for name in checkpoint.specs}


def _step_of(series: Series, checkpoint: Checkpoint) -> Step | None:
    """Return the last step of the content of a checkpoint; None if it is of none."""
    base = Base(checkpoint)
    try:
        content = base.digest(checkpoint.specs).hex()
    except CheckpointError:
        return None
    return next((step for step in reversed(series.steps) if step.content == content), None)


def _from(series: Series, target: Step, current: Step | None, source: Plain) -> "list[Plain] | None":
    """Return the chain from a checkpoint of a step to another step; None if that is not based on it."""
    links = series.index.chain(target)
    if current is None or current not in links:
        return None
    return [source, *(series.path(link) for link in links[links.index(current) + 1 :])]

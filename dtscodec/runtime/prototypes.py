"""Prototypes: the mean input of each linear layer in each task, by which rows are routed."""

import os
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from dtscodec.activations.gram_file import GramFile
from dtscodec.checkpoints.names.name_matching import best_rule
from dtscodec.errors import EncodeError, ModelMismatchError, Remedy
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import base_name

Prototypes: TypeAlias = "str | os.PathLike[str] | Mapping[str, Tensor]"
"""Prototypes of one task: a file of Gram matrices that was collected with the fine-tune, since it has the means too; or
tensors of shape [d_in] by the name of the weight. Names are the fine-tune's."""


def stack_prototypes(given: Mapping[str, Prototypes], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the normalized prototypes of all tasks for each layer of which every task has one.

    Parameters
    ----------
    given : mapping of str to Prototypes
        Prototypes by task. Names are those of the model, or differ from them by one leading prefix.
    widths : mapping of str to int
        Numbers of input features of the linear layers that can route, by the name of the weight in the model.

    Returns
    -------
    dict of str to float64 [tasks, d_in]
        By the name of the weight in the model. Rows have norm 1.

    Raises
    ------
    ModelMismatchError
        A prototype differs in length from its layer's inputs, or is not finite; or no layer has one for each task.
    CheckpointError
        A file cannot be read.
    """
    by_task = {task: _named(task, _means(source), widths) for task, source in given.items()}
    # A layer routes if every task has a prototype for it.
    routed = [name for name in widths if all(name in found for found in by_task.values())]
    if not routed or not by_task:
        counts = ", ".join(f"{task!r} {len(found)}" for task, found in by_task.items()) or "no task"
        raise ModelMismatchError(
            f"prototypes: expected a linear layer that packs change with one of every task, got none ({counts})",
            Remedy("collect Gram matrices with the fine-tunes"),
        )
    # Normalized, so that the largest product belongs to the largest cosine.
    return {name: torch.stack([F.normalize(found[name], dim=0) for found in by_task.values()]) for name in routed}


def _means(source: Prototypes) -> dict[str, Tensor]:
    """Return the mean layer inputs, float64 [d_in], by the name of the weight in the fine-tune."""
    if isinstance(source, Mapping):
        return {name: tensor.detach().cpu().double() for name, tensor in source.items()}
    with GramFile(source) as grams:
        return grams.means()


def _named(task: str, means: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Return a task's prototypes by the model's names, for the layers that can route."""
    # Only names are matched: shapes are checked below, with messages of their own.
    any_shape = TensorSpec("F64", ())
    try:
        rule = best_rule(dict.fromkeys(means, any_shape), dict.fromkeys(widths, any_shape))
    except EncodeError as error:
        raise ModelMismatchError(f"prototypes of {task!r}: {error.problem}") from error
    found = {base_name(name, rule): mean for name, mean in means.items()}
    for name, mean in found.items():
        fits = mean.shape == (widths.get(name),)
        if name in widths and not (fits and mean.isfinite().all()):
            got = "NaN or infinity" if fits else f"a tensor of {list(mean.shape)}"
            raise ModelMismatchError(
                f"prototypes of {task!r}: {name!r}: expected {widths[name]} finite numbers, got {got}",
                Remedy("give means of the fine-tune's inputs"),
            )
    return {name: mean for name, mean in found.items() if name in widths}

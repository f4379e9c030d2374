"""What a checkpoint calls the tensors of a model that transformers has loaded from it.

transformers renames the tensors of some models as it loads them: ``vit.encoder.layer.0.attention.attention.key.weight``
becomes ``vit.layers.0.attention.k_proj.weight``. Its tables are not meant for others, so it is asked: a model of the
same names, whose tensors hold nothing but their numbers, is loaded, and shows which of them has come to which place.
That takes hardly any memory, unless transformers fuses tensors: these are whole ones meanwhile.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dtscodec.evaluation.architecture import Architecture
from dtscodec.format.dtypes import TensorSpec


def checkpoint_names(architecture: Architecture, specs: Mapping[str, TensorSpec], model: Any) -> dict[str, str]:
    """What a checkpoint calls each tensor of a model. What is made of several, or turned round, has no name.

    Parameters
    ----------
    architecture : Architecture
    specs : mapping
        Those of the checkpoint.
    model : transformers.PreTrainedModel
        One that the architecture has built of it.
    """
    ours = model.state_dict()
    if specs.keys() <= ours.keys():
        return {name: name for name in specs}
    markers = {name: _marker(number, spec.shape) for number, (name, spec) in enumerate(specs.items(), start=1)}
    marked = architecture.build(markers, "the names of the checkpoint").state_dict()
    names = dict(enumerate(markers, start=1))
    found = {name: names.get(_number_on(tensor)) for name, tensor in marked.items()}
    return {name: disk for name, disk in found.items() if disk and torch.equal(markers[disk], marked[name].float())}


def _marker(number: int, shape: tuple[int, ...]) -> Tensor:
    """A tensor that holds its number, negated but in the first row, so that it shows if it is turned round.

    It takes the memory of one column.
    """
    rows = torch.full([*shape[:1], *[1] * (len(shape) - 1)], -float(number))
    rows.view(-1)[:1] = float(number)
    return rows.expand(*shape)


def _number_on(tensor: Tensor) -> int:
    """The inverse of `_marker`; 0 of what is empty."""
    return int(tensor.flatten()[0]) if tensor.numel() else 0

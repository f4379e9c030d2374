"""Names in a checkpoint for the tensors of a model that transformers has loaded from it.

transformers renames the tensors of some models on loading: ``vit.encoder.layer.0.attention.attention.key.weight``
becomes ``vit.layers.0.attention.k_proj.weight``. Its tables of renamings are internal. So probes are loaded in place of
the weights: tensors of the same names and shapes, each filled with a number of its own, by which it is recognized in
the model. A probe takes the memory of one column, since the others are views of it; where transformers fuses tensors,
it copies them whole.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dtscodec.evaluation.architecture import Architecture
from dtscodec.format.dtypes import TensorSpec


def checkpoint_names(architecture: Architecture, specs: Mapping[str, TensorSpec], model: Any) -> dict[str, str]:
    """Return the checkpoint's name of each tensor of a model.

    Tensors that transformers fuses from several, or transposes, have none and are left out.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    specs : mapping of str to TensorSpec
        Dtypes and shapes of the checkpoint's tensors.
    model : transformers.PreTrainedModel
        A model that the architecture has built from the checkpoint.

    Returns
    -------
    dict of str to str
        Names in the checkpoint by names in the model.
    """
    ours = model.state_dict()
    # Without renaming no probes are needed.
    if specs.keys() <= ours.keys():
        return {name: name for name in specs}
    # Numbered from 1, since 0 stands for an empty tensor.
    probes = {name: _probe(number, spec.shape) for number, (name, spec) in enumerate(specs.items(), start=1)}
    loaded = architecture.build(probes, "the names of the checkpoint").state_dict()
    # Recognize each tensor by its number. All elements must agree, since a fused tensor starts with one of its parts.
    names = dict(enumerate(probes, start=1))
    found = {name: names.get(_number_on(tensor)) for name, tensor in loaded.items()}
    return {name: disk for name, disk in found.items() if disk and torch.equal(probes[disk], loaded[name].float())}


def _probe(number: int, shape: tuple[int, ...]) -> Tensor:
    """Return a probe, which takes the memory of one column; the inverse is `_number_on`.

    The first row holds the number, all others hold it negated, so that a transposed probe differs.
    """
    rows = torch.full([*shape[:1], *[1] * (len(shape) - 1)], -float(number))
    rows.view(-1)[:1] = float(number)
    return rows.expand(*shape)


def _number_on(tensor: Tensor) -> int:
    """Return the number of a probe, the inverse of `_probe`; 0 for an empty tensor."""
    return int(tensor.flatten()[0]) if tensor.numel() else 0

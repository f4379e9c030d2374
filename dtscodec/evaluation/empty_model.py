"""A model of transformers without memory for its weights: they have shapes, and are filled later."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors


def empty_model(
    model_class: Any,
    config: Any,
    location: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Build a model whose parameters have dtype, shape and device, but no memory; see `fill`.

    Buffers are in memory, as the class initializes them. No cache of keys and values is made when the model runs.

    Parameters
    ----------
    model_class : type of transformers.PreTrainedModel
        The class of the model.
    config : transformers.PreTrainedConfig
        Its configuration, which is not changed.
    location : str
        Path of the weights, for messages.
    device : str or torch.device
        Device of the parameters and buffers.
    dtype : torch.dtype
        Dtype of the parameters.

    Returns
    -------
    transformers.PreTrainedModel
        The model, in evaluation mode.

    Raises
    ------
    CheckpointError
        transformers cannot build the model.
    """
    config = deepcopy(config)
    for part in (config, config.get_text_config()):
        part.use_cache = False
    with quiet_transformers(), transformers_errors(location, f"weights of a {model_class.__name__}"), _on_meta():
        model = model_class(config)
    emptied: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            # Tied parameters remain one.
            if parameter not in emptied:
                emptied[parameter] = nn.Parameter(_without_memory(parameter, device, dtype), requires_grad=False)
            module._parameters[name] = emptied[parameter]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return model.eval()


@contextmanager
def _on_meta() -> Iterator[None]:
    """Put every new parameter on the meta device while the context lasts, so that none is initialized."""

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None  # Unchanged.
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=False)

    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]  # The stub lacks results.
    try:
        yield
    finally:
        handle.remove()


def _without_memory(tensor: Tensor, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    made = torch.empty(tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype, device=device)
    empty(made)
    return made


def convert(tensor: Tensor, dtype: torch.dtype) -> None:
    """Give a parameter or buffer another dtype, whether it is empty or not.

    Parameters
    ----------
    tensor : Tensor
        The tensor; changed in place.
    dtype : torch.dtype
        The new dtype.
    """
    tensor.data = _without_memory(tensor, tensor.device, dtype) if is_empty(tensor) else tensor.data.to(dtype)


def is_empty(tensor: Tensor) -> bool:
    """Return whether a tensor has elements but no memory for them: it was emptied.

    Parameters
    ----------
    tensor : Tensor
        Any tensor; those on the meta device never had memory, and do not count.
    """
    return not tensor.is_meta and tensor.numel() > 0 and not tensor.untyped_storage().nbytes()


def empty(tensor: Tensor) -> None:
    """Free the memory of a tensor that owns it. Its dtype, shape and device remain; the inverse is `fill`."""
    tensor.untyped_storage().resize_(0)


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Allocate the memory of an empty tensor, and copy values into it.

    Parameters
    ----------
    tensor : Tensor
        The tensor. One that is not empty is written.
    values : Tensor
        Values of its shape, in any dtype and on any device.
    """
    if is_empty(tensor):
        tensor.untyped_storage().resize_(tensor.numel() * tensor.element_size())
    tensor.copy_(values)

"""A model whose layers are in memory one at a time, for models that do not fit.

Each layer is read just before it runs, and once more when a backward pass reaches it, which computes the layer again
(gradient checkpointing, Chen et al., arXiv 1604.06174). Outputs and gradients are those of the whole model in memory.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.architecture import OTHER_WEIGHTS, Architecture
from dtscodec.evaluation.checkpoint_places import CheckpointPlaces, ReadTensor
from dtscodec.evaluation.empty_model import empty, empty_model

LOAD_AS_A_WHOLE = Remedy("load it as a whole: {offload}", {"offload": "False"})


class OffloadedModel:
    """A model of transformers, at most one layer of which has its parameters in memory.

    Embeddings, final norm, head and all buffers are in memory.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    shapes : mapping of str to tuple of int
        Shapes of the weights, by their names in the checkpoint.
    read : callable
        Returns a weight by its name in the checkpoint.
    location : str
        Path of the weights, for messages.
    device : str or torch.device
        The device that the model runs on.
    dtype : torch.dtype
        Dtype of its weights, which `dtscodec.evaluation.empty_model.convert` changes later.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        The model, in evaluation mode, without a cache of keys and values.
    read : callable
        As given. It is called for each weight of a layer whenever the layer runs, and may be replaced.

    Raises
    ------
    CheckpointError
        Tensors of the model are missing, there are others, or shapes differ; or it has no layers of the kind that
        transformers can checkpoint.
    """

    def __init__(
        self,
        architecture: Architecture,
        shapes: Mapping[str, tuple[int, ...]],
        read: ReadTensor,
        location: str,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = empty_model(architecture.model_class, architecture.config, location, device, dtype)
        self.read = read
        layers = checkpointed_layers(self.model)
        if not layers:
            detail = "expected a transformer, whose layers can be read one at a time, got a"
            raise CheckpointError(f"{location}: {detail} {type(self.model).__name__}", LOAD_AS_A_WHOLE)
        self._places = CheckpointPlaces(self.model, shapes, location, OTHER_WEIGHTS)
        self._in_memory: nn.Module | None = None
        # What belongs to no layer stays in memory, and so do buffers, which are small.
        of_layers = {parameter for layer in layers for parameter in layer.parameters()}
        stays = [parameter for parameter in self.model.parameters() if parameter not in of_layers]
        self._places.write([*stays, *self.model.buffers()], read)
        for layer in layers:
            layer.forward = partial(self._run, layer, layer.forward)

    def _run(self, layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a layer in place of its `forward`; where gradients are recorded, only its inputs are kept for them."""
        if not torch.is_grad_enabled():
            return self._read_and_run(layer, forward, *args, **kwargs)
        run = partial(self._read_and_run, layer, forward, **kwargs)
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)

    def _read_and_run(self, layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
        if self._in_memory is not None:
            for parameter in self._in_memory.parameters():
                empty(parameter)
        # Until another layer runs it stays, since a backward pass needs it after this call. It is read again even if it
        # is in memory, since `read` may return other values by now.
        self._in_memory = layer
        with torch.no_grad():
            self._places.write(list(layer.parameters()), self.read)
        return forward(*args, **kwargs)


def load_offloaded(
    architecture: Architecture,
    checkpoint: Checkpoint,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> OffloadedModel:
    """Build a model with the weights of a checkpoint; see `OffloadedModel`.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    checkpoint : Checkpoint
        The weights. It must stay open as long as the model runs.
    device : str or torch.device
        The device that the model runs on.
    dtype : torch.dtype
        Dtype of its weights.
    """
    specs = checkpoint.specs
    shapes = {name: spec.shape for name, spec in specs.items()}
    read = partial(read_tensor, checkpoint)
    return OffloadedModel(architecture, shapes, read, checkpoint.location, device, dtype)


def read_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """Return a tensor of a checkpoint by its name there.

    Parameters
    ----------
    checkpoint : Checkpoint
        The checkpoint.
    name : str
        The name.
    """
    return tensor_from_bytes(checkpoint.read(name), checkpoint.specs[name])


def has_layers(architecture: Architecture) -> bool:
    """Return whether a model can be offloaded: it is a transformer, whose layers transformers can checkpoint.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    """
    model = empty_model(architecture.model_class, architecture.config, str(architecture.directory))
    return bool(checkpointed_layers(model))


def checkpointed_layers(model: nn.Module) -> list[nn.Module]:
    """Return the outermost modules that transformers can checkpoint: the layers of a transformer.

    Parameters
    ----------
    model : nn.Module
        The model.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # Modules come in order, outer ones before those that they contain.
        if isinstance(module, GradientCheckpointingLayer) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return list(found.values())

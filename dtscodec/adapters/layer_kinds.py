"""The layers of a model that a LoRA can change: by their classes, and by the model's code that uses them."""

import copy
import inspect
import re

import torch
from torch import Tensor, nn

from dtscodec.adapters.lora_pair import LayerKind

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_READ = re.compile(
    r"(?<!isinstance\()\bself\.(\w+)\.(?:weight\b(?!\.(?:dtype|device|shape|size|ndim|is_meta)\b)(?!\s*=[^=])"
    r"|(?:stride|kernel_size|padding|dilation|in_channels|out_channels|num_embeddings|embedding_dim|padding_idx)\b)"
)
"""Code that reads a layer's weight, or settings that PEFT's wrapper lacks, without running the layer."""
_HARMLESS_METHODS = re.compile(r"__init__|_?(init|reset|resize|tie|set|interpolate)_.*")
"""Methods that run before adapters are loaded, or for images of other sizes only."""
_MAMBA = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
"""Values of `model_type` for which PEFT refuses to change the layers `out_proj` and `conv1d`."""


def lora_layer_kind(module: nn.Module) -> LayerKind | None:
    """Return the kind of a layer that a LoRA can change.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    LayerKind or None
        None if a LoRA cannot change the module.
    """
    forward = type(module).forward
    # A subclass with a forward of its own may use its weight in another way, as learned positions do.
    if isinstance(module, nn.Linear):
        return "linear" if forward is nn.Linear.forward or _is_linear(module) else None
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # By name, since transformers may not be installed.
        return "transposed"
    if isinstance(module, nn.Embedding):
        # PEFT knows embeddings that are scaled, as Gemma's are.
        return "embedding" if forward is nn.Embedding.forward or hasattr(module, "embed_scale") else None
    if isinstance(module, _CONVOLUTIONS) and module.groups == 1:
        return "convolution" if forward in [kind.forward for kind in _CONVOLUTIONS] else None
    return None


def _is_linear(module: nn.Linear) -> bool:
    """Return whether a subclass computes what a linear layer does, as Falcon's: it is tried with a small weight."""
    trial = copy.copy(module)
    weight, bias = torch.arange(6.0, device="cpu").view(3, 2), torch.arange(3.0, device="cpu")
    trial._parameters = {"weight": nn.Parameter(weight), "bias": None if module.bias is None else nn.Parameter(bias)}
    inputs = torch.tensor([[2.0, -1.0], [0.5, 3.0]], device="cpu")
    try:
        with torch.no_grad():
            found = trial(inputs)
            return isinstance(found, Tensor) and torch.equal(found, nn.Linear.forward(trial, inputs))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False


def lora_layers(model: nn.Module) -> tuple[dict[str, LayerKind], dict[str, str]]:
    """Find the layers of a model that a LoRA can change.

    Parameters
    ----------
    model : nn.Module
        The model. Its tensors may be on the meta device.

    Returns
    -------
    kinds : dict of str to LayerKind
        Kinds of the layers by name.
    refused : dict of str to str
        Layers of these kinds that PEFT cannot change in this model, with the reason.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    kinds: dict[str, LayerKind] = {}
    refused: dict[str, str] = {}
    read: dict[type[nn.Module], frozenset[str]] = {}
    is_mamba = getattr(getattr(model, "config", None), "model_type", None) in _MAMBA
    for name, module in modules.items():
        kind = lora_layer_kind(module)
        if not name or kind is None:
            continue
        place, _, last = name.rpartition(".")
        parent = type(modules[place])
        if parent not in read:
            read[parent] = _read_directly(parent)
        if is_mamba and last in ("out_proj", "conv1d"):
            refused[name] = f"PEFT refuses {last} in Mamba models"
        elif last in read[parent]:
            # PEFT's wrapper returns the base's weight there, without the LoRA.
            refused[name] = f"{parent.__name__} reads its weight or settings without running the layer"
        else:
            kinds[name] = kind
    return kinds, refused


def _read_directly(kind: type[nn.Module]) -> frozenset[str]:
    """Return the names of the layers that a class reads without running them."""
    methods = [
        method
        for parent in kind.__mro__
        if parent is not nn.Module and issubclass(parent, nn.Module)
        for name, method in vars(parent).items()
        if inspect.isfunction(method) and not _HARMLESS_METHODS.fullmatch(name)
    ]
    return frozenset(name for method in methods for name in _READ.findall(_source(method)))


def _source(method: object) -> str:
    try:
        return inspect.getsource(method)  # type: ignore[arg-type]
    except (OSError, TypeError):  # It was not defined in a file.
        return ""

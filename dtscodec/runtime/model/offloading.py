"""Weights that accelerate transfers to another device while a model runs."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from dtscodec.errors import ModelMismatchError, Remedy


def check_stays_in_place(model: nn.Module) -> None:
    """Raise ModelMismatchError if a part of a model is transferred to another device whenever it runs.

    accelerate's `cpu_offload_with_hook` does so, and `enable_model_cpu_offload` of diffusers. Weights that accelerate
    loads layer by layer are on the meta device in between; see `dtscodec.runtime.model.slots.Slot.spec`.

    Parameters
    ----------
    model : nn.Module
        Any model.
    """
    for name, module in model.named_modules():
        first = next(module.parameters(), None)
        if first is None:
            continue
        # By name, since accelerate may not be installed.
        for hook in _hooks(module):
            if type(hook).__name__ == "CpuOffload" and hook.execution_device != first.device:
                where = name or "the model"
                detail = f"expected weights that stay on {first.device}, got ones that move to {hook.execution_device}"
                raise ModelMismatchError(f"{where}: {detail} to run", Remedy("load the weights without offloading"))


def _hooks(module: nn.Module) -> Iterator[Any]:
    hook: Any = getattr(module, "_hf_hook", None)
    yield from getattr(hook, "hooks", (hook,))  # Of accelerate's SequentialHook.

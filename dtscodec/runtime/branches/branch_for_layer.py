"""The class of side branch that a layer can have, by the function that the layer computes."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from dtscodec.runtime.branches.branch import SideBranch
from dtscodec.runtime.branches.branched_class import own_class
from dtscodec.runtime.branches.convolution import CONVOLUTIONS, ConvolutionBranch
from dtscodec.runtime.branches.embedding import EmbeddingBranch, ScaledEmbeddingBranch, is_scaled_embedding
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.runtime.branches.norm import LayerNormBranch, RMSNormBranch, is_rms_norm

LayerTest: TypeAlias = Callable[[nn.Module], bool]

COMPUTING = ("forward", "__call__", "_call_impl", "_conv_forward")
"""The methods that determine the function that a layer computes."""
MOVING_HOOKS = ("AlignDevicesHook", "CpuOffload")
"""Hooks of accelerate that only move tensors between devices."""


def branch_class(module: nn.Module) -> type[SideBranch] | None:
    """Return the class of side branch that a layer can have, or None if it can have none.

    Since a subclass may compute another function, its methods must be those of the class in question. Scaled embeddings
    and RMSNorm have many implementations, so a layer of such a name is called on a probe.

    Parameters
    ----------
    module : nn.Module
        Any module.
    """
    return next((branch for computes, branch in _BRANCHES if computes(module)), None)


def _computes_as(kind: type[nn.Module]) -> LayerTest:
    """Return a predicate that holds for layers that compute the same function as a class.

    A `forward` that accelerate wrapped counts if its hook only moves tensors between devices.
    """

    def computes(module: nn.Module) -> bool:
        own, names = own_class(module), [name for name in COMPUTING if hasattr(kind, name)]
        is_same = isinstance(module, kind) and all(getattr(own, name) is getattr(kind, name) for name in names)
        replaced = [name for name in names if name in vars(module)]
        return is_same and (not replaced or (replaced == ["forward"] and _is_only_moved(module)))

    return computes


def _is_only_moved(module: Any) -> bool:
    """Return whether a replaced `forward` of a layer is accelerate's, which calls that of the layer's class."""
    original = getattr(getattr(module, "_old_forward", None), "__func__", None)
    hook = getattr(module, "_hf_hook", None)
    hooks = getattr(hook, "hooks", [hook])  # Of accelerate's SequentialHook.
    return original is type(module).forward and all(type(one).__name__ in MOVING_HOOKS for one in hooks)


def _is_embedding(module: nn.Module) -> bool:
    # With max_norm the layer renormalizes its weight in place as it looks rows up.
    return _computes_as(nn.Embedding)(module) and module.max_norm is None


def _is_scaled_embedding(module: nn.Module) -> bool:
    return is_scaled_embedding(module) and module.max_norm is None


def _is_zero_padded_convolution(module: nn.Module) -> bool:
    return any(_computes_as(kind)(module) for kind in CONVOLUTIONS) and module.padding_mode == "zeros"


def _is_conv1d_of_transformers(module: nn.Module) -> bool:
    # By name, since transformers may not be installed.
    kind = own_class(module)
    is_conv1d = kind.__module__ == "transformers.pytorch_utils" and kind.__name__ == "Conv1D"
    return is_conv1d and _computes_as(kind)(module)


_BRANCHES: tuple[tuple[LayerTest, type[SideBranch]], ...] = (
    (_computes_as(nn.Linear), LinearBranch),
    (_computes_as(nn.LayerNorm), LayerNormBranch),
    (_is_zero_padded_convolution, ConvolutionBranch),
    (_is_conv1d_of_transformers, Conv1DBranch),
    (_is_embedding, EmbeddingBranch),
    (_is_scaled_embedding, ScaledEmbeddingBranch),
    (is_rms_norm, RMSNormBranch),
)
"""Tests of layers, with branches. The first that holds decides; those that may call the layer are last."""

"""The class of side branch that a layer can have, by what the layer computes."""

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from dtscodec.runtime.branches.branch import SideBranch
from dtscodec.runtime.branches.convolution import CONVOLUTIONS, ConvolutionBranch
from dtscodec.runtime.branches.embedding import EmbeddingBranch
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.runtime.branches.norm import LayerNormBranch, RMSNormBranch, is_rms_norm

Test: TypeAlias = Callable[[nn.Module], bool]


def branch_class(module: nn.Module) -> type[SideBranch] | None:
    """Return the class of side branch that a layer can have, or None if it can have none.

    Since a subclass may compute another function, its `forward` must be that of the class in question. RMSNorm has many
    implementations, so a layer of that name is called on a probe.

    Parameters
    ----------
    module : nn.Module
        Any module.
    """
    return next((branch for computes, branch in _BRANCHES if computes(module)), None)


def _runs_forward_of(kind: type[nn.Module]) -> Test:
    """Return a predicate of layers: their `forward` is that of a class.

    A `forward` that accelerate wrapped counts, since its hooks only move tensors between devices.
    """

    def runs(module: nn.Module) -> bool:
        # accelerate wraps `forward` of an instance, marked by `_hf_hook`, and still calls that of the class.
        is_replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
        return isinstance(module, kind) and type(module).forward is kind.forward and not is_replaced

    return runs


def _is_embedding(module: nn.Module) -> bool:
    # With max_norm the layer renormalizes its weight in place as it looks rows up.
    return _runs_forward_of(nn.Embedding)(module) and module.max_norm is None


def _is_zero_padded_convolution(module: nn.Module) -> bool:
    return any(_runs_forward_of(kind)(module) for kind in CONVOLUTIONS) and module.padding_mode == "zeros"


def _is_conv1d_of_transformers(module: nn.Module) -> bool:
    # By name, since transformers may not be installed.
    kind = type(module)
    return kind.__module__ == "transformers.pytorch_utils" and kind.__name__ == "Conv1D"


_BRANCHES: tuple[tuple[Test, type[SideBranch]], ...] = (
    (_runs_forward_of(nn.Linear), LinearBranch),
    (_is_embedding, EmbeddingBranch),
    (_runs_forward_of(nn.LayerNorm), LayerNormBranch),
    (_is_zero_padded_convolution, ConvolutionBranch),
    (_is_conv1d_of_transformers, Conv1DBranch),
    (is_rms_norm, RMSNormBranch),
)
"""Tests of layers, with branches. The first that holds decides; that of RMSNorm is last, since it calls the layer."""

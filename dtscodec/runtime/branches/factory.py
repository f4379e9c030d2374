"""Which path a layer has, by what it computes."""

from torch import nn

from dtscodec.runtime.branches.branch import SideBranch
from dtscodec.runtime.branches.convolution import CONVOLUTIONS, ConvolutionBranch
from dtscodec.runtime.branches.embedding import EmbeddingBranch
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.runtime.branches.norm import LayerNormBranch, RMSNormBranch, is_rms_norm


def branch_class(module: nn.Module) -> type[SideBranch] | None:
    """The kind of path that a layer can have, if any. A subclass with a `forward` of its own may compute anything."""
    if _computes_as(module, nn.Linear):
        return LinearBranch
    if _computes_as(module, nn.Embedding) and module.max_norm is None:
        return EmbeddingBranch
    if _computes_as(module, nn.LayerNorm):
        return LayerNormBranch
    if any(_computes_as(module, kind) for kind in CONVOLUTIONS) and module.padding_mode == "zeros":
        return ConvolutionBranch
    if type(module).__module__ == "transformers.pytorch_utils" and type(module).__name__ == "Conv1D":
        return Conv1DBranch
    return RMSNormBranch if is_rms_norm(module) else None


def _computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer runs what its kind runs: nobody replaced that, but for accelerate, which only moves tensors."""
    replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
    return isinstance(module, kind) and type(module).forward is kind.forward and not replaced

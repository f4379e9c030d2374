"""Fusion: packs of several tasks -> the pack of an unseen task, as their weighted sum.

In the order of the data::

    packs -> source_packs                          checked to be against one base, which is opened only if needed
    heads or vectors -> similarity -> mixing_weights   the factor on each pack's delta
    packs, weights -> summed_tensor                each tensor's sum, by factors where its rank is low
    summed tensors -> fused_pack -> fuse           candidate encodings, the choice among them, the pack

Public here: `dtscodec.fusion.HeadSimilarity` and `dtscodec.fusion.VectorSimilarity`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtscodec.fusion.mixing_weights import HeadSimilarity as HeadSimilarity
    from dtscodec.fusion.mixing_weights import VectorSimilarity as VectorSimilarity


def __getattr__(name: str) -> Any:
    """Import on first use, since that imports torch."""
    if name not in ("HeadSimilarity", "VectorSimilarity"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dtscodec.fusion import mixing_weights

    return getattr(mixing_weights, name)

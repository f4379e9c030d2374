"""Merging: fine-tunes -> one base, by a merge method; and the base as a file.

In the order of the data::

    checkpoints -> merge_inputs                    which tensors merge, and their task vectors
    task vectors -> methods, one file each         the merged task vector of each tensor
    merged vectors -> task_vector_store            where all are needed first: layer scaling, search of alpha
    base, merged vectors -> merger -> merge        the checkpoint; distances of each fine-tune from it
    merger -> family_base -> family                the base of a directory, and packs of the fine-tunes against it

Public here: `dtscodec.merging.AlphaSearch`, and all methods in `dtscodec.merging.methods`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtscodec.merging.alpha_search import AlphaSearch as AlphaSearch


def __getattr__(name: str) -> Any:
    """Import on first use, since that imports torch."""
    if name == "AlphaSearch":
        from dtscodec.merging.alpha_search import AlphaSearch

        return AlphaSearch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

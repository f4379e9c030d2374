"""Merge methods, one file each: ``from dtscodec.merging.methods import Ties``.

`registry` lists them by name. A method's module is imported on first use, since that imports torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dtscodec.merging.methods.registry import METHODS, method_class

if TYPE_CHECKING:
    from dtscodec.merging.methods.method import MergeMethod


def __getattr__(name: str) -> "Callable[..., MergeMethod]":
    """Return the class of a method by its class name, such as ``Ties``."""
    for method, target in METHODS.items():
        if target.endswith(f":{name}"):
            return method_class(method)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

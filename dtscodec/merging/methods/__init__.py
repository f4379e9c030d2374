"""Merge methods, one file each: ``from dtscodec.merging.methods import Ties``.

A new method is a file in this folder and an import below, in the order in which the commands list methods. `registry`
reads these imports, so that a method's module, and with it torch, is imported on first use only.
"""

from typing import TYPE_CHECKING

from dtscodec.merging.methods.registry import class_of

if TYPE_CHECKING:
    # isort: off
    from dtscodec.merging.methods.average import Average as Average
    from dtscodec.merging.methods.task_arithmetic import TaskArithmetic as TaskArithmetic
    from dtscodec.merging.methods.ties import Ties as Ties
    from dtscodec.merging.methods.tsv_m import TsvM as TsvM
    from dtscodec.merging.methods.iso_c import IsoC as IsoC
    from dtscodec.merging.methods.iso_cts import IsoCts as IsoCts
    from dtscodec.merging.methods.esm import Esm as Esm

    # isort: on
    from dtscodec.merging.methods.method import MergeMethod


def __getattr__(name: str) -> "type[MergeMethod]":
    """Import the class of a method by its class name, such as ``Ties``."""
    found = class_of(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found

"""All merge methods by name. A new method is a file in this folder and a line in `METHODS`."""

import importlib
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from dtscodec.errors import ConfigError

if TYPE_CHECKING:
    from dtscodec.merging.methods.method import MergeMethod

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "average": "average:Average",
        "task-arithmetic": "task_arithmetic:TaskArithmetic",
        "ties": "ties:Ties",
        "tsv-m": "tsv_m:TsvM",
        "iso-c": "iso_c:IsoC",
        "iso-cts": "iso_cts:IsoCts",
        "esm": "esm:Esm",
    }
)
"""Name -> module in this folder, and the class in it. The command line's choices and options derive from here."""


def method_class(name: str) -> "type[MergeMethod]":
    """Import the class of a method.

    Raises
    ------
    ConfigError
        No method has that name.
    """
    if name not in METHODS:
        raise ConfigError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    module, _, class_name = METHODS[name].partition(":")
    found: type[MergeMethod] = getattr(importlib.import_module(f"dtscodec.merging.methods.{module}"), class_name)
    return found


def make_method(name: str, options: Mapping[str, object] = MappingProxyType({})) -> "MergeMethod":
    """Make a method by its name.

    Parameters
    ----------
    name : str
        One of `METHODS`.
    options : mapping
        The method's options by field name; those left out have their defaults.

    Raises
    ------
    ConfigError
        The method is unknown, has no such option, or the option's value is out of range.

    Examples
    --------
    >>> make_method("ties", {"keep": 0.1})
    Ties(alpha=1.0, keep=0.1, combine='mean')
    """
    method = method_class(name)
    known = [field.name for field in fields(method)]
    for option in options:
        if option not in known:
            raise ConfigError(f"{name}: expected options of {', '.join(known) or 'no kind'}, got {option!r}")
    return method(**options)

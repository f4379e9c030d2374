"""All merge methods by name. A new method is a file in this folder and a line in `METHODS`."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class MethodOption:
    """An option of a merge method.

    Parameters
    ----------
    method : str
        The method's name.
    name : str
        The field's name.
    default : float, bool or str
        A literal; its type is the option's.
    choices : tuple of str
        Of a field annotated with `Literal`; else empty.
    text : str
        The first sentence of its description in the class docstring.
    """

    method: str
    name: str
    default: float | bool | str
    choices: tuple[str, ...]
    text: str


@cache
def options_of(method: str) -> tuple[MethodOption, ...]:
    """Return the options of a method, in the order of its fields."""
    module, _, class_name = METHODS[method].partition(":")
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    texts = dict(_descriptions(ast.get_docstring(node) or ""))
    return tuple(_option(method, field, texts) for field in _fields(node))


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """Yield name, annotation and default of a dataclass's fields."""
    for line in node.body:
        is_field = isinstance(line, ast.AnnAssign) and not ast.unparse(line.annotation).startswith("ClassVar")
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value and is_field:
            yield line.target.id, line.annotation, line.value


def _option(method: str, field: tuple[str, ast.expr, ast.expr], texts: dict[str, str]) -> MethodOption:
    name, annotation, default = field
    is_literal = ast.unparse(annotation).startswith("Literal")
    choices = ast.literal_eval(annotation.slice) if is_literal and isinstance(annotation, ast.Subscript) else ()
    return MethodOption(method, name, ast.literal_eval(default), choices, texts[name])


def _descriptions(docstring: str) -> Iterator[tuple[str, str]]:
    r"""Yield name and first sentence of the parameters that a numpydoc docstring describes.

    >>> dict(_descriptions("T.\n\nParameters\n----------\nkeep : float\n    Share to keep.\n    More."))
    {'keep': 'Share to keep'}
    """
    _, _, section = inspect.cleandoc(docstring).partition("Parameters\n----------\n")
    for name, lines in re.findall(r"^(\w+) : .*\n((?:    .*\n?)*)", section, re.MULTILINE):
        yield name, " ".join(lines.split()).split(". ")[0].rstrip(".")

"""All merge methods by name, with their options, read from their source without importing torch.

A method's class is a dataclass: its `name` is the method's, its fields are the options, and its docstring describes
them. Importing it would import torch, which takes seconds, so that the class is read statically, as setuptools reads
``__version__``.
"""

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

_FOLDER = Path(__file__).parent
_PACKAGE = "dtscodec.merging.methods"


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


def _tree(module: str) -> ast.Module:
    """Parse a file of this folder."""
    return ast.parse((_FOLDER / f"{module}.py").read_text(encoding="utf-8"))


def _imported() -> Iterator[tuple[str, str]]:
    """Yield module and class of each method that the package's ``__init__.py`` imports."""
    for node in ast.walk(_tree("__init__")):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_PACKAGE}."):
            module = str(node.module).removeprefix(f"{_PACKAGE}.")
            # These two define no method.
            if module not in ("registry", "method"):
                yield module, node.names[0].name


@cache
def _class_node(module: str, class_name: str) -> ast.ClassDef:
    return next(n for n in _tree(module).body if isinstance(n, ast.ClassDef) and n.name == class_name)


def _assignments(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """Yield name, annotation and value of a class's annotated assignments."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            yield line.target.id, line.annotation, line.value


def _is_class_variable(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).startswith("ClassVar")


def _names() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the name of each method, and its module and class."""
    for module, class_name in _imported():
        values = {name: value for name, _, value in _assignments(_class_node(module, class_name))}
        yield ast.literal_eval(values["name"]), (module, class_name)


METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(dict(_names()))
"""Name -> module in this folder and class in it. The command line's choices and options derive from here."""


def class_of(class_name: str) -> "type[MergeMethod] | None":
    """Import the class of a method by the class's name; None if no method has it."""
    return next((method_class(name) for name, (_, found) in METHODS.items() if found == class_name), None)


def method_class(name: str) -> "type[MergeMethod]":
    """Import the class of a method.

    Parameters
    ----------
    name : str
        One of `METHODS`.

    Raises
    ------
    ConfigError
        No method has that name.
    """
    if name not in METHODS:
        raise ConfigError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    module, class_name = METHODS[name]
    found: type[MergeMethod] = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), class_name)
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


@cache
def options_of(method: str) -> tuple[MethodOption, ...]:
    """Return the options of a method, in the order of its fields; imports no torch.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    """
    node = _class_node(*METHODS[method])
    texts = dict(_descriptions(ast.get_docstring(node) or ""))
    # Class variables describe the method; all other fields are its options.
    return tuple(
        MethodOption(method, name, ast.literal_eval(default), _choices(annotation), texts[name])
        for name, annotation, default in _assignments(node)
        if not _is_class_variable(annotation)
    )


def _choices(annotation: ast.expr) -> tuple[str, ...]:
    """Return the values of a `Literal`; none of another type."""
    if not (isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal"):
        return ()
    choices: tuple[str, ...] = ast.literal_eval(annotation.slice)
    return choices


def _descriptions(docstring: str) -> Iterator[tuple[str, str]]:
    r"""Yield name and first sentence of the parameters that a numpydoc docstring describes.

    >>> dict(_descriptions("T.\n\nParameters\n----------\nkeep : float\n    Share to retain.\n    More."))
    {'keep': 'Share to retain'}
    """
    _, _, section = inspect.cleandoc(docstring).partition("Parameters\n----------\n")
    # An entry is a line ``name : type``, and the indented lines below it.
    for name, lines in re.findall(r"^(\w+) : .*\n((?:    .*\n?)*)", section, re.MULTILINE):
        yield name, " ".join(lines.split()).split(". ")[0].rstrip(".")

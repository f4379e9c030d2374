"""The options of merge methods for a command line, read from the source of the methods without importing torch.

A method's class is a dataclass whose fields are its options and whose docstring describes them. Importing it would
import torch, which takes seconds; so, as setuptools does for ``__version__``, the class is read statically.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dtscodec.merging.methods.registry import METHODS


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

"""Arguments that remedies name (`dtscodec.errors.Remedy`), spelled as options of the command line."""

import ast
import shlex

from dtscodec.errors import DtsError, spell_python

OPTIONS = {
    "alpha": "--alpha",
    "base": "--base",
    "bits": "--bits",
    "dequantize_base": "--dequantize-base",
    "dtype": "--dtype",
    "files": "--no-files",
    "force": "--force",
    "fresh": "--no-resume",
    "grams": "--grams",
    "head": "--head",
    "import_adapter": "dtscodec import",
    "like": "--like",
    "model": "--model",
    "offload": "--no-offload",
    "out": "-o",
    "raw": "--raw",
    "renames": "--map",
    "save_modules": "--modules-to-save",
    "size": "--size",
    "strict": "--strict",
    "to": "--to",
    "vectors": "--vectors",
    "weights": "--weights",
}
"""Options by the Python names of arguments, and a command by that of its call. Options that are flags take no value."""

FLAGS = frozenset({"dequantize_base", "files", "force", "fresh", "offload", "save_modules", "strict"})

PYTHON_ONLY = frozenset({"config", "model_class"})
"""Arguments of calls that no command makes; they are spelled as Python."""


def message(error: BaseException) -> str:
    """Return an error's text, its remedy spelled for the command line."""
    return error.spelled(spell_option) if isinstance(error, DtsError) else str(error)


def spell_option(argument: str, value: str | None) -> str:
    """Return an argument as a user of the command line writes it; the counterpart of `dtscodec.errors.spell_python`.

    Parameters
    ----------
    argument : str
        Its name in Python.
    value : str, optional
        A Python literal. The option is repeated for each element of a list. Pairs are written ``OLD=NEW``.

    Examples
    --------
    >>> spell_option("force", "True"), spell_option("raw", "['head*']"), spell_option("bits", "8")
    ('--force', "--raw 'head*'", '--bits 8')
    >>> spell_option("renames", "[('a.', 'b.'), ('c.', '')]")
    '--map a.=b. --map c.='
    """
    if argument in PYTHON_ONLY:
        return spell_python(argument, value)
    option = OPTIONS[argument]
    if value is None or argument in FLAGS:
        return option
    literal = ast.literal_eval(value)
    values = literal if isinstance(literal, list) else [literal]
    # Options that take several values are repeated.
    return " ".join(f"{option} {shlex.quote(_text(each))}" for each in values)


def _text(value: object) -> str:
    return "=".join(map(str, value)) if isinstance(value, tuple) else str(value)

"""How the command line spells the arguments that errors speak of (`dtscodec.errors.Remedy`): as options."""

import ast
import shlex

OPTIONS = {
    "base": "--base",
    "bits": "--bits",
    "files": "--no-files",
    "force": "--force",
    "fresh": "--no-resume",
    "model": "--model",
    "out": "-o",
    "raw": "--raw",
    "renames": "--map",
    "size": "--size",
}
"""By the Python name of an argument. Options that are flags take no value."""

FLAGS = frozenset({"files", "force", "fresh"})


def spell_option(argument: str, value: str | None) -> str:
    """An argument as a user of the command line writes it; the counterpart of `dtscodec.errors.spell_python`.

    Parameters
    ----------
    argument : str
        Its name in Python.
    value : str, optional
        A Python literal; of a list or tuple the elements are written one after another.

    Examples
    --------
    >>> spell_option("force", "True"), spell_option("raw", "['head*']"), spell_option("bits", "8")
    ('--force', "--raw 'head*'", '--bits 8')
    """
    option = OPTIONS[argument]
    if value is None or argument in FLAGS:
        return option
    literal = ast.literal_eval(value)
    values = literal if isinstance(literal, (list, tuple)) else [literal]
    return " ".join([option, *(shlex.quote(str(each)) for each in values)])

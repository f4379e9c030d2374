"""All methods by name, and their options as text."""

from dataclasses import fields
from typing import TypeAlias

from dtscodec.errors import ConfigError
from dtscodec.merging.methods.average import Average
from dtscodec.merging.methods.esm import Esm
from dtscodec.merging.methods.iso import IsoC, IsoCts
from dtscodec.merging.methods.task_arithmetic import TaskArithmetic
from dtscodec.merging.methods.ties import Ties
from dtscodec.merging.methods.tsv import TsvM

Method: TypeAlias = Average | TaskArithmetic | Ties | TsvM | IsoC | IsoCts | Esm

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Average, TaskArithmetic, Ties, TsvM, IsoC, IsoCts, Esm)
}


def make_method(name: str, options: dict[str, object] | None = None) -> Method:
    """A method by its name.

    Parameters
    ----------
    name : str
        One of `METHODS`.
    options : dict, optional
        The method's own; others are refused.

    Raises
    ------
    ConfigError
        There is no such method, or it has no such option, or not of that value.

    >>> make_method("ties", {"keep": 0.1})
    Ties(alpha=1.0, keep=0.1, combine='mean')
    """
    if name not in METHODS:
        raise ConfigError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    known = [field.name for field in fields(METHODS[name])]
    for option in options or {}:
        if option not in known:
            raise ConfigError(f"{name}: expected options of {', '.join(known) or 'no kind'}, got {option!r}")
    return METHODS[name](**(options or {}))  # type: ignore[arg-type]


def describe(method: Method) -> str:
    """A method and all its options in one line.

    >>> describe(make_method("ties")), describe(make_method("average"))
    ('ties alpha=1.0 keep=0.2 combine=mean', 'average')
    """
    return " ".join([method.name, *(f"{field.name}={getattr(method, field.name)}" for field in fields(method))])

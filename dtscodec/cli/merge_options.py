"""Options of the commands `merge` and `family` for the fields of merge methods."""

import argparse
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments
from dtscodec.merging.methods.registry import METHODS, MethodOption, options_of

if TYPE_CHECKING:
    from dtscodec.merging.methods.method import MergeMethod


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument METHOD."""
    parser.add_argument("method", metavar="METHOD", choices=tuple(METHODS), help=", ".join(METHODS))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every field of every method, and the Gram matrices."""
    group = parser.add_argument_group("options of merge methods")
    for options in _by_name().values():
        first = options[0]
        if isinstance(first.default, bool):
            _add_switch(group, first)
        elif first.choices:
            group.add_argument(_flag(first), dest=first.name, choices=first.choices, help=_help(options))
        else:
            number = arguments.count if isinstance(first.default, int) else arguments.finite_number
            group.add_argument(_flag(first), dest=first.name, metavar="X", type=number, help=_help(options))
    group.add_argument(
        "--grams",
        metavar="FILE",
        action="append",
        default=[],
        help="of esm: Gram matrices of a fine-tune's layer inputs (`dtscodec collect`); once per fine-tune, in order",
    )


def method_of(options: argparse.Namespace) -> "MergeMethod":
    """Return the method with the options that were given; ConfigError for those that it does not have."""
    from dtscodec.merging.methods.registry import make_method

    return make_method(options.method, given(options))


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of methods that were given, by field name."""
    # Options have no default here, so None means that an option was not given.
    values = {name: getattr(options, name) for name in _by_name()}
    return {name: value for name, value in values.items() if value is not None}


def _by_name() -> dict[str, list[MethodOption]]:
    """Return all options by name, each with the methods that have it."""
    found: dict[str, list[MethodOption]] = {}
    for option in chain.from_iterable(map(options_of, METHODS)):
        found.setdefault(option.name, []).append(option)
    return found


def _flag(option: MethodOption, prefix: str = "") -> str:
    """Return an option as the command line spells a field."""
    return f"--{prefix}{option.name.replace('_', '-')}"


def _add_switch(group: "argparse._ArgumentGroup", option: MethodOption) -> None:
    """Add the flag that changes a boolean from its default."""
    flag = _flag(option, "no-" if option.default else "")
    text = f"of {option.method}: {'do not ' if option.default else ''}{_lowered(option.text)}"
    group.add_argument(flag, dest=option.name, action="store_const", const=not option.default, help=text)


def _help(options: list[MethodOption]) -> str:
    """Return the help of an option: the methods that have it, its description and its defaults."""
    methods = [option.method for option in options]
    others = [name for name in METHODS if name not in methods]
    scope = f"all but {', '.join(others)}" if len(others) < len(methods) else ", ".join(methods)
    return f"of {scope}: {_lowered(options[0].text)} (default: {', '.join(_defaults(options))})"


def _defaults(options: list[MethodOption]) -> Iterator[str]:
    """Yield the most frequent default, then those that differ with the method's name."""
    defaults = [option.default for option in options]
    usual = max(defaults, key=defaults.count)
    yield f"{usual:g}" if isinstance(usual, float) else str(usual)
    yield from (f"{option.method} {option.default}" for option in options if option.default != usual)


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:]

"""Exceptions of the package, and the closed set of reasons for refusing a pack.

Every exception that dtscodec raises on purpose derives from `DtsError` and from a builtin, so that callers who do not
know this package can catch `ValueError`, `EOFError` or `OSError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NoReturn, TypeAlias, get_args

Reason = Literal[
    "truncated",
    "header",
    "layout",
    "version",
    "unknown",
    "feature",
    "summary",
    "checksum",
    "zstd",
    "index",
    "limit",
    "totals",
    "padding",
    "rows",
    "numbers",
    "file",
    "base-tensor",
    "base-leaf",
    "base-digest",
    "base-file",
    "residual",
    "content",
]
"""Why a pack was refused (spec section 11)."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


Spell: TypeAlias = Callable[[str, str | None], str]
"""A function that spells an argument, given its Python name and the value that is recommended for it, if any."""


def spell_python(argument: str, value: str | None) -> str:
    """Return an argument as a Python caller writes it.

    Parameters
    ----------
    argument : str
        Name of the argument.
    value : str or None
        A Python expression; None where no certain value is recommended.

    Examples
    --------
    >>> spell_python("force", "True"), spell_python("out", None)
    ('force=True', '`out`')
    """
    return f"`{argument}`" if value is None else f"{argument}={value}"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Advice on an error, for callers in Python and users of the command line alike.

    Parameters
    ----------
    text : str
        One clause, with names of arguments in braces: ``"pass {force} to replace it"``.
    values : mapping of str to str
        Python expressions, by argument, for arguments of which a certain value is recommended.

    Examples
    --------
    >>> str(Remedy("pass {force} to replace it", {"force": "True"}))
    'pass force=True to replace it'
    """

    text: str
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def literal(cls, text: str) -> "Remedy":
        """Return a remedy without arguments: braces in its text are ordinary characters.

        >>> str(Remedy.literal("start a worker for {host}"))
        'start a worker for {host}'
        """
        return cls(text.replace("{", "{{").replace("}", "}}"))

    def spelled(self, spell: Spell) -> str:
        """Return the text, its arguments spelled by `spell`: `spell_python`, or its counterpart for commands."""
        return self.text.format_map(_Spelled(spell, self.values))

    def __str__(self) -> str:
        return self.spelled(spell_python)

    def __reduce__(self) -> tuple[type["Remedy"], tuple[str, dict[str, str]]]:
        return type(self), (self.text, dict(self.values))  # A mapping proxy cannot be pickled.


class _Spelled(dict[str, str]):
    """Arguments by name, spelled on access, as `str.format_map` needs them."""

    def __init__(self, spell: Spell, values: Mapping[str, str]) -> None:
        super().__init__()
        self._spell, self._values = spell, values

    def __missing__(self, argument: str) -> str:
        return self._spell(argument, self._values.get(argument))


NAME_BASE = Remedy("name the base that the pack was made against ({base})")
"""Remedy for every error about a base that is not the pack's."""


class DtsError(Exception):
    """Root of all exceptions that dtscodec raises on purpose. Its text is one line.

    Parameters
    ----------
    problem : str
        Where the error is, what was expected there, and what was found.
    remedy : Remedy, optional
        Advice on it.
    """

    def __init__(self, problem: str = "", remedy: Remedy | None = None) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy

    def spelled(self, spell: Spell) -> str:
        """Return problem and remedy in one line, the remedy's arguments spelled by `spell`; see `Remedy.spelled`."""
        return self.problem if self.remedy is None else f"{self.problem}; {self.remedy.spelled(spell)}"

    def __str__(self) -> str:
        return self.spelled(spell_python)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.remedy)


class RefusedError(DtsError, ValueError):
    """A pack, or a base for it, must be refused by the spec.

    Parameters
    ----------
    reason : Reason
        The row of the spec's reason table (section 11).
    where : str
        File, arena, tensor or block concerned.
    detail : str
        The expectation, and what was found instead.
    section : str
        The spec's section that has the rule, such as ``"3.4"``.
    remedy : Remedy, optional
        Advice on it.
    """

    def __init__(self, reason: Reason, where: str, detail: str, section: str, remedy: Remedy | None = None) -> None:
        self.reason: Reason = reason
        self.where = where
        self.detail = detail
        self.section = section
        super().__init__(f"{reason}: {where}: {detail}", remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reason, self.where, self.detail, self.section, self.remedy)


class FormatError(RefusedError):
    """A pack breaks a rule of the format."""

    def within(self, where: str) -> "FormatError":
        """Return the same error, its place qualified by `where`: the file or tensor that contains it."""
        return type(self)(self.reason, f"{where}: {self.where}", self.detail, self.section, self.remedy)


class UnsupportedError(FormatError):
    """The pack may be valid, but uses a feature that this reader does not support."""


class TruncatedError(FormatError, EOFError):
    """The file ends before the pack does."""


class ChecksumError(FormatError):
    """Bytes differ from those that were written."""


class BaseMismatchError(RefusedError):
    """The base is not the one that the pack was made against; `where` names it, or a tensor of it."""


class PackNotFoundError(DtsError, FileNotFoundError):
    """No pack was found, or it cannot be read."""


class CheckpointError(DtsError, ValueError):
    """A checkpoint is missing, unreadable or invalid."""


class ConfigError(DtsError, ValueError):
    """A setting is out of range, or settings exclude each other."""


class EncodeError(DtsError, ValueError):
    """A fine-tune cannot be encoded with these inputs and settings."""


class SizeError(EncodeError):
    """A pack of the target size does not exist: `smallest` is the size of the smallest one, in bytes.

    Parameters
    ----------
    problem : str
        As for `DtsError`.
    remedy : Remedy or None
        As for `DtsError`.
    smallest : int
        Size of the smallest pack, in bytes.
    """

    def __init__(self, problem: str, remedy: Remedy | None, smallest: int) -> None:
        super().__init__(problem, remedy)
        self.smallest = smallest

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.remedy, self.smallest)


class PromiseError(EncodeError):
    """No pack of the sizes that are allowed keeps a promise."""


class NothingToFitError(EncodeError):
    """A pack has no numbers to fit: all its tensors are stored exactly or equal the base's."""


class SamplesError(DtsError, ValueError):
    """Samples, or their labels, cannot be read or used."""


class MergeError(DtsError, ValueError):
    """Fine-tunes cannot be merged with these inputs and settings."""


class SvdError(EncodeError, MergeError):
    """A singular value decomposition did not converge, in an encode or a merge."""


class OutputError(DtsError, OSError):
    """The output cannot be written, or exists already."""


class ModelMismatchError(DtsError, ValueError):
    """A running model does not match a pack or its base."""


class TaskError(DtsError, KeyError):
    """A task is unknown, or its name is already in use."""


class JournalMismatchError(OutputError):
    """A journal cannot be resumed: it is of other inputs or settings, or damaged."""


class BackendError(DtsError, RuntimeError):
    """A device, a library, workers or a storage backend are not available."""


def assert_never(value: NoReturn) -> NoReturn:
    """Mark a branch that is never reached, for the type checker: `typing.assert_never`, which Python 3.10 lacks."""
    raise AssertionError(f"expected no such value, got {value!r}")

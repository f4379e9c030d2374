"""Exceptions of the package, and the closed set of reasons for refusing a pack.

Every exception that dtscodec raises on purpose is a `DtsError` with a builtin beside it, so that callers who
do not know this package can still catch `ValueError`, `EOFError` or `OSError`.
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
]
"""Why a pack was refused (spec section 11)."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


Spell: TypeAlias = Callable[[str, str | None], str]
"""Spells an argument, by its Python name and the value that it should have, if it should have a certain one."""


def spell_python(argument: str, value: str | None) -> str:
    """An argument as a Python caller writes it.

    >>> spell_python("force", "True"), spell_python("out", None)
    ('force=True', '`out`')
    """
    return f"`{argument}`" if value is None else f"{argument}={value}"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a caller can do about an error, in words that suit Python and the command line alike.

    Parameters
    ----------
    text : str
        One clause, with the arguments that it is about in braces: ``"pass {force} to replace it"``.
    values : mapping of str to str
        Python expressions for arguments that should have a certain value.

    Examples
    --------
    >>> str(Remedy("pass {force} to replace it", {"force": "True"}))
    'pass force=True to replace it'
    """

    text: str
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def literal(cls, text: str) -> "Remedy":
        """Return a remedy of a text without arguments, in which braces stand for themselves.

        >>> str(Remedy.literal("start a worker for {host}"))
        'start a worker for {host}'
        """
        return cls(text.replace("{", "{{").replace("}", "}}"))

    def spelled(self, spell: Spell) -> str:
        """Return the text, its arguments spelled by a function."""
        return self.text.format_map(_Spelled(spell, self.values))

    def __str__(self) -> str:
        return self.spelled(spell_python)

    def __reduce__(self) -> tuple[type["Remedy"], tuple[str, dict[str, str]]]:
        return type(self), (self.text, dict(self.values))  # A mapping proxy cannot be pickled.


class _Spelled(dict[str, str]):
    """Arguments by name, spelled when they are asked for."""

    def __init__(self, spell: Spell, values: Mapping[str, str]) -> None:
        super().__init__()
        self._spell, self._values = spell, values

    def __missing__(self, argument: str) -> str:
        return self._spell(argument, self._values.get(argument))


NAME_BASE = Remedy("name the base that the pack was made against ({base})")
"""For every error about a base that is not the pack's."""


class DtsError(Exception):
    """Root of all exceptions that dtscodec raises on purpose. Its text is one line.

    Parameters
    ----------
    problem : str
        Where, what was expected, and what was found.
    remedy : Remedy, optional
        What to do about it.
    """

    def __init__(self, problem: str = "", remedy: Remedy | None = None) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy

    def spelled(self, spell: Spell) -> str:
        """The whole text, arguments in the remedy spelled by a function."""
        return self.problem if self.remedy is None else f"{self.problem}; {self.remedy.spelled(spell)}"

    def __str__(self) -> str:
        return self.spelled(spell_python)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.remedy)


class RefusedError(DtsError, ValueError):
    """A pack, or a base for it, that the spec says to refuse.

    Parameters
    ----------
    reason : Reason
        The row of the spec's reason table (section 11).
    where : str
        File, arena, tensor or block concerned.
    detail : str
        What was expected and what was found.
    section : str
        The spec's section that holds the rule, such as ``"3.4"``.
    remedy : Remedy, optional
        What to do about it.
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
        """The same error, told of a place within `where`."""
        return type(self)(self.reason, f"{where}: {self.where}", self.detail, self.section, self.remedy)


class UnsupportedError(FormatError):
    """The pack may be sound, but uses something that this reader does not know."""


class TruncatedError(FormatError, EOFError):
    """The file ends before the pack does."""


class ChecksumError(FormatError):
    """Bytes differ from what was written."""


class BaseMismatchError(RefusedError):
    """The base at hand is not the base that is needed; `where` names it, or a tensor of it."""


class PackNotFoundError(DtsError, FileNotFoundError):
    """There is no pack to open."""


class CheckpointError(DtsError, ValueError):
    """A checkpoint cannot be read or understood."""


class ConfigError(DtsError, ValueError):
    """A setting is out of range, or settings exclude each other."""


class EncodeError(DtsError, ValueError):
    """The input cannot be encoded as asked."""


class NothingToFitError(EncodeError):
    """A pack holds no numbers that can be fitted: all its tensors are exact or the base's."""


class SamplesError(DtsError, ValueError):
    """Samples, or their labels, cannot be read or used."""


class MergeError(DtsError, ValueError):
    """The fine-tunes cannot be merged as asked."""


class SvdError(EncodeError, MergeError):
    """A singular value decomposition did not converge, in an encode or a merge."""


class OutputError(DtsError, OSError):
    """The output cannot be written, or exists already."""


class ModelMismatchError(DtsError, ValueError):
    """A running model and a pack, or its base, do not fit each other."""


class TaskError(DtsError, KeyError):
    """There is no task of this name, or one already."""


class JournalMismatchError(OutputError):
    """A journal belongs to an encode of other inputs or settings."""


class BackendError(DtsError, RuntimeError):
    """The device, library or workers asked for are not available here, or no more."""


def assert_never(value: NoReturn) -> NoReturn:
    """Mark a branch that is never reached, for the type checker: `typing.assert_never`, which Python 3.10 lacks."""
    raise AssertionError(f"expected no such value, got {value!r}")

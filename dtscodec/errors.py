"""Exceptions of the package, and the closed set of reasons for refusing a pack.

Every exception that dtscodec raises on purpose is a `DtsError` with a builtin beside it, so that callers who
do not know this package can still catch `ValueError`, `EOFError` or `OSError`.
"""

from typing import Literal, get_args

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


class DtsError(Exception):
    """Root of all exceptions that dtscodec raises on purpose. Its text is one line."""


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
    """

    def __init__(self, reason: Reason, where: str, detail: str, section: str) -> None:
        self.reason: Reason = reason
        self.where = where
        self.detail = detail
        self.section = section
        super().__init__(f"{reason}: {where}: {detail}")

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[Reason, str, str, str]]:
        # By default the text alone would go to another process, which is no argument of this class.
        return type(self), (self.reason, self.where, self.detail, self.section)


class FormatError(RefusedError):
    """A pack breaks a rule of the format."""

    def within(self, where: str) -> "FormatError":
        """The same error, told of a place within `where`."""
        return type(self)(self.reason, f"{where}: {self.where}", self.detail, self.section)


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


class MergeError(DtsError, ValueError):
    """The fine-tunes cannot be merged as asked."""


class OutputError(DtsError, OSError):
    """The output cannot be written, or exists already."""


class ModelMismatchError(DtsError, ValueError):
    """A running model and a pack, or its base, do not fit each other."""


class TaskError(DtsError, KeyError):
    """There is no task of this name, or one already."""

    __str__ = Exception.__str__  # That of KeyError shows quotes.


class OtherEncodeError(OutputError):
    """Finished tensors that are kept are those of another encode."""


class BackendError(DtsError, RuntimeError):
    """The device, library or workers asked for are not available here, or no more."""

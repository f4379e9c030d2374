"""What commands print: lines, JSON, figures and tables."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from dtscodec.errors import OutputError

__all__ = ["facts", "lines", "note", "number", "percent", "printable", "size", "table"]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def lines(*texts: str) -> None:
    """Print lines, each as one line whatever names it holds.

    Raises
    ------
    OutputError
        Standard output takes no more.
    BrokenPipeError
        Nobody reads it any more.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(printable(text) for text in texts).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as error:
        # What could not be written is still buffered, and would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"standard output: expected to write it, got '{error.strerror}'") from error


def note(text: str) -> None:
    """Say something beside the data: one line on standard error."""
    print(printable(f"dtscodec: {text}"), file=sys.stderr, flush=True)


def facts(document: Any) -> None:
    """Print JSON, in ASCII, which any locale and every program can read."""
    lines(*json.dumps(document, indent=2).replace("\x7f", "\\u007f").splitlines())


def printable(text: str) -> str:
    r"""Escape what would break a line or command a terminal; names out of files may hold anything.

    >>> print(printable("größe"), printable("a\nb\x1b[2J"))
    größe a\nb\x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count: int) -> str:
    """A number of bytes in decimal units.

    >>> size(720_512), size(90_900_000), size(12)
    ('720.5 kB', '90.9 MB', '12 B')
    """
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if not unit else f"{value:.1f} {_UNITS[unit]}"


def percent(part: int, whole: int) -> str:
    """A share with three significant digits, as far as two decimals.

    >>> percent(720_512, 90_900_000), percent(91, 90_900)
    ('0.79 %', '0.10 %')
    """
    return f"{100 * part / whole:.2f} %" if whole else "-"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows under a head, the first `left` columns flush left and the others flush right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines

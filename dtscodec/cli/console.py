"""What commands print: lines, JSON, figures and tables."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from dtscodec.errors import OutputError
from dtscodec.report.formatting import number, percent, printable, size

__all__ = ["facts", "lines", "note", "number", "percent", "printable", "size", "table"]


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

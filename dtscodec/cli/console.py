"""Output of commands: lines, JSON, tables and progress bars."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dtscodec.errors import OutputError
from dtscodec.messages import number, percent, printable, size
from dtscodec.progress import ProgressCallback

__all__ = [
    "facts",
    "lines",
    "note",
    "number",
    "percent",
    "printable",
    "progress_bar",
    "size",
    "table",
]


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


@contextmanager
def progress_bar(label: str, total: int, unit: str = "B") -> Iterator[ProgressCallback]:
    """Show a bar with bytes or other units, rate and time left, if standard error is a terminal.

    The bar disappears when it is complete, so that another one can follow, or at the end of the context.

    Parameters
    ----------
    label : str
        The name of the work.
    total : int
        Units in total.
    unit : str
        The unit; bytes by default.

    Yields
    ------
    callable
        To be called with the number of units done since the last call.
    """
    if not (sys.stderr and sys.stderr.isatty()):
        yield lambda count: None
        return
    from huggingface_hub.utils.tqdm import tqdm

    scale = unit == "B"
    with tqdm(desc=label, total=total, unit=unit, unit_scale=scale, leave=False, file=sys.stderr) as bar:  # type: ignore[no-untyped-call]

        def advance(count: int) -> None:
            bar.update(count)
            if bar.n >= total:
                bar.close()

        yield advance

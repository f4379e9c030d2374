"""Output of commands: lines, JSON and tables on standard output; notes and progress bars on standard error."""

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
    "number",
    "percent",
    "print_hint",
    "print_json",
    "print_lines",
    "print_note",
    "printable",
    "progress_bar",
    "size",
    "table",
]


def print_lines(*texts: str) -> None:
    """Print texts to standard output, each as one line even if names in it contain line breaks.

    Characters that the encoding of standard output lacks are escaped.

    Raises
    ------
    OutputError
        Standard output cannot be written, such as on a full disk.
    BrokenPipeError
        The reader of standard output has closed it.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(printable(text) for text in texts).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as error:
        # Text that could not be written is still buffered, and would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"standard output: expected to write it, got '{error.strerror}'") from error


def print_note(text: str) -> None:
    """Print one line to standard error, so that the data on standard output stay clean."""
    print(printable(f"dtscodec: {text}"), file=sys.stderr, flush=True)


def print_hint(text: str) -> None:
    """Print a note for a person at a terminal; nothing unless standard error is one, as for progress bars."""
    if sys.stderr and sys.stderr.isatty():
        print_note(text)


def print_json(document: Any) -> None:
    """Print a document as JSON in ASCII, which any locale and every program can read."""
    print_lines(*json.dumps(document, indent=2).replace("\x7f", "\\u007f").splitlines())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the lines of a table.

    Parameters
    ----------
    head : sequence of str
        Titles of the columns.
    rows : sequence of sequences of str
        Cells, each row as long as the head.
    left : int
        Number of leading columns that are aligned to the left; the others are aligned to the right.
    """
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
    """Show a bar with the amount done, rate and time left; nothing unless standard error is a terminal.

    The bar disappears when it is complete, so that another one can follow, or at the end of the context.

    Parameters
    ----------
    label : str
        Text in front of the bar, such as the name of a task.
    total : int
        Number of units.
    unit : str
        Name of the unit: ``"B"`` for bytes, which are scaled to kB, MB and so on; else with a leading space.

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
            # Make room for the next bar.
            if bar.n >= total:
                bar.close()

        yield advance

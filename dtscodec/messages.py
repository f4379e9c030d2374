"""Wording that messages of all rooms share."""

from collections.abc import Sequence

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def listed(names: Sequence[str], limit: int) -> str:
    """Return the first names of a list, and the number of the others.

    Parameters
    ----------
    names : sequence of str
    limit : int
        Names that are spelled out.

    >>> listed(["a", "b"], 3), listed(["a", "b", "c", "d"], 2)
    ('a, b', 'a, b and 2 more')
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def one_line(error: BaseException, limit: int = 200) -> str:
    r"""Return the text of an exception in one line; of the system's errors the reason, without number and path.

    Parameters
    ----------
    error : BaseException
    limit : int
        Characters, of which the last are dots where the text is longer.

    >>> one_line(FileNotFoundError(2, "No such file")), one_line(ValueError("a\n  b")), one_line(TimeoutError())
    ('No such file', 'a b', 'TimeoutError')
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= limit else line[: limit - 3] + "..."


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


def shorten(text: str, most: int) -> str:
    """A text of at most so many characters: what is too long loses its middle.

    >>> shorten("bert.embeddings.word_embeddings", 20)
    'bert.embe…embeddings'
    """
    tail = most // 2
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"

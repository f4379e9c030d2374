"""Formatting that messages and reports of all rooms share."""

from collections.abc import Sequence

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def listed(names: Sequence[str], limit: int) -> str:
    """Return the first names of a list, and the number of the others.

    Parameters
    ----------
    names : sequence of str
        The list.
    limit : int
        How many names are spelled out.

    Examples
    --------
    >>> listed(["a", "b"], 3), listed(["a", "b", "c", "d"], 2)
    ('a, b', 'a, b and 2 more')
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def counted(count: int, noun: str) -> str:
    """Return a number with a noun in its singular or plural.

    Parameters
    ----------
    count : int
        The number.
    noun : str
        The noun in its singular; the plural ends in "s".

    Examples
    --------
    >>> counted(1, "tensor"), counted(1200, "tensor")
    ('1 tensor', '1,200 tensors')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def one_line(error: BaseException, limit: int = 200) -> str:
    r"""Return the text of an exception in one line. Of an OSError it is the reason, without number and path.

    Parameters
    ----------
    error : BaseException
        The exception; the name of its class stands for an empty text.
    limit : int
        Most characters of the line; a longer text ends in "...".

    Examples
    --------
    >>> one_line(FileNotFoundError(2, "No such file")), one_line(ValueError("a\n  b")), one_line(TimeoutError())
    ('No such file', 'a b', 'TimeoutError')
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= limit else line[: limit - 3] + "..."


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped: names in files may hold line ends or terminal codes.

    Parameters
    ----------
    text : str
        A name or a message.

    Examples
    --------
    >>> print(printable("größe"), printable("a\nb\x1b[2J"))
    größe a\nb\x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count: int) -> str:
    """Return a number of bytes in decimal units.

    Parameters
    ----------
    count : int
        Bytes.

    Examples
    --------
    >>> size(720_512), size(90_900_000), size(12)
    ('720.5 kB', '90.9 MB', '12 B')
    """
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if not unit else f"{value:.1f} {_UNITS[unit]}"


def percent(part: int, whole: int) -> str:
    """Return a share in percent with two decimals, or a dash where the whole is zero.

    Parameters
    ----------
    part, whole : int
        Both in the same unit, such as bytes.

    Examples
    --------
    >>> percent(720_512, 90_900_000), percent(91, 90_900)
    ('0.79 %', '0.10 %')
    """
    return f"{100 * part / whole:.2f} %" if whole else "-"


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with a fixed number of decimals, or a dash for None.

    Parameters
    ----------
    value : float or None
        The figure.
    digits : int
        Decimals.
    """
    return "-" if value is None else f"{value:.{digits}f}"


def shorten(text: str, most: int) -> str:
    """Return a text without its middle if it is too long.

    Parameters
    ----------
    text : str
        The text.
    most : int
        Most characters of the result.

    Examples
    --------
    >>> shorten("bert.embeddings.word_embeddings", 20)
    'bert.embe…embeddings'
    """
    tail = most // 2
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"

"""Wording that messages of all rooms share."""

from collections.abc import Sequence


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

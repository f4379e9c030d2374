"""Parts of the pages that benchmarks print."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent.

    >>> percent(0.8125), percent(0.00846, 2)
    ('81.2 %', '0.85 %')
    """
    return f"{share:.{digits}%}".replace("%", " %")

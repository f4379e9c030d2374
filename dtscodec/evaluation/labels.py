"""Labels of samples, and the classes of a classifier that they name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Label: TypeAlias = int | str
"""A class as samples name it: by index or by name."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a classifier.

    Parameters
    ----------
    count : int
        Number of classes.
    names : mapping of str to int
        Indices by name (``label2id`` of the model's configuration).
    """

    count: int
    names: Mapping[str, int]

    def number(self, label: Label) -> int:
        """Return the index of a label's class.

        Parameters
        ----------
        label : int or str
            Its index or its name.

        Raises
        ------
        ValueError
            There is no such class.

        Examples
        --------
        >>> Classes(2, {"bad": 0, "good": 1}).number("good")
        1
        """
        found = self.names.get(label) if isinstance(label, str) else label
        if found is None or not 0 <= found < self.count:
            names = ", ".join(map(repr, list(self.names)[:8]))
            raise ValueError(f"expected a label from 0 to {self.count - 1}, or a name such as {names}, got {label!r}")
        return found

    def label(self, word: str) -> Label:
        """Return the label that a word in a file or a folder's name means: a name of a class, or else an index.

        Parameters
        ----------
        word : str
            The word. Names of classes may consist of digits, so they take precedence.

        Examples
        --------
        >>> classes = Classes(3, {"bad": 0, "good": 1, "0": 2})
        >>> classes.label("0"), classes.label("1")
        ('0', 1)
        """
        is_number = word not in self.names and word.isdecimal() and len(word) < 10
        return int(word) if is_number else word

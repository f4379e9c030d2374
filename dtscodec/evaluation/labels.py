"""Labels of samples, and the classes of a classifier that they name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Label: TypeAlias = int | str


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a classifier.

    Parameters
    ----------
    count : int
        Number of classes.
    names : mapping
        Indices by name (``label2id`` of the model's configuration).
    """

    count: int
    names: Mapping[str, int]

    def number(self, label: Label) -> int:
        """Return the index of a label's class.

        Raises
        ------
        ValueError
            There is no such class.

        >>> Classes(2, {"bad": 0, "good": 1}).number("good")
        1
        """
        found = self.names.get(label) if isinstance(label, str) else label
        if found is None or not 0 <= found < self.count:
            names = ", ".join(map(repr, list(self.names)[:8]))
            raise ValueError(f"expected a label from 0 to {self.count - 1}, or a name such as {names}, got {label!r}")
        return found

    def label(self, word: str) -> Label:
        """Return the label that a word stands for: a name if there is one, which may consist of digits, else an index.

        >>> classes = Classes(3, {"bad": 0, "good": 1, "0": 2})
        >>> classes.label("0"), classes.label("1")
        ('0', 1)
        """
        is_number = word not in self.names and word.isdecimal() and len(word) < 10
        return int(word) if is_number else word

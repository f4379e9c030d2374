"""What samples are labelled with: the classes of a classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Label: TypeAlias = int | str


@dataclass(frozen=True, slots=True)
class Classes:
    """The answers that a classifier chooses from.

    Parameters
    ----------
    count : int
        How many they are.
    names : mapping
        Numbers by name (``label2id`` of a model's configuration).
    """

    count: int
    names: Mapping[str, int]

    def number(self, label: Label) -> int:
        """The number of a label.

        >>> Classes(2, {"bad": 0, "good": 1}).number("good")
        1
        """
        found = self.names.get(label) if isinstance(label, str) else label
        if found is None or not 0 <= found < self.count:
            names = ", ".join(map(repr, list(self.names)[:8]))
            raise ValueError(f"expected a label from 0 to {self.count - 1}, or a name such as {names}, got {label!r}")
        return found

    def label(self, word: str) -> Label:
        """A label that is written as a word. A name wins over a number, as names may consist of digits.

        >>> classes = Classes(3, {"bad": 0, "good": 1, "0": 2})
        >>> classes.label("0"), classes.label("1")
        ('0', 1)
        """
        is_number = word not in self.names and word.isdecimal() and len(word) < 10
        return int(word) if is_number else word

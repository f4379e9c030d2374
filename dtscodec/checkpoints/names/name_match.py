"""The result of matching a fine-tune's names to its base's (spec section 4.4)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dtscodec.checkpoints.names.expert_layouts import Parts
from dtscodec.checkpoints.names.prefix_rules import PrefixPairs

Rule: TypeAlias = tuple[str, str]
"""(a, b): a name that starts with a has b in place of it in the base."""

IDENTITY: Rule = ("", "")
"""The rule under which names are equal."""


@dataclass(frozen=True, slots=True)
class NameMatch:
    """Counterparts in a base of the tensors of a fine-tune.

    Parameters
    ----------
    prefix : (str, str)
        The rule for most names; ``("", "")`` if names are equal.
    counterpart : mapping
        Name of each tensor of the fine-tune -> name of its counterpart in the base, of whatever shape, or None.
    absent : tuple of str
        Tensors of the base that are not a counterpart, or part of one, ascending.
    parts : mapping
        Tensors of the fine-tune whose counterpart consists of rows of other base tensors, because one of them has fused
        experts and the other does not. Their `counterpart` is None.
    transposed : tuple of str
        Fused experts that the base has under the same name, but transposed. Their `counterpart` is None.
    open_pairs : PrefixPairs
        Result of the further prefix rules, with those that fit but were not applied.
    shared : frozenset of str
        Absent tensors that the fine-tune has under another name (`dtscodec.checkpoints.names.removed_names`).
    """

    prefix: Rule
    counterpart: Mapping[str, str | None]
    absent: tuple[str, ...]
    parts: Mapping[str, Parts] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    open_pairs: PrefixPairs = field(default_factory=PrefixPairs)
    shared: frozenset[str] = frozenset()

    def bases(self, name: str) -> tuple[str, ...]:
        """Return the base tensors that a tensor is encoded against."""
        whole = self.counterpart[name]
        return tuple(dict.fromkeys(part.name for part in self.parts.get(name, ()))) if whole is None else (whole,)

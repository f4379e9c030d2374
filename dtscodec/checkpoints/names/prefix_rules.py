"""Several prefix rules at once, for the names that one rule for all names does not pair."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dtscodec.checkpoints.checkpoint import Specs

Prefix: TypeAlias = tuple[str, ...]
"""The leading components of a name, numbers as `NUMBER`."""

PrefixRule: TypeAlias = tuple[Prefix, Prefix]
"""(a, b): a name that starts with a has b in place of it in the base, with the same numbers."""

NUMBER = "*"
"""A number in a prefix."""

NEUTRAL = frozenset({"model", NUMBER})
"""Components that do not distinguish modules."""

TOO_MANY = 8
"""Largest number of base tensors of one shape and one end of names among which a counterpart is searched."""

MORE_THAN_CHANCE = 8
"""Number of tensors whose names and shapes do not agree by chance."""


@dataclass(slots=True)
class PrefixPairs:
    """Pairs that several prefix rules make, and rules that were not applied.

    Parameters
    ----------
    pairs : dict of str to str
        Name in the fine-tune -> name in the base, of whatever shape.
    applied : list of PrefixRule
        The rules that made the pairs.
    ambiguous : list of (PrefixRule, PrefixRule)
        Rules that fit equally well and exclude each other, so that neither was applied.
    renamings : list of PrefixRule
        Rules that fit but replace a module by one of another name, which may have another meaning. None was applied.
    """

    pairs: dict[str, str] = field(default_factory=dict)
    applied: list[PrefixRule] = field(default_factory=list)
    ambiguous: list[tuple[PrefixRule, PrefixRule]] = field(default_factory=list)
    renamings: list[PrefixRule] = field(default_factory=list)


def pair_by_prefixes(fine: Specs, base: Specs) -> PrefixPairs:
    """Pair names by several rules, each of which replaces the leading components of a part of the names.

    A rule applies if most tensors of that part agree in shape, and if it only adds, drops or moves components:
    ``encoder.`` is not taken for ``decoder.``. Rules are applied by the number of tensors that agree, most first.

    Parameters
    ----------
    fine, base : mapping
        Specs of the tensors that are not paired yet, by name.

    Examples
    --------
    >>> from dtscodec.format.dtypes import TensorSpec
    >>> w, v = TensorSpec("F32", (4, 2)), TensorSpec("F32", (3, 3))
    >>> fine = {"model.language_model.layers.0.w": w, "model.visual.blocks.0.w": v}
    >>> found = pair_by_prefixes(fine, {"model.layers.0.w": w, "visual.blocks.0.w": v})
    >>> found.pairs == {"model.language_model.layers.0.w": "model.layers.0.w", "model.visual.blocks.0.w":
    ...     "visual.blocks.0.w"}
    True
    """
    found = PrefixPairs()
    votes = _votes(fine, base)
    # The names that no rule has paired yet.
    ours, theirs = dict(fine), dict(base)
    while votes := _still_open(votes, ours, theirs):
        # The rule under which most tensors agree; on ties, one that replaces no module by another.
        rule = max(sorted(votes), key=lambda rule: (len(votes[rule]), _is_structural(rule)))
        agreeing = votes.pop(rule)
        if not _explains_most(rule, agreeing, ours, theirs):
            continue
        if not _is_structural(rule):
            found.renamings.append(rule)
            continue
        rivals = [r for r, pairs in votes.items() if _is_structural(r) and _are_rivals(agreeing, pairs)]
        if rivals:
            # Apply neither: the names do not show which one is meant.
            found.ambiguous.extend((rule, rival) for rival in rivals)
            votes = {r: pairs for r, pairs in votes.items() if r not in rivals}
            continue
        found.applied.append(rule)
        # Names decide, once shapes have chosen the rule: a vocabulary may have grown.
        for name in list(_names_under(rule[0], agreeing, ours)):
            if (other := _replaced(name, rule)) in theirs:
                found.pairs[name] = other
                del ours[name], theirs[other]
    return found


Votes: TypeAlias = dict[PrefixRule, dict[str, str]]
"""The pairs that agree in shape, by the rule that makes them."""


def _still_open(votes: Votes, fine: Specs, base: Specs) -> Votes:
    """Return the pairs both names of which are still unpaired."""
    left = {rule: {f: g for f, g in pairs.items() if f in fine and g in base} for rule, pairs in votes.items()}
    return {rule: pairs for rule, pairs in left.items() if pairs}


def _votes(fine: Specs, base: Specs) -> Votes:
    """Return the pairs that agree in shape and in the longest end of their names that any base tensor has, by rule."""
    ends: defaultdict[str, list[str]] = defaultdict(list)
    for name in base:
        for end in _ends(name):
            ends[end].append(name)
    votes: defaultdict[PrefixRule, dict[str, str]] = defaultdict(dict)
    for name, spec in fine.items():
        for end in _ends(name):
            others = [other for other in ends.get(end, ())[: 64 * TOO_MANY] if base[other].shape == spec.shape]
            if not others:
                continue
            # A single component, such as `weight`, identifies no tensor, unless it is a whole name.
            is_specific = "." in end or end == name or end in others
            for other in others if is_specific and len(others) <= TOO_MANY else ():
                if (rule := _rule(name, other, end)) is not None:
                    votes[rule][name] = other
            break
    return dict(votes)


def _ends(name: str) -> Iterator[str]:
    """Yield the name, and what follows each of its dots: the ends that consist of whole components, longest first."""
    yield name
    while (at := name.find(".") + 1) > 0:
        name = name[at:]
        yield name


def _rule(name: str, other: str, end: str) -> PrefixRule | None:
    """Return the rule that replaces what precedes a common end; None if the numbers there differ."""
    ours, theirs = (_components(whole[: len(whole) - len(end)]) for whole in (name, other))
    if _numbers(ours) != _numbers(theirs):
        return None
    return _pattern(ours), _pattern(theirs)


def _components(prefix: str) -> list[str]:
    return prefix[:-1].split(".") if prefix else []


def _numbers(components: list[str]) -> list[str]:
    return [part for part in components if part.isdigit()]


def _pattern(components: list[str]) -> Prefix:
    return tuple(NUMBER if part.isdigit() else part for part in components)


def _is_structural(rule: PrefixRule) -> bool:
    """Return whether a rule only adds, drops or moves components, apart from neutral ones."""
    ours, theirs = (Counter(part for part in prefix if part not in NEUTRAL) for prefix in rule)
    return ours <= theirs or theirs <= ours


def _are_rivals(pairs: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Return whether as many pairs of another rule name another counterpart of a tensor, or another tensor for one."""
    if len(pairs) != len(others):
        return False
    if any(others.get(name, target) != target for name, target in pairs.items()):
        return True
    origins = {target: name for name, target in others.items()}
    return any(origins.get(target, name) != name for name, target in pairs.items())


def _explains_most(rule: PrefixRule, agreeing: Mapping[str, str], fine: Specs, base: Specs) -> bool:
    """Return whether most of the fine-tune's tensors under a prefix agree; if few, most of the base's too."""
    ours = sum(1 for _ in _names_under(rule[0], agreeing, fine))
    if 2 * len(agreeing) < ours:
        return False
    theirs = sum(1 for _ in _names_under(rule[1], agreeing.values(), base))
    return len(agreeing) >= MORE_THAN_CHANCE or 2 * len(agreeing) >= theirs


def _names_under(prefix: Prefix, members: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    """Yield the names that start with a prefix; for an empty one, those in the outermost modules of its members."""
    if prefix:
        return (name for name in names if _pattern(name.split(".")[: len(prefix)]) == prefix)
    modules = {name.partition(".")[0] for name in members}
    return (name for name in names if name.partition(".")[0] in modules)


def _replaced(name: str, rule: PrefixRule) -> str:
    """Return a name with its prefix replaced; numbers are taken over in their order."""
    ours, theirs = rule
    parts = name.split(".")
    numbers = iter(_numbers(parts[: len(ours)]))
    return ".".join([*(next(numbers) if part == NUMBER else part for part in theirs), *parts[len(ours) :]])

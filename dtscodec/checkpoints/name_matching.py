"""Matching of tensor names: the base's counterpart of each tensor of a fine-tune (spec section 4.4)."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.errors import BaseMismatchError, EncodeError, Remedy
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import base_name

Rule = tuple[str, str]
"""(a, b): a name that starts with a has b in place of it in the base."""

IDENTITY: Rule = ("", "")
"""The rule under which names are equal."""

_OLD_NEW = {"renames": "[('OLD', 'NEW')]"}


@dataclass(frozen=True, slots=True)
class NameMatch:
    """Counterparts in a base of the tensors of a fine-tune.

    Parameters
    ----------
    prefix : (str, str)
        The rule for all names; ``("", "")`` if names are equal.
    counterpart : mapping
        Name of each tensor of the fine-tune -> name of its counterpart in the base, of whatever shape, or None.
    absent : tuple of str
        Tensors of the base that are not a counterpart, ascending.
    """

    prefix: Rule
    counterpart: Mapping[str, str | None]
    absent: tuple[str, ...]


def match_names(
    fine: Specs,
    base: Specs,
    renames: Sequence[tuple[str, str]] = (),
    aliases: Mapping[str, str] = MappingProxyType({}),
    is_merged: bool = False,
) -> NameMatch:
    """Match the names of a fine-tune to those of its base.

    Names are equal, or those of one side have an additional prefix. The rule is chosen under which most tensors agree
    in name and shape. `renames` take precedence for the tensors that they match.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    renames : sequence of (old, new)
        Names of the fine-tune that start with `old` have `new` in its place in the base. Where several match, the
        longest `old` applies.
    aliases : mapping
        Tensors of the fine-tune that are the same memory: later name -> first name. One counterpart suffices for them.
    is_merged : bool
        Whether the base was merged from fine-tunes. It then lacks all tensors that differ in shape between them.

    Raises
    ------
    EncodeError
        Two rules agree equally well, or a rename matches no tensor.
    BaseMismatchError
        The base is of another architecture: less than half of the fine-tune's elements, or of a merged base's, are in
        tensors with a counterpart of as many columns.

    Examples
    --------
    >>> fine = {"bert.w": TensorSpec("F32", (4, 2)), "head": TensorSpec("F32", (2, 2))}
    >>> match_names(fine, {"w": TensorSpec("F32", (4, 2)), "pooler": TensorSpec("F32", (3,))})
    NameMatch(prefix=('bert.', ''), counterpart={'bert.w': 'w', 'head': None}, absent=('pooler',))
    """
    # Renames first: tensors that they match take no part in the choice of a prefix.
    renamed = _apply_renames(fine, base, renames)
    rule = best_rule({name: spec for name, spec in fine.items() if name not in renamed}, base)
    # Counterparts: by a rename, else by the rule.
    counterpart: dict[str, str | None] = {}
    for name in fine:
        target = renamed.get(name, base_name(name, rule))
        counterpart[name] = target if target in base else None
    # Of tied tensors, those without a counterpart do not count against the base if another has one.
    known = {aliases.get(name, name) for name, other in counterpart.items() if other is not None}
    own = {n: s for n, s in fine.items() if counterpart[n] is not None or aliases.get(n, n) not in known}
    _check_architecture(own, base, counterpart, is_merged)
    used = set(counterpart.values())
    return NameMatch(rule, counterpart, tuple(sorted(name for name in base if name not in used)))


def best_rule(fine: Specs, base: Specs) -> Rule:
    """Return the rule under which most tensors agree in name and shape; ties go to equal names.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.

    Raises
    ------
    EncodeError
        Two other rules tie.
    """
    counts = _count_agreeing(fine, base)
    identity = counts.pop(IDENTITY)
    top = max(counts.values(), default=0)
    if identity >= top:
        return IDENTITY
    best = sorted(rule for rule, count in counts.items() if count == top)
    if len(best) > 1:
        one, other = (_describe(rule) for rule in best[:2])
        raise EncodeError(
            f"names: expected one prefix that fits best, got {one} and {other} with {top} tensors each",
            Remedy("choose with {renames}", _OLD_NEW),
        )
    return best[0]


def _count_agreeing(fine: Specs, base: Specs) -> Counter[Rule]:
    """Count the tensors that agree in name and shape, under each rule for which there are any; linear in the names.

    A rule that drops a prefix does not change names without it, so tensors of equal names count for it, too. A rule
    that adds a prefix changes all names.
    """
    equal = [name for name in fine if _same_shape(fine, name, base, name)]
    counts: Counter[Rule] = Counter()
    # Rules that drop a prefix: cut each name at its dots.
    for name in fine:
        counts.update((prefix, "") for prefix, rest in _cuts(name) if _same_shape(fine, name, base, rest))
    # Names that are equal differ under a rule that drops their prefix.
    lost = Counter(prefix for name in equal for prefix, _ in _cuts(name) if (prefix, "") in counts)
    # Add the tensors of equal names, which such a rule leaves alone.
    for rule in counts:
        counts[rule] += len(equal) - lost[rule[0]]
    # Rules that add a prefix: cut the base's names.
    for name in base:
        counts.update(("", prefix) for prefix, rest in _cuts(name) if _same_shape(fine, rest, base, name))
    counts[IDENTITY] = len(equal)
    return counts


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Yield every way to cut a name into a prefix that ends in a dot, and the rest."""
    at = name.find(".") + 1
    while at:
        yield name[:at], name[at:]
        at = name.find(".", at) + 1


def _same_shape(fine: Specs, fine_name: str, base: Specs, base_name: str) -> bool:
    a, b = fine.get(fine_name), base.get(base_name)
    return a is not None and b is not None and a.shape == b.shape


def _describe(rule: Rule) -> str:
    a, b = rule
    return f"dropping {a!r}" if a else f"adding {b!r}"


def _apply_renames(fine: Specs, base: Specs, renames: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the names that renames give to tensors; each rename must match a tensor and lead to one of the base."""
    if repeated := [old for old, n in Counter(old for old, _ in renames).items() if n > 1]:
        raise EncodeError(f"renaming: expected each old name once, got {repeated[0]!r} again")
    result: dict[str, str] = {}
    # Longest `old` first: the first rename that matches a name applies.
    for old, new in sorted(renames, key=lambda pair: (-len(pair[0]), pair)):
        targets = {name: base_name(name, (old, new)) for name in fine if name.startswith(old) and name not in result}
        if not targets:
            raise EncodeError(f"renaming {old} to {new}: expected a tensor of the fine-tune that starts so, got none")
        if not any(target in base for target in targets.values()):
            target = next(iter(targets.values()))
            raise EncodeError(f"renaming {old} to {new}: expected tensors of the base such as {target!r}, got none")
        result |= targets
    return result


def _check_architecture(fine: Specs, base: Specs, counterpart: Mapping[str, str | None], is_merged: bool) -> None:
    """Refuse a base if columns agree for less than half of the fine-tune's elements, or of a merged base's."""
    # Elements that fit: those of tensors whose counterpart has as many columns; rows may have been added.
    others = {name: other for name in fine if (other := counterpart[name]) is not None}
    fits = {name for name, other in others.items() if _columns_agree(fine[name], base[other])}
    # A merged base lacks tensors, so it is measured by its own elements.
    whole, found = (base, {others[name] for name in fits}) if is_merged else (fine, fits)
    if 2 * sum(whole[name].elements for name in found) >= sum(spec.elements for spec in whole.values()):
        return
    # As the example in the message, a counterpart of another shape is more telling than a missing one.
    misfits = sorted((name for name in fine if name not in fits), key=lambda name: counterpart[name] is None)
    other = counterpart[misfits[0]]
    example = (
        f"{misfits[0]!r} is {fine[misfits[0]]}, the base's {other!r} {base[other]}"
        if other
        else (f"{misfits[0]!r} is {fine[misfits[0]]}, the base has none of that name")
    )
    raise BaseMismatchError(
        "base-tensor",
        "base",
        f"expected the fine-tune's architecture, got a base that fits {len(fits)} of {len(fine)} tensors ({example})",
        "4.4",
        Remedy("name the right base, or rename tensors with {renames}", _OLD_NEW),
    )


def _columns_agree(a: TensorSpec, b: TensorSpec) -> bool:
    return math.prod(a.shape[1:]) == math.prod(b.shape[1:])

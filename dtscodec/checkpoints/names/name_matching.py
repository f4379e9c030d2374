"""Matching of tensor names: the base's counterpart of each tensor of a fine-tune (spec section 4.4)."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.architecture_check import check_architecture
from dtscodec.checkpoints.names.expert_layouts import transposed_experts
from dtscodec.checkpoints.names.name_match import IDENTITY, NameMatch, Rule
from dtscodec.checkpoints.names.remaining_pairs import pair_remaining
from dtscodec.checkpoints.names.removed_names import with_removed, without_removed
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.naming import base_name

_SEPARATOR = re.compile("[./]")
"""End of a module's name, or of a folder's."""

FSDP = "_fsdp_wrapped_module"
"""Component that FSDP adds to the names in a state dict of the wrapped model itself."""

WITHOUT_WRAPPERS = Remedy(f"remove {FSDP + '.'!r} from the names, or save with FSDP's own state_dict, which does so")


def match_names(
    fine: Specs,
    base: Specs,
    renames: Sequence[tuple[str, str]] = (),
    aliases: Mapping[str, str] = MappingProxyType({}),
    is_merged: bool = False,
    removed: Mapping[str, str] = MappingProxyType({}),
    base_removed: Mapping[str, str] = MappingProxyType({}),
) -> NameMatch:
    """Match the names of a fine-tune to those of its base.

    1. `renames` come first, for the tensors that they match.
    2. One rule for all other names: they are equal, or those of one side have an additional prefix. It is the rule
       under which most tensors agree in name and shape.
    3. The remaining names: those that are equal without the components of wrappers (`canonical_name`), then those that
       several prefix rules pair (`pair_by_prefixes`), then fused experts and split ones (`fused_view`).

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
    removed, base_removed : mapping
        Names of tied tensors that the files do not hold: removed name -> remaining name (`removed_names`).

    Raises
    ------
    EncodeError
        Two rules agree equally well, a rename matches no tensor, or FSDP's wrappers are in the fine-tune's names.
    BaseMismatchError
        The base is of another architecture: less than half of the fine-tune's elements, or of a merged base's, are in
        tensors with a counterpart of as many columns.

    Examples
    --------
    >>> from dtscodec.format.dtypes import TensorSpec
    >>> fine = {"bert.w": TensorSpec("F32", (4, 2)), "head": TensorSpec("F32", (2, 2))}
    >>> match = match_names(fine, {"w": TensorSpec("F32", (4, 2)), "pooler": TensorSpec("F32", (3,))})
    >>> match.prefix, match.counterpart, match.absent
    (('bert.', ''), {'bert.w': 'w', 'head': None}, ('pooler',))
    """
    if wrapped := [name for name in fine if FSDP in name.split(".")]:
        detail = "expected a name that a model loads, got one with a wrapper of FSDP in it"
        raise EncodeError(f"{wrapped[0]!r}: {detail}", WITHOUT_WRAPPERS)

    def pair(more: Sequence[tuple[str, str]] = ()) -> NameMatch:
        wholes = with_removed(fine, removed), with_removed(base, base_removed)
        return without_removed(pair_names(*wholes, [*renames, *more]), removed, base_removed)

    match = pair()
    check_architecture(fine, base, match, aliases, is_merged, pair)
    return match


def pair_names(fine: Specs, base: Specs, renames: Sequence[tuple[str, str]] = ()) -> NameMatch:
    """Match names as `match_names` does, whatever share of the fine-tune has a counterpart.

    Parameters
    ----------
    fine, base, renames
        As for `match_names`.

    Raises
    ------
    EncodeError
        As for `match_names`.
    """
    # 1. Renames: tensors that they match take no part in the choice of a prefix.
    renamed = _apply_renames(fine, base, renames)
    # 2. The rule under which most tensors agree.
    rule = _first_rule({name: spec for name, spec in fine.items() if name not in renamed}, base)
    counterpart: dict[str, str | None] = {}
    for name in fine:
        target = renamed.get(name, base_name(name, rule))
        counterpart[name] = target if target in base else None
    # 3. The remaining names of both sides.
    used = set(counterpart.values())
    rest = pair_remaining(
        {n: s for n, s in fine.items() if counterpart[n] is None and n not in renamed},
        {n: s for n, s in base.items() if n not in used},
    )
    counterpart |= rest.pairs
    # Experts whose matrices are transposed are no counterparts, although some may agree in shape.
    transposed = transposed_experts(fine, base, counterpart)
    counterpart |= dict.fromkeys(transposed)
    used = {*counterpart.values(), *(part.name for parts in rest.parts.values() for part in parts)}
    absent = tuple(sorted(name for name in base if name not in used))
    return NameMatch(rule, counterpart, absent, rest.parts, (*transposed, *rest.transposed), rest.open_pairs)


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
    best, count = _best_rules(fine, base)
    if len(best) > 1:
        raise _tie(best, count)
    return best[0]


def _first_rule(fine: Specs, base: Specs) -> Rule:
    """Return the best rule; of several that tie, the first if they do not exclude each other."""
    best, count = _best_rules(fine, base)
    targets: set[str] = set()
    names: set[str] = set()
    for rule in best if len(best) > 1 else ():
        pairs = {n: base_name(n, rule) for n in fine if _same_shape(fine, n, base, base_name(n, rule))}
        if not (names.isdisjoint(pairs) and targets.isdisjoint(pairs.values())):
            raise _tie(best, count)
        names.update(pairs)
        targets.update(pairs.values())
    return best[0]


def _best_rules(fine: Specs, base: Specs) -> tuple[list[Rule], int]:
    """Return the rules under which most tensors agree, and how many do; equal names alone if these are as good."""
    counts = _count_agreeing(fine, base)
    identity = counts.pop(IDENTITY)
    top = max(counts.values(), default=0)
    if identity >= top:
        return [IDENTITY], identity
    return sorted(rule for rule, count in counts.items() if count == top), top


def _tie(best: Sequence[Rule], count: int) -> EncodeError:
    one, other = (_describe(rule) for rule in best[:2])
    problem = f"names: expected one prefix that fits best, got {one} and {other} with {count} tensors each"
    return EncodeError(problem, Remedy("choose with {renames}", {"renames": str([best[0]])}))


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
    """Yield every way to cut a name into a prefix that ends in a dot, or in the slash of a folder, and the rest."""
    for separator in _SEPARATOR.finditer(name):
        yield name[: separator.end()], name[separator.end() :]


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

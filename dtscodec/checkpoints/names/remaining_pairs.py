"""Counterparts of the tensors that one prefix rule for all names does not pair."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.canonical_names import by_canonical_name
from dtscodec.checkpoints.names.expert_layouts import (
    BasePart,
    FusedView,
    Parts,
    agreeing_layers,
    fused_experts,
    fused_view,
)
from dtscodec.checkpoints.names.prefix_rules import PrefixPairs, pair_by_prefixes


@dataclass(frozen=True, slots=True)
class RemainingPairs:
    """Counterparts of the remaining tensors.

    Parameters
    ----------
    pairs : mapping of str to str
        Name in the fine-tune -> name of its counterpart, of whatever shape.
    parts : mapping of str to Parts
        Name in the fine-tune -> rows of base tensors that are its counterpart.
    transposed : tuple of str
        Experts in the fine-tune that have counterparts by name, but in another layout.
    open_pairs : PrefixPairs
        Result of the prefix rules, with those that fit but were not applied.
    """

    pairs: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Parts] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    open_pairs: PrefixPairs = field(default_factory=PrefixPairs)


def pair_remaining(fine: Specs, base: Specs) -> RemainingPairs:
    """Pair the remaining tensors of both sides.

    Parameters
    ----------
    fine, base : mapping
        Specs of the tensors that are not paired yet, by name.
    """
    if not fine or not base:
        return RemainingPairs()
    ours, theirs = fused_experts(fine), fused_experts(base)
    if ours and not theirs:
        return _pair_fused(fine, base, fused_view(base))
    if theirs and not ours:
        return _pair_split(fine, base, fused_view(fine))
    pairs, open_pairs = _pair_wholes(fine, base)
    return RemainingPairs(pairs, open_pairs=open_pairs)


def _pair_wholes(fine: Specs, base: Specs) -> tuple[dict[str, str], PrefixPairs]:
    """Pair canonical names: equal ones, then by prefix rules."""
    ours, theirs = by_canonical_name(fine), by_canonical_name(base)
    pairs = {name: theirs[short] for short, name in ours.items() if short in theirs}
    found = pair_by_prefixes(
        {short: fine[name] for short, name in ours.items() if short not in theirs},
        {short: base[name] for short, name in theirs.items() if short not in ours},
    )
    return pairs | {ours[one]: theirs[other] for one, other in found.pairs.items()}, found


def _pair_fused(fine: Specs, base: Specs, view: FusedView) -> RemainingPairs:
    """Pair a fine-tune of fused experts with a base of split ones: each fused tensor has all of them as parts."""
    pairs, open_pairs = _pair_wholes(fine, view.in_place_of_split(base))
    experts, others = agreeing_layers({f: g for f, g in pairs.items() if g in view.members}, fine, view.specs)
    wholes = {f: g for f, g in pairs.items() if g not in view.members}
    return RemainingPairs(wholes, {f: view.members[g] for f, g in experts.items()}, tuple(others), open_pairs)


def _pair_split(fine: Specs, base: Specs, view: FusedView) -> RemainingPairs:
    """Pair a fine-tune of split experts with a base of fused ones: each split tensor has some of its rows."""
    pairs, open_pairs = _pair_wholes(view.in_place_of_split(fine), base)
    experts, others = agreeing_layers({f: g for f, g in pairs.items() if f in view.members}, view.specs, base)
    parts: dict[str, Parts] = {}
    for label, other in experts.items():
        first = 0
        for member in view.members[label]:
            parts[member.name] = (BasePart(other, first, member.height),)
            first += member.height
    wholes = {f: g for f, g in pairs.items() if f not in view.members}
    return RemainingPairs(wholes, parts, tuple(part.name for f in others for part in view.members[f]), open_pairs)

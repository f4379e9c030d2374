"""Check that a base is of a fine-tune's architecture. The error names the cause and a remedy."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.checkpoints.names.prefix_rules import NUMBER, PrefixRule
from dtscodec.errors import BaseMismatchError, EncodeError, Remedy
from dtscodec.format.dtypes import TensorSpec

Retry: TypeAlias = Callable[[Sequence[tuple[str, str]]], NameMatch]
"""Matches the same names with renames."""

MOST_TRIED = 4
"""Largest number of renames that are tried for a suggestion."""

SAVE_AS_ON_THE_HUB = Remedy(
    "save the fine-tune with transformers' save_pretrained, which writes the layout of the hub; if their number "
    "differs, name the base that the fine-tune was trained from"
)
MERGE = Remedy("merge the adapter before saving, with merge_and_unload of PEFT")
IMPORT = Remedy("make a pack of it with {import_adapter}")
NAME_MODEL = Remedy("name the model that the adapter was trained on")

ADAPTER_PARTS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"})
"""Components of names that only tensors of an adapter have."""


def check_architecture(
    fine: Specs, base: Specs, match: NameMatch, aliases: Mapping[str, str], is_merged: bool, retry: Retry
) -> None:
    """Refuse a base if columns agree for less than half of the fine-tune's elements, or of a merged base's.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    match : NameMatch
        The counterparts.
    aliases : mapping
        Tensors of the fine-tune that are the same memory: later name -> first name.
    is_merged : bool
        Whether the base was merged from fine-tunes.
    retry : callable
        Matches names with renames, to find some that help.

    Raises
    ------
    BaseMismatchError
        The message names the cause: an adapter, another size, other names.
    """
    if not base:
        return  # Without any tensors it is given on purpose, for a pack that needs no base.
    redundant = redundant_aliases(match, aliases)
    own = {name: spec for name, spec in fine.items() if name not in redundant}
    fits = fitting(own, base, match)
    # A merged base lacks tensors, so it is measured by its own elements.
    whole, found = (base, {other for name in fits for other in match.bases(name)}) if is_merged else (own, fits)
    if 2 * sum(whole[name].elements for name in found) >= sum(spec.elements for spec in whole.values()):
        return
    detail, remedy = _cause(own, base, match, fits, retry)
    raise BaseMismatchError("base-tensor", "base", detail, "4.4", remedy)


def redundant_aliases(match: NameMatch, aliases: Mapping[str, str]) -> set[str]:
    """Return names of tied tensors that need no counterpart, since another name of the same memory has one.

    Parameters
    ----------
    match : NameMatch
        The counterparts.
    aliases : mapping
        Later name -> first name.
    """
    known = {aliases.get(name, name) for name in match.counterpart if match.bases(name)}
    return {name for name in match.counterpart if not match.bases(name) and aliases.get(name, name) in known}


def fitting(fine: Specs, base: Specs, match: NameMatch) -> set[str]:
    """Return the tensors whose counterpart has as many columns; rows may have been added.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    match : NameMatch
        The counterparts.
    """
    others = {name: other for name in fine if (other := match.counterpart[name]) is not None}
    return {n for n, other in others.items() if _columns_agree(fine[n], base[other])} | (set(fine) & set(match.parts))


def _cause(fine: Specs, base: Specs, match: NameMatch, fits: set[str], retry: Retry) -> tuple[str, Remedy]:
    """Return the reason why a base does not fit, and a remedy."""
    if any(has_adapter_part(name) for name in fine) and any("base_layer" in name.split(".") for name in fine):
        return "expected the weights of a model as the fine-tune, got weights with an adapter beside them", MERGE
    # An adapter in place of a model, on either side.
    for side, specs, remedy in (("fine-tune", fine, IMPORT), ("base", base, NAME_MODEL)):
        if adapter := tensors_of_adapter(specs):
            detail = f"expected the weights of a model as the {side}, got an adapter's, such as {adapter[0]!r}"
            return detail, remedy
    fit = f"expected the fine-tune's architecture, got a base that fits {len(fits)} of {len(fine)} tensors"
    if match.transposed:
        name = match.transposed[0]
        return f"{fit}: experts differ in layout or number, such as {name!r}", SAVE_AS_ON_THE_HUB
    # Names that would fit with a rename.
    if match.open_pairs.ambiguous:
        rule, rival = match.open_pairs.ambiguous[0]
        detail = f"{fit}: {describe_rule(rule)} and {describe_rule(rival)} fit equally well"
        return detail, Remedy("choose with {renames}", {"renames": str([as_rename(rule)])})
    if renames := helpful_renames(fine, base, match, retry):
        old, new = renames[0]
        others = [as_rename(rule)[1] for rule in match.open_pairs.renamings if as_rename(rule)[0] == old]
        choice = next((f": {old!r} may be {new!r} or {other!r}" for other in others if other != new), "")
        return f"{fit}: names differ{choice}", rename_remedy(renames)
    # Names that would fit with a rename of a module in each layer, which a prefix cannot say.
    if numbered := [rule for rule in match.open_pairs.renamings if NUMBER in rule[0]]:
        detail = f"{fit}: names differ, {describe_rule(numbered[0])} would fit"
        return detail, Remedy("if they are the same modules, rename them in the fine-tune as in the base")
    # A counterpart of another shape is a better example than a missing one.
    misfits = [name for name in fine if name not in fits]
    name = max(misfits, key=lambda name: (match.counterpart[name] is not None, fine[name].elements))
    other = match.counterpart[name]
    if other is None:
        detail = f"{fit} ({name!r} is {fine[name]}, the base has none of that name)"
        return detail, Remedy("name the right base")
    sizes = f"{name!r} is {fine[name]}, the base's {other!r} {base[other]}"
    cause = "names agree, sizes do not: " if _names_agree(fine, match) else ""
    return f"{fit} ({cause}{sizes})", Remedy("name the base that the fine-tune was trained from")


def _names_agree(fine: Specs, match: NameMatch) -> bool:
    return 2 * sum(match.counterpart[name] is not None for name in fine) >= len(fine)


def tensors_of_adapter(names: Iterable[str]) -> list[str]:
    """Return the names that only an adapter has, if most names are an adapter's.

    Parameters
    ----------
    names : iterable of str
        Names of one checkpoint.
    """
    names = list(names)
    found = [name for name in names if has_adapter_part(name)]
    return found if 2 * len(found) >= len(names) else []


def has_adapter_part(name: str) -> bool:
    """Return whether a tensor's name has a component that only those of an adapter have."""
    return not ADAPTER_PARTS.isdisjoint(name.split("."))


def helpful_renames(fine: Specs, base: Specs, match: NameMatch, retry: Retry) -> list[tuple[str, str]]:
    """Return renames that give more of the fine-tune's elements a counterpart that fits; each was tried.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    match : NameMatch
        The counterparts without these renames.
    retry : callable
        Matches names with renames.
    """
    renames: list[tuple[str, str]] = []
    best = _fitting_elements(fine, base, match)
    for rule in match.open_pairs.renamings[:MOST_TRIED]:
        if NUMBER in rule[0] + rule[1] or not any(name.startswith(as_rename(rule)[0]) for name in fine):
            continue
        try:
            count = _fitting_elements(fine, base, retry([*renames, as_rename(rule)]))
        except EncodeError:
            continue
        if count > best:
            renames.append(as_rename(rule))
            best = count
    return renames


def _fitting_elements(fine: Specs, base: Specs, match: NameMatch) -> int:
    return sum(fine[name].elements for name in fitting(fine, base, match))


def rename_remedy(renames: Sequence[tuple[str, str]]) -> Remedy:
    """Return the advice to rename."""
    return Remedy("if they are the same modules, match them with {renames}", {"renames": str(list(renames))})


def as_rename(rule: PrefixRule) -> tuple[str, str]:
    """Return a prefix rule as a rename (old, new).

    >>> as_rename((("model", "visual"), ("visual",)))
    ('model.visual.', 'visual.')
    """
    old, new = (".".join((*prefix, "")) for prefix in rule)
    return old, new


def describe_rule(rule: PrefixRule) -> str:
    """Return a prefix rule in words."""
    old, new = as_rename(rule)
    return f"{old!r} as {new!r}"


def _columns_agree(a: TensorSpec, b: TensorSpec) -> bool:
    return math.prod(a.shape[1:]) == math.prod(b.shape[1:])

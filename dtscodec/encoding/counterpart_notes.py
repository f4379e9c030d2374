"""Notes on counterparts: tensors without one, tensors that only the base has, and a fine-tune that equals its base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.architecture_check import (
    MERGE,
    SAVE_AS_ON_THE_HUB,
    as_rename,
    describe_rule,
    fitting,
    has_adapter_part,
    helpful_renames,
    rename_remedy,
)
from dtscodec.checkpoints.names.name_match import IDENTITY, NameMatch
from dtscodec.checkpoints.names.name_matching import pair_names
from dtscodec.encoding.encoded_tensor import EncodedTensor
from dtscodec.encoding.notes import NAMED_TENSORS, Note
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.blocks import Raw, Same, Tie
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.naming import base_name
from dtscodec.messages import counted, listed

LARGE_SHARE = 0.1
"""Least share of the base's parameters for a note on tensors that the fine-tune lacks."""


@dataclass(frozen=True, slots=True)
class MatchedNames:
    """A fine-tune's and its base's tensors, and their counterparts.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    match : NameMatch
        The counterparts.
    renames : sequence of (old, new)
        The renames that were given.
    """

    fine: Specs
    base: Specs
    match: NameMatch
    renames: Sequence[tuple[str, str]] = ()


class CounterpartReport:
    """Collects how tensors were stored, for the notes on counterparts.

    Parameters
    ----------
    names : MatchedNames
        The tensors of both checkpoints.
    has_deltas : bool
        Whether changes are stored as deltas at all, so that tensors without any did not change.
    """

    def __init__(self, names: MatchedNames, has_deltas: bool = True) -> None:
        self._names = names
        self._fitting = fitting(names.fine, names.base, names.match)
        self._new: dict[str, bool] = {}
        self._without_delta: dict[str, bool] = {}
        self._is_changed = not has_deltas

    def add(self, tensor: EncodedTensor) -> None:
        """Add a tensor of the pack."""
        entry = tensor.entry
        # A tied tensor needs no counterpart: the one that it is tied to counts.
        if entry.tied_to is None:
            is_exact = all(isinstance(block, Raw) for block in entry.blocks)
            if entry.name not in self._fitting:
                self._new[entry.name] = is_exact
            elif entry.spec.dtype in CODED_DTYPES and self._codes_in_base([entry.name]):
                self._without_delta[entry.name] = is_exact
        is_base = all(
            isinstance(block, Tie) or (isinstance(block, Same) and block.base is not None) for block in entry.blocks
        )
        # Deltas that the budget left out are changes, too.
        self._is_changed |= not is_base or bool(tensor.squares.delta)

    def notes(self) -> list[Note]:
        """Return the notes that apply."""
        notes = [self._new_note()] if self._new else []
        notes += [self._without_delta_note()] if self._without_delta else []
        notes += [note for note in (self._absent_note(), self._names_note()) if note is not None]
        if self._names.fine and not self._is_changed:
            notes.append(Note(kind="unchanged", text="no tensor differs from the base"))
        return notes

    def _new_note(self) -> Note:
        names = tuple(sorted(self._new))
        parameters, share = _size(names, self._names.fine)
        has, are = ("has", "is") if len(names) == 1 else ("have", "are")
        cause, remedy = self._advice(names)
        text = (
            f"{counted(len(names), 'tensor')} ({100 * share:.1f} % of the parameters) {has} no counterpart in the base "
            f"and {are} stored {_how(self._new)}: {listed(names, NAMED_TENSORS)}{cause}"
        )
        return Note(
            kind="without-counterpart", text=text, names=names, parameters=parameters, share=share, remedy=remedy
        )

    def _without_delta_note(self) -> Note:
        """Return the note on tensors that are quantized in the base only: codes have no delta to them."""
        names = tuple(sorted(self._without_delta))
        parameters, share = _size(names, self._names.fine)
        are = "is" if len(names) == 1 else "are"
        dtypes = " or ".join(self._codes_in_base(names))
        text = (
            f"{counted(len(names), 'tensor')} ({100 * share:.1f} % of the parameters) {are} {dtypes} in the base "
            f"and {are} stored {_how(self._without_delta)}: {listed(names, NAMED_TENSORS)}"
        )
        return Note(kind="without-counterpart", text=text, names=names, parameters=parameters, share=share)

    def _codes_in_base(self, names: Sequence[str]) -> list[str]:
        """Return the dtypes of the counterparts of tensors that are not those of plain weights."""
        base, match = self._names.base, self._names.match
        return sorted({base[other].dtype for name in names for other in match.bases(name)} - CODED_DTYPES)

    def _advice(self, names: Sequence[str]) -> tuple[str, Remedy | None]:
        """Return the reason why tensors have no counterpart, empty if it is unknown, and a remedy."""
        fine, base, match, renames = self._names.fine, self._names.base, self._names.match, self._names.renames
        if any(map(has_adapter_part, names)):
            return " (of an adapter)", MERGE
        if match.transposed:
            return " (experts that differ from the base's in layout or number)", SAVE_AS_ON_THE_HUB
        if match.open_pairs.ambiguous:
            rule, rival = match.open_pairs.ambiguous[0]
            return f" ({describe_rule(rule)} and {describe_rule(rival)} fit equally well)", rename_remedy(
                [as_rename(rule)]
            )
        found = helpful_renames(fine, base, match, lambda more: pair_names(fine, base, [*renames, *more]))
        return "", rename_remedy(found) if found else None

    def _absent_note(self) -> Note | None:
        match = self._names.match
        absent = tuple(name for name in match.absent if name not in match.shared)
        parameters, share = _size(absent, self._names.base)
        if share < LARGE_SHARE:
            return None
        are = "is" if len(absent) == 1 else "are"
        text = (
            f"{counted(len(absent), 'tensor')} of the base ({100 * share:.1f} % of its parameters) {are} not in the "
            f"fine-tune: {listed(absent, NAMED_TENSORS)}"
        )
        return Note(kind="absent", text=text, names=absent, parameters=parameters, share=share)

    def _names_note(self) -> Note | None:
        """Return the note on names that neither one prefix nor a rename of the caller's accounts for."""
        fine, match, renames = self._names.fine, self._names.match, self._names.renames
        given = tuple(old for old, _ in renames)
        usual = {n: (n, base_name(n, match.prefix)) for n in fine}
        other = {n: bases[0] for n in fine if (bases := match.bases(n)) and bases[0] not in usual[n]}
        names = tuple(name for name in sorted(other) if not (given and name.startswith(given)))
        if not names:
            return None
        parameters, share = _size(names, fine)
        were = "of another name in the base was" if len(names) == 1 else "of other names in the base were"
        text = f"{counted(len(names), 'tensor')} {were} matched, such as {names[0]} to {other[names[0]]}"
        # The renames with the same result, where prefixes alone can express it.
        rules = [*map(as_rename, match.open_pairs.applied), *([match.prefix] if match.prefix != IDENTITY else [])]
        is_same = bool(rules) and self._gives_the_same(rules)
        remedy = Remedy("the same as {renames}", {"renames": str(rules)}) if is_same else None
        return Note(kind="other-names", text=text, names=names, parameters=parameters, share=share, remedy=remedy)

    def _gives_the_same(self, rules: Sequence[tuple[str, str]]) -> bool:
        try:
            again = pair_names(self._names.fine, self._names.base, [*self._names.renames, *rules])
        except EncodeError:
            return False  # A rule has a number in it, or matches no name as a rename.
        return again.counterpart == self._names.match.counterpart


def _how(exact: Mapping[str, bool]) -> str:
    """Return in words how tensors were stored that have no delta, from whether each is exact."""
    return "exactly" if all(exact.values()) else "without it"


def _size(names: Sequence[str], specs: Specs) -> tuple[int, float]:
    """Return the elements of some tensors, and their share of a checkpoint's."""
    elements = sum(specs[name].elements for name in names)
    return elements, elements / max(1, sum(spec.elements for spec in specs.values()))

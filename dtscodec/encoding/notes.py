"""Notes on a pack: facts about how a fine-tune was stored, beyond sizes and errors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from dtscodec.errors import Remedy, Spell, spell_python

NoteKind: TypeAlias = Literal[
    "without-counterpart",
    "absent",
    "other-names",
    "exact",
    "unchanged",
    "dequantized-base",
    "passed-over",
    "changed-config",
    "untied",
    "missing",
]
"""Kinds of notes, in the order in which they are printed."""

NAMED_TENSORS = 3
"""Most tensors that a note names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One note: a sentence for people, and the facts in it for programs.

    Parameters
    ----------
    kind : str
        ``"without-counterpart"``: tensors that the base lacks, or has quantized. ``"absent"``: tensors of the base, a
        large share of it, that the fine-tune lacks. ``"other-names"``: tensors whose names in the base differ by more
        than one prefix. ``"exact"``: tensors that are stored exactly, by reason. ``"unchanged"``: no tensor differs
        from the base. ``"dequantized-base"``: a quantized base that was read dequantized. ``"passed-over"``: files of
        the fine-tune or the base that were not read, by reason. ``"changed-config"``: differences of an imported
        fine-tune's configuration from the base's. ``"untied"``: tensors that the base ties and an imported fine-tune
        does not. ``"missing"``: tensors or rows of an imported fine-tune that neither base nor adapter holds.
    text : str
        One line, without the name of the fine-tune.
    names : tuple of str
        The tensors or files, ascending.
    parameters : int
        Elements of these tensors; 0 for files.
    share : float
        These elements as a share of the fine-tune's, of absent tensors as a share of the base's; 0 for files.
    remedy : Remedy, optional
        Advice, its arguments spelled by `str` for Python.
    """

    kind: NoteKind
    text: str
    names: tuple[str, ...] = ()
    parameters: int = 0
    share: float = 0.0
    remedy: Remedy | None = None

    def spelled(self, spell: Spell) -> str:
        """Return text and remedy in one line, the remedy's arguments spelled by `spell`; see `Remedy.spelled`."""
        return self.text if self.remedy is None else f"{self.text}; {self.remedy.spelled(spell)}"

    def __str__(self) -> str:
        return self.spelled(spell_python)


def ordered(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Return notes in the order of their kinds; notes of one kind remain in their order.

    Parameters
    ----------
    notes : iterable of Note
        Notes of any kinds.
    """
    kinds = get_args(NoteKind)
    return tuple(sorted(notes, key=lambda note: kinds.index(note.kind)))

"""The note on files of a model directory that were not read."""

from collections.abc import Mapping
from itertools import groupby

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.encoding.notes import Note
from dtscodec.messages import listed

_MAX_NAMES = 3
"""Most files of one reason that the text spells out."""


def passed_over_notes(checkpoints: Mapping[str, Checkpoint]) -> list[Note]:
    """Return a note on each checkpoint in whose directory other weights were passed over.

    Parameters
    ----------
    checkpoints : mapping of str to Checkpoint
        The checkpoints by role: ``base``, ``fine-tune``.

    Raises
    ------
    CheckpointError
        A folder of a directory cannot be listed.
    """
    return [_note(role, checkpoint) for role, checkpoint in checkpoints.items() if checkpoint.passed_over]


def _note(role: str, checkpoint: Checkpoint) -> Note:
    # Reasons in the order of their first files.
    found = checkpoint.passed_over
    reasons = list(dict.fromkeys(entry.reason for entry in found))
    ordered = sorted(found, key=lambda entry: reasons.index(entry.reason))
    parts = [
        f"{listed([entry.file for entry in group], _MAX_NAMES)} ({reason})"
        for reason, group in ((reason, list(entries)) for reason, entries in groupby(ordered, lambda e: e.reason))
    ]
    names = tuple(sorted(entry.file for entry in found))
    text = f"the {role} was read from {_weights(checkpoint)}; passed over: {'; '.join(parts)}"
    return Note(kind="passed-over", text=text, names=names)


def _weights(checkpoint: Checkpoint) -> str:
    """Return the name of the file that was opened, or those of the folders."""
    opened = checkpoint.location.split("/")[-1]
    return opened if opened in checkpoint.weight_files else listed(checkpoint.folders, _MAX_NAMES)

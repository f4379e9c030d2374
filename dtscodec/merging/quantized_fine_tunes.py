"""Quantized checkpoints in a merge: the check that the base fits the fine-tunes, and the note on copied weights."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.quantized.find_quantization import find_quantization
from dtscodec.encoding.notes import Note
from dtscodec.encoding.quantized_inputs import check_quantization
from dtscodec.errors import EncodeError, MergeError, Remedy
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.messages import counted

_DEQUANTIZE = Remedy("dequantize the fine-tunes with the library that quantized them, to merge these weights, too")


def check_base_quantization(base: Base | None, fine_tunes: Sequence[Checkpoint], raw: Sequence[str]) -> None:
    """Refuse a base and a fine-tune of which only one is quantized, or each in another scheme.

    Their weights would have no task vectors, so that every method would average them.

    Parameters
    ----------
    base : Base, optional
        The pre-trained base, perhaps read dequantized.
    fine_tunes : sequence of Checkpoint
        The fine-tunes.
    raw : sequence of str
        Patterns of names of tensors that are left out.

    Raises
    ------
    MergeError
        The base does not fit.
    CheckpointError
        The description of a quantized weight is not valid.
    """
    if base is None:
        return
    for fine in fine_tunes:
        try:
            check_quantization(base, fine, lambda name: any(fnmatchcase(name, pattern) for pattern in raw))
        except EncodeError as error:
            raise MergeError(error.problem, error.remedy) from error


def copied_notes(inputs: MergeInputs) -> list[Note]:
    """Return the note on quantized weights, which are copied from the first fine-tune; none without such weights.

    Parameters
    ----------
    inputs : MergeInputs
        The inputs of the merge.
    """
    first = inputs.fine_tunes[0]
    found = find_quantization(first)
    codes = {weight.parts[0] for weight in found.weights.values()} | found.others.keys()
    names = tuple(sorted(codes & set(inputs.copied)))
    if not names:
        return []
    parameters = sum(first.specs[name].elements for name in names)
    share = parameters / sum(spec.elements for spec in inputs.specs.values())
    are = "is" if len(names) == 1 else "are"
    text = (
        f"{counted(len(names), 'quantized weight')} ({100 * share:.1f} % of the parameters) {are} copied "
        f"from {first.location}, not merged"
    )
    return [Note(kind="exact", text=text, names=names, parameters=parameters, share=share, remedy=_DEQUANTIZE)]

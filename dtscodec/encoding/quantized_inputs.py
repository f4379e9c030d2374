"""Checks that a quantized base and fine-tune fit together, and the note on a base that was read dequantized."""

from collections.abc import Callable, Collection, Mapping

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Specs
from dtscodec.checkpoints.quantized.dequantized_checkpoint import DequantizedCheckpoint
from dtscodec.checkpoints.quantized.find_quantization import UNSCALED_FP8, Quantization, find_quantization
from dtscodec.encoding.notes import Note
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.messages import counted, listed

_DEQUANTIZE_BOTH = Remedy(
    "dequantize the fine-tune with the library that quantized it, and read the base dequantized with {dequantize_base}",
    {"dequantize_base": "True"},
)


def check_quantization(base: Base, fine: Checkpoint, is_exact: Callable[[str], bool]) -> None:
    """Refuse a base and a fine-tune of which only one is quantized, or each in another scheme.

    The names, shapes or dtypes of their weights differ, so all weights would be new.

    Parameters
    ----------
    base : Base
        The base, perhaps read dequantized.
    fine : Checkpoint
        The fine-tune.
    is_exact : callable
        Returns whether a tensor of the fine-tune is stored exactly by its name. A fine-tune is accepted if all its
        quantized weights are.

    Raises
    ------
    EncodeError
        The two do not fit.
    CheckpointError
        The description of a quantized weight is not valid.
    """
    ours, theirs = find_quantization(fine), find_quantization(base.checkpoint)
    where = f"base {base.location}"
    if theirs and not ours:
        detail = f"expected weights like the fine-tune's, which are {_dtypes(fine.specs)}, got {_words(theirs)}"
        raise EncodeError(f"{where}: {detail}", theirs.remedy)
    if ours and not theirs and not _all_codes(ours, is_exact):
        detail = f"expected weights quantized like the fine-tune's, which are {_words(ours)}, got {_dtypes(base.specs)}"
        raise EncodeError(f"{where}: {detail}", _remedy_of_quantized_fine_tune(base))
    if ours and theirs and not ours.schemes & theirs.schemes and not _all_codes(ours, is_exact):
        detail = f"expected weights quantized like the fine-tune's, which are {_words(ours)}, got {_words(theirs)}"
        raise EncodeError(f"{where}: {detail}", _DEQUANTIZE_BOTH)


def check_plain_base(base: Base) -> None:
    """Refuse a quantized base for an adapter, whose change is added to plain weights.

    Parameters
    ----------
    base : Base
        The base, perhaps read dequantized.

    Raises
    ------
    EncodeError
        It has quantized weights.
    CheckpointError
        The description of a quantized weight is not valid.
    """
    if found := find_quantization(base.checkpoint):
        raise EncodeError(f"base {base.location}: expected plain weights, got {_words(found)}", found.remedy)


def dequantized_notes(base: Base, fine: Specs, bases: Callable[[str], Collection[str]]) -> list[Note]:
    """Return the note on a base that was read dequantized; none for any other base.

    Parameters
    ----------
    base : Base
        The base.
    fine : mapping
        Specs of the fine-tune by name.
    bases : callable
        Returns the names of the base tensors that a tensor is encoded against.
    """
    checkpoint = base.checkpoint
    if not isinstance(checkpoint, DequantizedCheckpoint):
        return []
    quantization = checkpoint.quantization
    names = tuple(sorted(name for name in fine if quantization.weights.keys() & set(bases(name))))
    parameters = sum(fine[name].elements for name in names)
    share = parameters / max(1, sum(spec.elements for spec in fine.values()))
    text = (
        f"the base is quantized ({_schemes(quantization)}) and was read dequantized to {checkpoint.dtype}: "
        f"{len(names):,} of its weights ({100 * share:.1f} % of the parameters) are counterparts"
    )
    return [Note(kind="dequantized-base", text=text, names=names, parameters=parameters, share=share)]


def _remedy_of_quantized_fine_tune(base: Base) -> Remedy:
    if base.dequantized:
        return Remedy("leave out {dequantize_base}, so that both are used as they are stored")
    return Remedy("name a base that is quantized in the same way, or dequantize the fine-tune and name the result")


def _all_codes(ours: Quantization, condition: Callable[[str], bool]) -> bool:
    """Return whether all names of quantized weights fulfil a condition, apart from codes that are values."""
    codes = [weight.parts[0] for weight in ours.weights.values()]
    codes += [name for name, scheme in ours.others.items() if scheme != UNSCALED_FP8]
    return all(map(condition, codes))


def _words(quantization: Quantization) -> str:
    """Return how many weights are quantized, in which scheme, and one of them."""
    names: Mapping[str, object] = quantization.weights or quantization.others
    count = len(quantization.weights) + len(quantization.others)
    return f"{counted(count, 'weight')} of {_schemes(quantization)} ({min(names)})"


def _schemes(quantization: Quantization) -> str:
    return listed(sorted(quantization.schemes), 2)


def _dtypes(specs: Specs) -> str:
    """Return the dtypes of plain weights, the most frequent first."""
    sizes: dict[str, int] = {}
    for spec in specs.values():
        if _is_plain(spec):
            sizes[spec.dtype] = sizes.get(spec.dtype, 0) + spec.elements
    return " and ".join(sorted(sizes, key=lambda dtype: -sizes[dtype])[:2]) or "none"


def _is_plain(spec: TensorSpec) -> bool:
    return spec.dtype in CODED_DTYPES

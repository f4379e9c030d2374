"""The tensors of a fine-tune that are stored exactly whatever the budget, and the note on those that a pack has."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.checkpoints.quantized.companions import companions_of, is_quantized
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encoded_tensor import EncodedTensor
from dtscodec.encoding.notes import NAMED_TENSORS, Note
from dtscodec.encoding.segments.exact_rows import ExactReason
from dtscodec.format.blocks import Raw, Tie
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.index import TensorEntry
from dtscodec.messages import counted, listed


@dataclass(frozen=True, slots=True)
class ExactTensors:
    """Rules by which tensors of a fine-tune are stored exactly: by name, dtype or place.

    Parameters
    ----------
    config : EncodeConfig
        Holds the patterns of exact tensors.
    companions : frozenset of str
        Companions of quantized weights (`dtscodec.checkpoints.quantized.companions`).
    new : frozenset of str
        Tensors without a counterpart in the base.
    parameters : int
        Elements of the fine-tune.
    """

    config: EncodeConfig
    companions: frozenset[str]
    new: frozenset[str]
    parameters: int

    @classmethod
    def of(cls, fine: Specs, base: Specs, match: NameMatch, config: EncodeConfig) -> "ExactTensors":
        """Return the exact tensors of a fine-tune.

        Parameters
        ----------
        fine, base : mapping
            Specs by name.
        match : NameMatch
            The counterparts of the fine-tune's tensors.
        config : EncodeConfig
            Settings of the encode.
        """
        new = frozenset(name for name in fine if not match.bases(name))
        parameters = sum(spec.elements for spec in fine.values())
        return cls(config, companions_of(fine, base, match.counterpart), new, parameters)

    def includes(self, name: str) -> bool:
        """Return whether a tensor of a dtype that can be coded is stored exactly: by a pattern, or as a companion."""
        return self.config.stores_exactly(name) or name in self.companions

    def reason(self, entry: TensorEntry) -> ExactReason | None:
        """Return the reason why a tensor is exact; None if it is not, or if its bytes were the best choice."""
        # A tensor that is exact is tied only to one that is, too.
        if not any(isinstance(block, Raw | Tie) for block in entry.blocks):
            return None
        if self.config.stores_exactly(entry.name):
            return ExactReason.NAMED
        if entry.spec.dtype not in CODED_DTYPES:
            return ExactReason.DTYPE
        if entry.name in self.companions:
            return ExactReason.COMPANION
        is_new = entry.tied_to is None and entry.name in self.new
        return ExactReason.NEW if is_new and not self.config.quantizes_new_tensors else None


class ExactReport:
    """The exact tensors of one pack, for its report.

    Parameters
    ----------
    exact : ExactTensors
        The rules for exact tensors.
    """

    def __init__(self, exact: ExactTensors) -> None:
        self._exact = exact
        self._found: list[tuple[TensorEntry, ExactReason]] = []
        self.pack_bytes = self.weight_bytes = 0
        """Bytes that exact tensors take in the pack, and those of them that are weights: quantized or named."""

    def add(self, tensor: EncodedTensor) -> None:
        """Add a tensor of the pack; it counts if it is exact."""
        if (reason := self._exact.reason(tensor.entry)) is not None:
            self._found.append((tensor.entry, reason))
            size = sum(len(streams.raw) for streams in tensor.streams)
            self.pack_bytes += size
            self.weight_bytes += size if _is_weight(tensor.entry, reason) else 0

    def notes(self) -> list[Note]:
        """Return the note on exact tensors, if there are weights among them: counters and heads alone are usual."""
        if not any(_is_weight(*found) for found in self._found):
            return []
        parameters = sum(entry.spec.elements for entry, _ in self._found)
        share = parameters / max(1, self._exact.parameters)
        size = f"{_percent(share)} of the parameters, {self.pack_bytes:,} bytes"
        count = f"{counted(len(self._found), 'tensor')} ({size}) {'is' if len(self._found) == 1 else 'are'}"
        names = tuple(sorted(entry.name for entry, _ in self._found))
        text = f"{count} stored exactly: {', '.join(_reasons(self._found))}: {listed(names, NAMED_TENSORS)}"
        return [Note(kind="exact", text=text, names=names, parameters=parameters, share=share)]


def _is_weight(entry: TensorEntry, reason: ExactReason) -> bool:
    is_plain = reason is ExactReason.DTYPE and not is_quantized(entry.name, entry.spec)
    return not (is_plain or reason is ExactReason.NEW)


def _reasons(found: Iterable[tuple[TensorEntry, ExactReason]]) -> list[str]:
    """Return the reasons of exact tensors, each with the number of tensors, the most frequent first."""
    words = {
        ExactReason.COMPANION: "scales and other companions of quantized weights",
        ExactReason.NEW: "no counterpart in the base",
        ExactReason.NAMED: "named by a pattern",
    }
    counts = Counter(words.get(reason, f"dtype {entry.spec.dtype}") for entry, reason in found)
    return [f"{word} ({count:,})" for word, count in counts.most_common()]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

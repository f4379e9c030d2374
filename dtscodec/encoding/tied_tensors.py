"""Tied tensors: of tensors with equal content one is stored, and the others refer to it."""

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.encoding.exact_tensors import ExactTensors
from dtscodec.format.content_digest import leaf
from dtscodec.format.dtypes import TensorSpec


class TiedTensors:
    """Finds the tensor that another tensor is tied to. Calls must come in the order of names.

    Parameters
    ----------
    fine : Checkpoint
        The fine-tune.
    match : NameMatch
        The counterparts of its tensors.
    exact : ExactTensors
        The tensors that are stored exactly. They are tied only to others that are, too.
    """

    def __init__(self, fine: Checkpoint, match: NameMatch, exact: ExactTensors) -> None:
        self._fine, self._match, self._exact = fine, match, exact
        self._first_of: dict[tuple[bytes, bool], str] = {}
        self._matched: dict[TensorSpec, dict[bytes, str]] = {}
        self._originals: dict[str, str] = {}

    def original(self, name: str, content: bytes) -> str:
        """Return the name of the tensor that a tensor is tied to; its own name if it is tied to none.

        The result is never tied to another tensor itself.

        Parameters
        ----------
        name : str
            The name of the tensor.
        content : bytes
            Its leaf.
        """
        # All empty tensors are equal, but a tie would save nothing.
        if not self._fine.specs[name].nbytes:
            return name
        if name not in self._originals:
            self._originals[name] = self._find(name, content)
        original = self._originals[name]
        # From now on it must not become tied itself.
        self._originals[original] = original
        return original

    def _find(self, name: str, content: bytes) -> str:
        """Search for equal content among the tensors before, and for a new tensor among all that have a counterpart.

        In a state dict a tied `lm_head.weight` comes before the embedding, and a base on disk has the embedding only.
        Without the search ahead, the head would have to be stored exactly.
        """
        exact = self._exact.includes(name)
        # A tensor that may be quantized can refer to an exact one, but not the other way round.
        if not exact and (content, True) in self._first_of:
            return self._first_of[content, True]
        is_new = not self._match.bases(name)
        # A new tensor: search ahead among all that have a counterpart in the base.
        matched = self._matched_of(self._fine.specs[name]).get(content) if is_new else None
        if matched is not None and (not exact or self._exact.includes(matched)):
            # A match that is tied itself leads on to its original.
            original = self._originals.get(matched, matched)
            self._first_of.setdefault((content, self._exact.includes(original)), original)
            return original
        return self._first_of.setdefault((content, exact), name)

    def _matched_of(self, spec: TensorSpec) -> dict[bytes, str]:
        """Return leaf -> first name of the fine-tune's tensors of one spec that have a counterpart. Reads them once."""
        if spec not in self._matched:
            names = [n for n, s in self._fine.specs.items() if s == spec and self._match.bases(n)]
            # Reversed, so that the first name of equal tensors wins.
            self._matched[spec] = {leaf(spec, self._fine.read(name)): name for name in reversed(names)}
        return self._matched[spec]

"""Which tensors of a fine-tune are equal, so that one of them is stored and the others are tied to it."""

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.content_digest import leaf
from dtscodec.checkpoints.name_matching import NameMatch
from dtscodec.encoding.config import EncodeConfig
from dtscodec.format.dtypes import TensorSpec


class TiedTensors:
    """Finds the tensor that another one is tied to. To be asked in the order of names.

    Parameters
    ----------
    fine : Checkpoint
        The fine-tune.
    match : NameMatch
        Which of its tensors have a counterpart in the base.
    config : EncodeConfig
        Which of them are to be kept exactly: they are tied to nothing that is not.
    """

    def __init__(self, fine: Checkpoint, match: NameMatch, config: EncodeConfig) -> None:
        self._fine, self._match, self._config = fine, match, config
        self._first_of: dict[tuple[bytes, bool], str] = {}
        self._matched: dict[TensorSpec, dict[bytes, str]] = {}
        self._originals: dict[str, str] = {}

    def original(self, name: str, content: bytes) -> str:
        """Name of the tensor that this one is tied to; its own if it is tied to none. Originals are tied to none.

        Parameters
        ----------
        name : str
        content : bytes
            Its leaf.
        """
        if not self._fine.specs[name].nbytes:
            return name
        if name not in self._originals:
            self._originals[name] = self._find(name, content)
        original = self._originals[name]
        self._originals[original] = original
        return original

    def _find(self, name: str, content: bytes) -> str:
        """Look for equal content among the tensors before and, for a new one, among all that have a counterpart.

        A state dict has a tied `lm_head.weight` before the embedding, which alone a base on disk has: without looking
        ahead the head would have to be stored exactly.
        """
        exact = self._config.stores_exactly(name)
        if not exact and (content, True) in self._first_of:
            return self._first_of[content, True]
        is_new = self._match.counterpart[name] is None
        matched = self._matched_of(self._fine.specs[name]).get(content) if is_new else None
        if matched is not None and (not exact or self._config.stores_exactly(matched)):
            original = self._originals.get(matched, matched)
            self._first_of.setdefault((content, self._config.stores_exactly(original)), original)
            return original
        return self._first_of.setdefault((content, exact), name)

    def _matched_of(self, spec: TensorSpec) -> dict[bytes, str]:
        """Leaf -> first name, of the fine-tune's tensors of one spec that have a counterpart. Read once."""
        if spec not in self._matched:
            names = [n for n, s in self._fine.specs.items() if s == spec and self._match.counterpart[n] is not None]
            self._matched[spec] = {leaf(spec, self._fine.read(name)): name for name in reversed(names)}
        return self._matched[spec]

"""The survey of a whole checkpoint: candidate encodings of all segments, and the size of the pack for any choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dtscodec.encoding.budget.allocate import (
    LAMBDA_MAX,
    Choices,
    SegmentKey,
    TooSmallError,
    allocate,
    at_multiplier,
    total_cost,
)
from dtscodec.encoding.budget.candidate import NUMBERS, Candidate, CandidateList, Candidates
from dtscodec.encoding.budget.component_spectrum import SpectrumRequest
from dtscodec.encoding.config import DEFAULT_SIZE, EncodeConfig
from dtscodec.encoding.pack_assembler import LEAF_BYTES, PackMetadata
from dtscodec.encoding.targets import MaxError, Rank, RankShare, Size
from dtscodec.errors import Remedy, SizeError, assert_never
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import Index, TensorEntry
from dtscodec.format.layout import planned_size
from dtscodec.format.summary import Summary

KNOWN_ERROR = 0.5
"""Share of the target error up to which spectra are computed: single matrices may have to be closer than the whole."""


@dataclass(slots=True)
class Survey:
    """Candidate encodings of all segments, in the order of the tensors' names.

    Parameters
    ----------
    config : EncodeConfig
        Settings of the encode.
    specs : sequence of TensorSpec
        Specs of the fine-tune's tensors.
    """

    config: EncodeConfig
    specs: Sequence[TensorSpec]
    candidates: dict[SegmentKey, Candidates] = field(default_factory=dict)
    _tensors: list[tuple[str, TensorSpec, int, int]] = field(default_factory=list)

    def add(self, name: str, spec: TensorSpec, split: int, candidates: Sequence[Candidates]) -> None:
        """Add a tensor.

        Parameters
        ----------
        name : str
            Its name.
        spec : TensorSpec
            Its dtype and shape.
        split : int
            Number of leading dimensions that make up the rows of the tensor as a matrix.
        candidates : sequence of Candidates
            Candidate encodings of each of its segments, in order.
        """
        self._tensors.append((name, spec, split, len(candidates)))
        self.candidates.update(((name, place), each) for place, each in enumerate(candidates))

    def add_settled(self, entry: TensorEntry) -> None:
        """Add a tensor of settled blocks that take no bytes, such as a tied one.

        Parameters
        ----------
        entry : TensorEntry
            Its entry in the index.
        """
        self.add(
            entry.name,
            entry.spec,
            entry.split,
            [CandidateList((Candidate(block, 0, 0.0, 0.0),), 0.0) for block in entry.blocks],
        )

    def by_tensor(self, choices: Mapping[SegmentKey, Candidate]) -> dict[str, tuple[Candidate, ...]]:
        """Return choices grouped by tensor, one for each segment.

        Parameters
        ----------
        choices : mapping
            The candidate that each segment takes.
        """
        return {name: tuple(choices[name, place] for place in range(count)) for name, _, _, count in self._tensors}

    def choose(self, metadata: PackMetadata, budget: int) -> Choices:
        """Return the best choices for a file of at most `budget` bytes.

        Parameters
        ----------
        metadata : PackMetadata
            Everything of the pack except its tensors.
        budget : int
            Bytes.

        Raises
        ------
        SizeError
            Index, checksums, files and rows that cannot be left out take more.
        """
        empty = metadata.index(())
        try:
            return allocate(self.candidates, budget, lambda choices: self._size(choices, empty, metadata.summary))
        except TooSmallError as error:
            problem, remedy = self._too_small(budget, error.smallest), Remedy("ask for a larger {size}")
            raise SizeError(problem, remedy, error.smallest) from error

    def choose_any(self) -> Choices:
        """Return the only candidate of each segment, where the target is a rank."""
        return at_multiplier(self.candidates, 0.0)

    def size(self, choices: Mapping[SegmentKey, Candidate], metadata: PackMetadata) -> int:
        """Return the exact size of the pack file in bytes, before any tensor is encoded.

        Parameters
        ----------
        choices : mapping
            The candidate that each segment takes.
        metadata : PackMetadata
            Everything of the pack except its tensors.
        """
        return self._size(choices, metadata.index(()), metadata.summary)

    def _size(self, choices: Mapping[SegmentKey, Candidate], empty: Index, summary: Summary) -> int:
        """Return the size of a pack, given its index without tensors, which takes long to make."""
        entries = tuple(
            TensorEntry(name, spec, tuple(choices[name, place].block for place in range(count)), split)
            for name, spec, split, count in self._tensors
        )
        index = replace(empty, tensors=entries)
        bitmaps = b"".join(choice.bitmaps for choice in choices.values())
        # A pack that uses no base tensor has no base in its summary.
        return planned_size(
            index, summary if index.base_names() else replace(summary, base=None), bitmaps, LEAF_BYTES, NUMBERS
        )

    def budget(self, metadata: PackMetadata) -> int:
        """Return the largest size of the file, in bytes.

        The default grows with rows that cannot be left out, with new matrices in 8 bits, and with whole deltas of low
        rank, such as a merged LoRA's.

        Parameters
        ----------
        metadata : PackMetadata
            Everything of the pack except its tensors.
        """
        asked = self._asked()
        if isinstance(self.config.target, Size):
            return asked
        # Room for what a default pack holds in any case: whole deltas of low rank, new matrices in 8 bits.
        whole = {key: each.preferred or each.best(LAMBDA_MAX) for key, each in self.candidates.items()}
        return max(asked, self.size(whole, metadata))

    def _asked(self) -> int:
        """Return the target size in bytes, or the default."""
        size = self.config.target if isinstance(self.config.target, Size) else DEFAULT_SIZE
        return size.in_bytes(sum(spec.nbytes for spec in self.specs), self._parameters())

    def _parameters(self) -> int:
        return sum(spec.elements for spec in self.specs)

    @property
    def request(self) -> SpectrumRequest:
        """The number of singular values that candidates must be based on."""
        match self.config.target:
            case MaxError(error=error):
                # The target is a ratio of norms, the share one of squared norms.
                return SpectrumRequest(0.0, 1 - (KNOWN_ERROR * error) ** 2)
            case Size() | Rank() | RankShare() | None:
                return SpectrumRequest(self._asked() / max(1, self._parameters()), 0.0)
            case _:
                assert_never(self.config.target)

    def energy(self) -> float:
        """Return the squared norm of the whole delta, without rounding noise."""
        return sum(each.energy for each in self.candidates.values())

    def _too_small(self, budget: int, smallest: int) -> str:
        """Return the message for a budget that is smaller than the smallest pack."""
        least = at_multiplier(self.candidates, LAMBDA_MAX)
        costs = sorted(((choice.cost, name) for (name, _), choice in least.items() if choice.cost), reverse=True)
        # Name the three that take the most.
        takers = ", ".join(f"{name} {cost:,}" for cost, name in costs[:3])
        rest = smallest - total_cost(least)
        return (
            f"size: expected at least {smallest:,} bytes, got {budget:,}; that is index, checksums and files "
            f"({rest:,}) and what cannot be left out ({takers or 'nothing'})"
        )

"""Candidate encodings: ways to store a segment, each with its cost and its benefit, from which `allocate` chooses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from dtscodec.format.blocks import Block, Coded
from dtscodec.format.streams import NUMBER_DTYPES

NUMBERS = "BF16"
"""Dtype of norms, levels and scales: fine enough, since scales are fitted after levels are rounded."""
NUMBER_BYTES = NUMBER_DTYPES[NUMBERS]
"""Bytes of one of them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to store a segment.

    Parameters
    ----------
    block : Block
        The block that the segment would become.
    cost : int
        Bytes of its streams, bitmaps before compression.
    benefit : float
        Squared norm of the delta that it accounts for, weighted by the recipe (`Recipe.benefit`).
    removed_energy : float
        Squared norm of the delta that it accounts for, as predicted before encoding.
    bitmaps : bytes
        Bitmaps of coded rows and columns.
    """

    block: Block
    cost: int
    benefit: float
    removed_energy: float
    bitmaps: bytes = b""


def coded_bytes(block: Coded, columns: int, bitmaps: bytes) -> int:
    """Return the bytes of a coded block's streams, bitmaps before compression.

    Parameters
    ----------
    block : LowRank or Values
        The block.
    columns : int
        Columns of its tensor as a matrix.
    bitmaps : bytes
        Bitmaps of coded rows and columns.
    """
    # Codes, numbers, bitmaps.
    return sum(block.band_bytes(columns)) + NUMBER_BYTES * block.number_count(columns) + len(bitmaps)


class Candidates(Protocol):
    """All candidate encodings of one segment."""

    @property
    def energy(self) -> float:
        """Squared norm of the delta without rounding noise; 0 for new rows, without a counterpart in the base."""

    def best(self, multiplier: float) -> Candidate:
        """Return the candidate of the largest benefit minus multiplier times cost.

        Parameters
        ----------
        multiplier : float
            The Lagrange multiplier: benefit per byte.
        """

    @property
    def preferred(self) -> Candidate | None:
        """The candidate that the default size makes room for: a whole delta of low rank, or a new matrix in 8 bits."""

    def upgrades(self, candidate: Candidate) -> Iterator[Candidate]:
        """Yield candidates of more benefit that cost a few bytes more than another one.

        Parameters
        ----------
        candidate : Candidate
            The current choice.
        """


@dataclass(frozen=True, slots=True)
class CandidateList:
    """Candidates that can be listed.

    Parameters
    ----------
    candidates : tuple of Candidate
        At least one; costs ascending.
    energy : float
        See `Candidates`.
    """

    candidates: tuple[Candidate, ...]
    energy: float

    def best(self, multiplier: float) -> Candidate:
        """See `Candidates`."""
        # Ties go to the cheaper candidate: `max` returns the first, and costs ascend.
        return max(self.candidates, key=lambda candidate: candidate.benefit - multiplier * candidate.cost)

    @property
    def preferred(self) -> None:
        """See `Candidates`."""

    def upgrades(self, candidate: Candidate) -> Iterator[Candidate]:
        """See `Candidates`."""
        return (other for other in self.candidates if other.cost > candidate.cost and other.benefit > candidate.benefit)

"""Segments: consecutive rows of a tensor that become one block.

`Segment` is a closed union. `dtscodec.encoding.budget.segment_candidates` and `dtscodec.encoding.presets` match it.
"""

from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import ChangedDelta, EncodedBlock


@dataclass(frozen=True, slots=True)
class MatrixSegment:
    """A changed matrix that both checkpoints have; it may be stored by components.

    Parameters
    ----------
    delta : DenseDelta or FactoredDelta
        Its changed rows and columns.
    stored : StoredTensor or None
        The fine-tune's rows; None if only the delta is known.
    split : int
        Number of leading dimensions that make up the rows of the tensor as a matrix.
    """

    delta: ChangedDelta
    stored: StoredTensor | None
    split: int

    @property
    def energy(self) -> float:
        """Squared norm of the delta, without rounding noise."""
        return self.delta.energy


@dataclass(frozen=True, slots=True)
class ElementSegment:
    """Changed elements that both checkpoints have, coded one by one.

    Parameters
    ----------
    delta : DenseDelta
        A matrix of one column, so that each single element that did not change is left out.
    stored, split
        As of `MatrixSegment`.
    """

    delta: DenseDelta
    stored: StoredTensor | None
    split: int

    @property
    def energy(self) -> float:
        """Squared norm of the delta, without rounding noise."""
        return self.delta.energy


@dataclass(frozen=True, slots=True)
class NewSegment:
    """Rows without a counterpart in the base, of a dtype that can be quantized: a delta from zero.

    Parameters
    ----------
    delta : DenseDelta
        Their values.
    stored : StoredTensor
        The fine-tune's rows.
    split : int
        As of `MatrixSegment`.
    """

    delta: DenseDelta
    stored: StoredTensor
    split: int

    @property
    def energy(self) -> float:
        """0: energies count deltas from the base only."""
        return 0.0


Segment: TypeAlias = EncodedBlock | MatrixSegment | ElementSegment | NewSegment
"""A segment; an `EncodedBlock` is one without alternatives: unchanged, or exact bytes."""

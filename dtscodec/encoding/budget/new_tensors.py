"""Candidate encodings of tensors without a counterpart in the base, which are never left out."""

from collections.abc import Iterator

from torch import Tensor

from dtscodec.encoding.budget.candidate import Candidate, CandidateList, Candidates, coded_bytes
from dtscodec.encoding.budget.component_spectrum import ComponentSpectrum, SpectrumRequest
from dtscodec.encoding.budget.element_candidates import exact_candidates, fits_half
from dtscodec.encoding.budget.matrix_candidates import MatrixCandidates
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.segments.segment import New
from dtscodec.format.blocks import Values
from dtscodec.linalg.chunks import squared_norm

NEW_MATRIX_SIDE = 64
"""Smaller side from which on new matrices may be coded by components, if nothing better fits the budget."""


def candidates_of_new(new: New, config: EncodeConfig, request: SpectrumRequest) -> Candidates:
    """Return the candidates: 8 or 16 bits, exact bytes, and, for large matrices, components.

    Parameters
    ----------
    new : New
    config : EncodeConfig
    request : SpectrumRequest
    """
    moved, energy = new.moved, squared_norm(new.moved.values)
    (exact,) = exact_candidates(new, energy, energy)
    candidates = sorted([*_values(new, energy), exact], key=lambda candidate: candidate.cost)
    candidates = [candidate for candidate in candidates if candidate.cost < exact.cost] + [exact]
    if config.uniform_rank is not None:
        return CandidateList((exact,), 0.0)
    if min(moved.values.shape) < NEW_MATRIX_SIDE:
        return CandidateList(tuple(candidates), 0.0)
    spectrum = ComponentSpectrum.of(moved, config, request)
    return MatrixCandidates((spectrum,), tuple(candidates), 0.0, is_new=True)


def _values(new: New, energy: float) -> Iterator[Candidate]:
    moved = new.moved
    per_row = moved.values.shape[1] > 1
    eight = Values(*moved.subset, bits=8, per_row=per_row)
    removed = energy - _rounding_energy(moved.values, per_row)
    yield Candidate(eight, coded_bytes(eight, moved.columns, moved.bitmaps), removed, removed, moved.bitmaps)
    if fits_half(moved):
        half = Values(*moved.subset, bits=16)
        removed = energy - energy * 2.0**-24
        yield Candidate(half, coded_bytes(half, moved.columns, moved.bitmaps), removed, removed, moved.bitmaps)


def _rounding_energy(values: Tensor, per_row: bool) -> float:
    """Expected squared error of rounding to 255 steps, the last being the largest magnitude of a row, or of all."""
    largest = values.abs().amax(dim=1) if per_row else values.abs().max().expand(len(values))
    return float((largest.double() / 127).square().sum() / 12 * values.shape[1])

"""Segments -> their candidate encodings.

Nothing is coded here: costs follow from shapes, benefits from singular values and sums of squares.
"""

from dataclasses import replace

import numpy as np

from dtscodec.encoding.budget.candidate import Candidate, CandidateList, Candidates
from dtscodec.encoding.budget.component_spectrum import ComponentSpectrum, SpectrumRequest
from dtscodec.encoding.budget.element_candidates import (
    element_candidates,
    exact_candidates,
    fixed_candidate,
    plain_candidates,
)
from dtscodec.encoding.budget.matrix_candidates import MatrixCandidates, row_counts
from dtscodec.encoding.budget.new_tensors import candidates_of_new
from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.segment import CodedBlock, Delta, New, raw_block
from dtscodec.encoding.targets import Rank, RankShare
from dtscodec.format.blocks import Same

ALWAYS_EXACT = 64
"""Tensors of at most this many bytes are always stored exactly."""
FITTED_ELEMENTS = 100
"""Weight of the energy of biases and norms, relative to that of matrices, where elements will be fitted to calibration
samples: they are few, and one that the pack does not store cannot be fitted."""


def candidates_of(segment: CodedBlock | Delta | New, config: EncodeConfig, request: SpectrumRequest) -> Candidates:
    """Return the candidate encodings of a segment; with a rank in the config there is one only.

    Parameters
    ----------
    segment : CodedBlock, Delta or New
    config : EncodeConfig
    request : SpectrumRequest
        How much of a matrix's spectrum to compute.
    """
    if isinstance(segment, CodedBlock):
        return CandidateList((fixed_candidate(segment),), 0.0)
    if segment.stored is not None and segment.stored.spec.nbytes <= ALWAYS_EXACT:
        return CandidateList((fixed_candidate(raw_block(segment.stored, segment.split)),), 0.0)
    if isinstance(segment, New):
        return candidates_of_new(segment, config, request)
    moved = segment.moved
    energy = moved.signal_square
    if (rank := config.uniform_rank) is not None:
        return CandidateList((_of_rank(segment, rank, config.recipe),), energy)
    height, base, *_ = moved.subset
    unchanged = Candidate(Same(height, base), 0, 0.0, 0.0)
    if segment.is_matrix:
        others = unchanged, *plain_candidates(segment, energy, config.recipe)
        rows, columns = moved.values.shape
        counts = row_counts(rows, columns, config.recipe)
        spectra = (ComponentSpectrum.of(moved.largest_rows(count), config, request) for count in counts)
        return MatrixCandidates(tuple(spectra), others, energy)
    exact = exact_candidates(segment, config.recipe.benefit(None, vectors=1) * energy, energy)
    if isinstance(config.preset, Best) and config.preset.will_be_fitted:
        unchanged = replace(unchanged, benefit=-FITTED_ELEMENTS * energy)
    return CandidateList((unchanged, *element_candidates(segment, energy, config.recipe), *exact), energy)


def _of_rank(delta: Delta, rank: Rank | RankShare, recipe: Recipe) -> Candidate:
    """The only candidate where the rank is given: two bits per code."""
    moved = delta.moved
    if not delta.is_matrix:
        smallest = next(element_candidates(delta, 0.0, recipe))
        return min(smallest, *exact_candidates(delta, 0.0, 0.0), key=lambda candidate: candidate.cost)
    shape = len(moved.values), moved.values.shape[1]
    count = min(rank.of(moved.height, moved.columns), *shape)
    spectrum = ComponentSpectrum(moved.subset, shape, np.zeros(count), moved.bitmaps, recipe)
    candidate = spectrum.candidate({2: count})
    assert candidate is not None
    return candidate

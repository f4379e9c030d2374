"""Segments -> their candidate encodings, from which `allocate` chooses.

No segment is encoded here: costs follow from shapes, benefits from singular values and squared norms.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor

from dtscodec.encoding.budget.candidate import Candidate, CandidateList, Candidates, coded_bytes
from dtscodec.encoding.budget.component_spectrum import ComponentSpectrum, SpectrumRequest, dither_threshold
from dtscodec.encoding.budget.matrix_candidates import MatrixCandidates, matrix_candidates
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import EncodedBlock, raw_block
from dtscodec.encoding.segments.exact_rows import ALWAYS_EXACT
from dtscodec.encoding.segments.segment import ElementSegment, MatrixSegment, NewSegment, Segment
from dtscodec.encoding.targets import Rank, RankShare
from dtscodec.errors import assert_never
from dtscodec.format.blocks import Raw, Same, Values
from dtscodec.linalg.chunks import squared_norm
from dtscodec.quantize.widths import ALL_BITS, Width, width_of

FITTED_ELEMENTS = 100
"""Weight of the energy of biases and norms, relative to that of matrices, where elements will be fitted to calibration
samples: they are few, and one that the pack does not store cannot be fitted."""
NEW_MATRIX_SIDE = 64
"""Smaller side from which on new matrices may be coded by components, if nothing better fits the budget."""
HALF_VALUES = (2.0**-17, 2.0**15)
"""Least root mean square and largest magnitude of values that float16 holds well enough."""
HALF_ERROR = 2.0**-24
"""Squared error of rounding to float16, relative to the energy."""


def candidates_of(segment: Segment, config: EncodeConfig, request: SpectrumRequest) -> Candidates:
    """Return the candidate encodings of a segment; with a rank in the config there is one only.

    Parameters
    ----------
    segment : Segment
        Rows of a tensor.
    config : EncodeConfig
        Holds the recipe and the device.
    request : SpectrumRequest
        How much of a matrix's spectrum to compute.
    """
    match segment:
        case EncodedBlock():
            return CandidateList((_fixed(segment),), 0.0)
        case MatrixSegment() | ElementSegment() | NewSegment() if _is_tiny(segment):
            assert segment.stored is not None
            return CandidateList((_fixed(raw_block(segment.stored, segment.split)),), 0.0)
        case NewSegment():
            return _of_new(segment, config, request)
        case MatrixSegment() | ElementSegment() if (rank := config.uniform_rank) is not None:
            return CandidateList((_of_rank(segment, rank, config.recipe),), segment.energy)
        case MatrixSegment():
            others = [_unchanged(segment), *_uncompressed(segment, config.recipe)]
            return matrix_candidates(segment.delta, others, config, request, _is_bfloat16(segment))
        case ElementSegment():
            return _of_elements(segment, config)
        case _:
            assert_never(segment)


def _is_bfloat16(segment: MatrixSegment | ElementSegment) -> bool:
    return segment.stored is not None and segment.stored.spec.dtype == "BF16"


def _is_tiny(segment: MatrixSegment | ElementSegment | NewSegment) -> bool:
    return segment.stored is not None and segment.stored.spec.nbytes <= ALWAYS_EXACT


def _fixed(coded: EncodedBlock) -> Candidate:
    """Return a block without alternatives as a candidate."""
    return Candidate(coded.block, len(coded.streams.raw), 0.0, 0.0)


def _unchanged(segment: MatrixSegment | ElementSegment) -> Candidate:
    """Return the candidate that leaves the rows as the base has them."""
    height, base, *_ = segment.delta.subset
    return Candidate(Same(height, base), 0, 0.0, 0.0)


def _exact(segment: MatrixSegment | ElementSegment | NewSegment, benefit: float, energy: float) -> Iterator[Candidate]:
    """Yield the candidate of exact bytes, compressed where that helps, if the bytes are known."""
    if segment.stored is not None:
        yield replace(_fixed(raw_block(segment.stored, segment.split)), benefit=benefit, removed_energy=energy)


def _uncompressed(segment: MatrixSegment, recipe: Recipe) -> Iterator[Candidate]:
    """Yield the candidate of exact bytes, not compressed, if the bytes are known."""
    if (stored := segment.stored) is not None:
        energy = segment.energy
        rows = stored.spec.matrix(segment.split)[0]
        yield Candidate(Raw(rows), stored.spec.nbytes, recipe.benefit(None) * energy, energy)


def _of_elements(segment: ElementSegment, config: EncodeConfig) -> CandidateList:
    energy = segment.energy
    unchanged = _unchanged(segment)
    # Elements that will be fitted to samples must be stored: leaving them out gets a large negative benefit.
    if config.will_be_fitted:
        unchanged = replace(unchanged, benefit=-FITTED_ELEMENTS * energy)
    exact = _exact(segment, config.recipe.benefit(None, vectors=1) * energy, energy)
    return CandidateList((unchanged, *_quantized_elements(segment, energy, config.recipe), *exact), energy)


def _quantized_elements(segment: ElementSegment, energy: float, recipe: Recipe) -> Iterator[Candidate]:
    """Yield the candidates with one code for each element, widths ascending."""
    delta = segment.delta
    is_in_range = _fits_half(delta)
    for bits in ALL_BITS:
        if width_of(bits).is_float and not is_in_range:
            continue
        block = Values(*delta.subset, bits=bits)
        # Retained energy is that of two vectors; an element is quantized once.
        removed = block.width.retained_energy**0.5 * energy
        cost = coded_bytes(block, delta.columns, delta.bitmaps)
        yield Candidate(block, cost, recipe.benefit(bits, 1) * energy, removed, delta.bitmaps)


def _fits_half(delta: DenseDelta) -> bool:
    """Return whether float16, whose codes have no scales, holds the elements well enough."""
    # Small elements would lose bits as subnormal numbers, large ones overflow.
    rms = (squared_norm(delta.values) / delta.values.numel()) ** 0.5
    return rms >= HALF_VALUES[0] and delta.largest_magnitude <= HALF_VALUES[1]


def _of_rank(segment: MatrixSegment | ElementSegment, rank: Rank | RankShare, recipe: Recipe) -> Candidate:
    """Return the only candidate where the rank is given: the fewest bits per code."""
    if isinstance(segment, ElementSegment):
        # Widths ascend: the first has the fewest bits.
        smallest = next(_quantized_elements(segment, 0.0, recipe))
        return min(smallest, *_exact(segment, 0.0, 0.0), key=lambda candidate: candidate.cost)
    delta = segment.delta
    count = min(rank.of(delta.height, delta.columns), *delta.shape)
    # Energies are not needed: there is only one candidate.
    threshold = dither_threshold(delta, recipe, _is_bfloat16(segment))
    spectrum = ComponentSpectrum(
        delta.subset, delta.shape, np.zeros(count), delta.bitmaps, recipe, delta.energy, threshold
    )
    candidate = spectrum.candidate({ALL_BITS[0]: count})
    assert candidate is not None
    return candidate


def _of_new(segment: NewSegment, config: EncodeConfig, request: SpectrumRequest) -> Candidates:
    """Return the candidates of new rows, which are never left out.

    These are 8 or 16 bits, exact bytes, and, for large matrices, components.
    """
    delta, energy = segment.delta, squared_norm(segment.delta.values)
    (exact,) = _exact(segment, energy, energy)
    candidates = sorted([*_quantized_new(segment, energy), exact], key=lambda candidate: candidate.cost)
    # Quantized rows that take as many bytes as exact ones are no candidates.
    candidates = [candidate for candidate in candidates if candidate.cost < exact.cost] + [exact]
    if min(delta.shape) < NEW_MATRIX_SIDE:
        return CandidateList(tuple(candidates), 0.0)
    spectrum = ComponentSpectrum.of(delta, config, request)
    return MatrixCandidates((spectrum,), tuple(candidates), 0.0, is_new=True)


def _quantized_new(segment: NewSegment, energy: float) -> Iterator[Candidate]:
    delta = segment.delta
    for width in map(width_of, ALL_BITS):
        if not width.suits_new or (width.is_float and not _fits_half(delta)):
            continue
        # Rows of one element would each take a scale.
        per_row = width.has_value_scales and delta.shape[1] > 1
        block = Values(*delta.subset, bits=width.bits, per_row=per_row)
        removed = energy - _rounding_energy(delta.values, energy, width, per_row)
        yield Candidate(block, coded_bytes(block, delta.columns, delta.bitmaps), removed, removed, delta.bitmaps)


def _rounding_energy(values: Tensor, energy: float, width: Width, per_row: bool) -> float:
    """Return the expected squared error of rounding values of some energy to a width."""
    if width.is_float:
        return energy * HALF_ERROR
    # Steps of one size, from the negative to the positive largest magnitude of a row or of all.
    largest = values.abs().amax(dim=1) if per_row else values.abs().max().expand(len(values))
    step = largest.double() / width.largest_code
    # A uniform error within a step has a variance of step^2 / 12.
    return float(step.square().sum() / 12 * values.shape[1])

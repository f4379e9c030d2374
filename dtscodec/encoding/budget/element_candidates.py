"""Candidate encodings element by element, and of exact bytes."""

from collections.abc import Iterator
from dataclasses import replace

from dtscodec.encoding.budget.candidate import Candidate, coded_bytes
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.segment import CodedBlock, Delta, New, raw_block
from dtscodec.format.blocks import Raw, Values
from dtscodec.linalg.chunks import squared_norm
from dtscodec.quantize.widths import ALL_BITS, width_of

HALF_VALUES = (2.0**-17, 2.0**15)
"""Least root mean square and largest magnitude of values that float16 holds well enough."""


def element_candidates(delta: Delta, energy: float, recipe: Recipe) -> Iterator[Candidate]:
    """Yield the candidates with one code for each element, widths ascending."""
    moved = delta.moved
    is_in_range = fits_half(moved)
    for bits in ALL_BITS:
        if width_of(bits).is_float and not is_in_range:
            continue
        block = Values(*moved.subset, bits=bits)
        removed = block.width.retained_energy**0.5 * energy
        cost = coded_bytes(block, moved.columns, moved.bitmaps)
        yield Candidate(block, cost, recipe.benefit(bits, 1) * energy, removed, moved.bitmaps)


def fits_half(moved: Moved) -> bool:
    """Return whether float16, which has no scales beside it, holds the elements well enough."""
    rms = (squared_norm(moved.values) / moved.values.numel()) ** 0.5
    return rms >= HALF_VALUES[0] and moved.largest <= HALF_VALUES[1]


def exact_candidates(segment: Delta | New, benefit: float, energy: float) -> Iterator[Candidate]:
    """Yield the candidate of exact bytes, compressed where that helps, if these are known."""
    if segment.stored is not None:
        exact = fixed_candidate(raw_block(segment.stored, segment.split))
        yield replace(exact, benefit=benefit, removed_energy=energy)


def plain_candidates(delta: Delta, energy: float, recipe: Recipe) -> Iterator[Candidate]:
    """Yield the candidate of exact bytes, not compressed, if these are known."""
    if delta.stored is not None:
        rows = delta.stored.spec.matrix(delta.split)[0]
        yield Candidate(Raw(rows), delta.stored.spec.nbytes, recipe.benefit(None) * energy, energy)


def fixed_candidate(coded: CodedBlock) -> Candidate:
    """Return a block without alternatives as a candidate."""
    return Candidate(coded.block, len(coded.streams.raw), 0.0, 0.0)

"""Candidate encodings of a matrix: by components of all its rows or of some, unchanged, or exact."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dtscodec.encoding.budget.candidate import Candidate
from dtscodec.encoding.budget.component_spectrum import ComponentSpectrum, SpectrumRequest
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.encoded_block import ChangedDelta
from dtscodec.format.blocks import LowRank

TALL = 4
"""A matrix of at least this ratio of height to width may have most of its rows left out."""
ROW_SHARES = (1, 1 / 4, 1 / 16, 1 / 64)
"""Shares of a tall matrix's rows that candidates code."""
LOW_RANK = 1 / 4
"""Share of a matrix's smaller side up to which a rank is low."""
BELOW_NOISE = 0.01
"""Share of a delta's energy that may lie under the rounding noise where its rank is determined."""


@dataclass(frozen=True, slots=True)
class MatrixCandidates:
    """Candidate encodings of a matrix.

    Parameters
    ----------
    spectra : tuple of ComponentSpectrum
        By number of coded rows, descending.
    others : tuple of Candidate
        Candidates without components; costs ascending.
    energy : float
        See `Candidates`.
    is_new : bool
        Whether the matrix has no counterpart in the base, so that it cannot be left out.
    """

    spectra: tuple[ComponentSpectrum, ...]
    others: tuple[Candidate, ...]
    energy: float
    is_new: bool = False

    def best(self, multiplier: float) -> Candidate:
        """See `Candidates`."""
        candidates = [*self.others, *filter(None, (spectrum.best(multiplier) for spectrum in self.spectra))]
        if self.is_new:
            # New rows cannot be left out: the least is one component.
            candidates.append(self.spectra[0].smallest())
        return max(candidates, key=lambda candidate: candidate.benefit - multiplier * candidate.cost)

    @property
    def preferred(self) -> Candidate | None:
        """See `Candidates`."""
        if self.is_new:
            # The cheapest: elements in 8 bits, or exact bytes where these take no more.
            return self.others[0]
        spectrum = self.spectra[0]
        rank = len(spectrum.energies)
        # A delta of low rank: few components hold all of its energy but for what noise hides.
        if rank > LOW_RANK * min(spectrum.shape) or spectrum.energies.sum() < (1 - BELOW_NOISE) * self.energy:
            return None
        return spectrum.candidate({spectrum.recipe.widths[-1]: rank})

    def upgrades(self, candidate: Candidate) -> Iterator[Candidate]:
        """See `Candidates`."""
        block = candidate.block
        for spectrum in self.spectra:
            if isinstance(block, LowRank):
                # A component more or wider, for the same rows.
                if spectrum.subset[2] == block.rows:
                    yield from spectrum.upgrades(block.bands)
            elif candidate.benefit == 0 and len(spectrum.energies):
                # From the base's rows to a first component.
                yield from spectrum.upgrades(())
        yield from (other for other in self.others if other.cost > candidate.cost and other.benefit > candidate.benefit)


def matrix_candidates(
    delta: ChangedDelta,
    others: Sequence[Candidate],
    config: EncodeConfig,
    request: SpectrumRequest,
    may_dither: bool = False,
) -> MatrixCandidates:
    """Return the candidate encodings of a delta that is a matrix.

    Parameters
    ----------
    delta : DenseDelta or FactoredDelta
        The changed rows and columns.
    others : sequence of Candidate
        Candidates without components; costs ascending.
    config : EncodeConfig
        Holds the recipe and the device.
    request : SpectrumRequest
        How much of each spectrum to compute.
    may_dither : bool
        See `ComponentSpectrum.of`.
    """
    counts = _row_counts(*delta.shape, config.recipe)
    spectra = tuple(ComponentSpectrum.of(delta.largest_rows(count), config, request, may_dither) for count in counts)
    return MatrixCandidates(spectra, tuple(others), delta.energy)


def _row_counts(rows: int, columns: int, recipe: Recipe) -> list[int]:
    """Return how many rows of a matrix candidates code, descending: all, and of a tall one also the most changed."""
    shares = ROW_SHARES if recipe.row_subsets and rows >= TALL * columns else ROW_SHARES[:1]
    # At least as many rows as columns: fewer would limit the rank.
    return sorted({max(columns, int(rows * share)) for share in shares}, reverse=True)

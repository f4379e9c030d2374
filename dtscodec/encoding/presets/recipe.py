"""The ingredients of the preset `best`. The defaults did best in `benchmarks/fidelity`, which compares behaviour."""

from dataclasses import dataclass, replace

from dtscodec.quantize.widths import ALL_BITS, Bits, width_of

FOUR = 4
"""Levels of a table in the format."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ingredients of `best`; values other than the defaults are for experiments.

    Parameters
    ----------
    rounds : int
        Rounds of coordinate descent: refits of each factor in turn against the true delta.
    fitted_levels : bool
        Whether levels are Lloyd-Max levels, rather than the root mean squares of the published four groups. Lloyd-Max
        levels leave less squared error, but shrink vectors; root mean squares preserve their norm, and behaviour is
        closer.
    gain_power : float, optional
        Power of singular values that weights directions where a decoded delta is scaled to have the effect of the true
        one (`dtscodec.encoding.fitting.coordinate_descent.FittedComponents.gain`). With None it is not scaled.
    largest_gain : float
        Largest factor of that scaling. Where little of the delta is retained, a larger one would make a few directions
        stand in for all that are missing, and classifiers with many classes lose accuracy.
    direction_gains : bool
        Whether each component has a gain of its own, by the singular direction that it stands for
        (`dtscodec.encoding.fitting.direction_gains`); else all have one gain.
    row_subsets : bool
        Whether the least changed rows of a tall matrix may be left out, where few rows hold most of a change.
    precision_weight : float
        Weight of the energy that wider codes of a component save, relative to the energy of further components. Noise
        in stored directions disturbs behaviour less than a missing direction: at equal squared error a model with more
        components stays closer.
    widths : tuple of int
        Widths that components may have: bits per code, ascending.
    levels : int
        Number of levels of a code book for components of two bits. The format has four; other numbers need
        `fitted_levels`.
    per_vector : bool
        Whether each vector of such components has a code book of its own. `best` writes one for each factor.
    dithers : bool
        Whether weights in bfloat16 are rounded by thresholds (`dtscodec.quantize.dither`) where a decoded delta misses
        more of the true one than rounding noise. Most elements of such a delta are smaller than half a unit in the last
        place, and rounding to nearest would undo them.
    """

    rounds: int = 5
    fitted_levels: bool = False
    gain_power: float | None = 2.0
    largest_gain: float = 1.5
    direction_gains: bool = True
    row_subsets: bool = True
    precision_weight: float = 0.15
    widths: tuple[Bits, ...] = ALL_BITS
    levels: int = FOUR
    per_vector: bool = False
    dithers: bool = True

    def __post_init__(self) -> None:
        if self.levels != FOUR and not self.fitted_levels:
            raise ValueError(f"{self.levels} levels: only four have a published rule, others must be fitted")

    def benefit(self, bits: Bits | None, vectors: int = 2) -> float:
        """Return the weighted share of a component's or a vector's energy that the allocation credits to a width.

        Parameters
        ----------
        bits : int or None
            Bits per code; None for exact bytes.
        vectors : {1, 2}
            1 for elements that are coded one by one, 2 for a component: both of its vectors lose energy.

        Examples
        --------
        >>> [round(Recipe().benefit(bits), 4) for bits in Recipe().widths]
        [0.78, 0.8102, 0.813, 0.813]
        """
        # What the narrowest width retains counts in full, and what wider codes add, by its weight.
        least = width_of(self.widths[0]).retained_energy ** (vectors / 2)
        retained = 1.0 if bits is None else width_of(bits).retained_energy ** (vectors / 2)
        return float(least + self.precision_weight * (retained - least))

    def without_floats(self) -> "Recipe":
        """Return the recipe without the widths of floating-point codes, for deltas beyond their range."""
        return replace(self, widths=tuple(bits for bits in self.widths if not width_of(bits).is_float))


BEST = Recipe()
"""The default recipe."""

LEAST_ERROR = Recipe(fitted_levels=True, gain_power=None, precision_weight=1.0, dithers=False)
"""The recipe for a target error: it minimizes the squared error alone."""

"""What the encoder `best` is made of. The defaults are what `benchmarks/fidelity` found to serve behaviour best."""

from dataclasses import dataclass, replace

from dtscodec.quantize.widths import ALL_BITS, Bits, width_of

FOUR = 4
"""Levels of a table in the format."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ingredients of `best`; other than the defaults only for experiments.

    Parameters
    ----------
    rounds : int
        Refits of each factor in turn against the true delta.
    fitted_levels : bool
        Lloyd-Max levels, not those of the published four groups. They leave less squared error, but shrink what they
        stand for: root mean squares keep its norm, and behaviour is closer.
    gain : float, optional
        Power of singular values by which directions count where a decoded delta is scaled to have the effect of the
        true one (`dtscodec.encoding.fitting.coordinate_descent.FittedComponents.gain`). None: it is not scaled.
    largest_gain : float
        What a decoded delta is scaled by at most: where little of it is kept, more would lean on a few directions for
        all that are missing, and models of many classes suffer.
    row_subsets : bool
        Leave out rows that moved little, where few rows hold most of a change.
    precision_worth : float
        What the energy counts that more bits for a component save, by that of new components. Noise in directions
        that are there already disturbs behaviour less than a direction that is missing: at equal squared error a
        model with more components stays closer.
    widths : tuple of int
        Bits an element that components may have.
    levels : int
        Of a table for components of two bits. The format has four; other numbers need `fitted_levels`.
    per_vector : bool
        A table for each vector of such components. `best` writes one for each factor.
    """

    rounds: int = 5
    fitted_levels: bool = False
    gain: float | None = 2.0
    largest_gain: float = 1.5
    row_subsets: bool = True
    precision_worth: float = 0.15
    widths: tuple[Bits, ...] = ALL_BITS
    levels: int = FOUR
    per_vector: bool = False

    def __post_init__(self) -> None:
        if self.levels != FOUR and not self.fitted_levels:
            raise ValueError(f"{self.levels} levels: only four have a published rule, others must be fitted")

    def benefit(self, bits: Bits | None, vectors: int = 2) -> float:
        """Return the share of energy that coding counts as removing, from a component or from a single vector.

        Parameters
        ----------
        bits : int or None
            Bits per code; None for exact bytes.
        vectors : {1, 2}
            1 for elements that are coded one by one, 2 for a component, whose two vectors both lose some.

        Examples
        --------
        >>> [round(Recipe().benefit(bits), 4) for bits in Recipe().widths]
        [0.78, 0.8102, 0.813, 0.813]
        """
        least = width_of(self.widths[0]).retained_energy ** (vectors / 2)
        retained = 1.0 if bits is None else width_of(bits).retained_energy ** (vectors / 2)
        return float(least + self.precision_worth * (retained - least))

    def without_floats(self) -> "Recipe":
        """Return the recipe without widths whose codes are floating-point numbers, for deltas beyond their range."""
        return replace(self, widths=tuple(bits for bits in self.widths if not width_of(bits).is_float))


BEST = Recipe()

LEAST_ERROR = Recipe(fitted_levels=True, gain=None, precision_worth=1.0)
"""For an error that is asked for: squared error is all that counts."""

"""The preset `best`: a chosen option -> block and streams. The inverse: `delta` of what blocks are split into."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dtscodec.encoding.budget.candidate import NUMBERS, Candidate
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.fitting.coordinate_descent import Refined
from dtscodec.encoding.fitting.weighted_delta import WeightedDelta
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.planned import Part, measure_lowrank, measure_values
from dtscodec.encoding.segments.segment import CodedBlock, Cut, Delta, New, raw_block
from dtscodec.errors import assert_never
from dtscodec.format.blocks import Coded, LowRank, Raw, Same, Tie, Values
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.linalg.chunks import squared_norm
from dtscodec.linalg.essential_subspace import essential_factors
from dtscodec.linalg.spectrum import leading_factors
from dtscodec.quantize.scalar import dequantize, quantize_elements

ORDINARY = 30
"""Exponents of two up to which values are coded as they are."""


@dataclass(frozen=True, slots=True)
class BestPart:
    """A delta, and the block that it is to become.

    Parameters
    ----------
    moved : Moved
        The rows that are to be coded.
    block : LowRank or Values
    recipe : Recipe
    left : float
        Squared norm in rows that moved, but are left as the base has them.
    device : str
        What multiplies large matrices.
    """

    moved: Moved
    block: Coded
    recipe: Recipe
    left: float
    device: str = "cpu"

    def code(self) -> CodedBlock:
        """Code it; see `Planned`."""
        with np.errstate(over="ignore", invalid="ignore"):
            match self.block:
                case LowRank():
                    coded = self._low_rank(self.block)
                case Values():
                    coded = self._values(self.block)
                case _:
                    assert_never(self.block)
        delta_square, error_square = coded.delta_square + self.left, coded.error_square + self.left
        return replace(coded, delta_square=delta_square, error_square=error_square)

    def _scaled(self) -> tuple[Tensor, float]:
        """The values by a power of two, and that power: squares of extreme values are beyond float32."""
        exponent = math.frexp(self.moved.largest)[1]
        if abs(exponent) <= ORDINARY:
            return self.moved.values, 1.0
        unit = 2.0 ** max(exponent, -100)
        return self.moved.values / unit, unit

    def _norm(self) -> float | None:
        """Norm that the decoded delta is to have: the true one, without what rounding added to it."""
        if self.recipe.gain is None:
            return None
        return float(self.moved.signal_square**0.5)

    def _low_rank(self, block: LowRank) -> CodedBlock:
        moved, recipe = self.moved, self.recipe
        values, unit = self._scaled()
        widths = [band.bits for band in block.bands for _ in range(band.rank)]
        if moved.metric is None:
            factors, weighted = leading_factors(values, block.rank, self.device), None
        else:
            weighted = WeightedDelta.through(moved.metric, values, block.rank, self.device)
            factors = essential_factors(values.to(self.device), weighted.factors, block.rank, moved.metric.on_rows)
        refined = Refined(values.to(self.device), factors, widths, recipe, weighted)
        scales = refined.solve_scales(rounded_tensor)
        scales *= refined.gain(scales, moved.noise.edge / unit if moved.noise else 0.0)
        bands = [band.rounded(rounded) for band in refined.bands(scales * unit)]
        return measure_lowrank(block, moved, bands, rounded)

    def _values(self, block: Values) -> CodedBlock:
        # Codes that are floating-point numbers have no scales that could take the unit back.
        values, unit = (self.moved.values, 1.0) if block.width.is_float else self._scaled()
        codes, scales = quantize_elements(values, block.bits, block.per_row, rounded)
        norm = (self._norm() or 0.0) / unit
        if norm and len(codes.levels):
            # Cell means shrink: scale the levels to the norm of the true delta. Wider codes are close enough.
            decoded = squared_norm(torch.from_numpy(dequantize(codes))) ** 0.5
            factor = norm / decoded if decoded else 1.0
            codes = codes.with_levels((torch.from_numpy(codes.levels) * factor).numpy())
        codes = codes.with_levels(rounded(codes.levels * np.float32(unit)))
        return measure_values(block, self.moved, codes, rounded(scales * np.float32(unit)))


def plan_best(cut: Cut, choices: Sequence[Candidate], config: EncodeConfig) -> list[Part]:
    """Give every piece of a tensor the block that has been chosen for it."""
    return [
        piece if isinstance(piece, CodedBlock) else _plan(piece, choice, config)
        for piece, choice in zip(cut.pieces, choices, strict=True)
    ]


def _plan(piece: Delta | New, choice: Candidate, config: EncodeConfig) -> Part:
    block, moved = choice.block, piece.moved
    energy = moved.signal_square if isinstance(piece, Delta) else 0.0
    match block:
        case Values() | LowRank():
            rows = len(moved.values) if block.rows is None else block.rows
            within = moved.largest_rows(rows)
            left = max(0.0, energy - within.signal_square) if isinstance(piece, Delta) else 0.0
            return BestPart(within, block, config.recipe, left, config.device)
        case Same():
            return CodedBlock(block, Streams(), energy, energy)
        case Raw():
            assert piece.stored is not None
            exact = raw_block(piece.stored, piece.split)
            if block.planes is None:
                exact = CodedBlock(block, Streams(raw=piece.stored.data.tobytes()))
            return CodedBlock(exact.block, exact.streams, energy, 0.0)
        case Tie():
            raise TypeError("expected a block of its own, got a tie")
        case _:
            assert_never(block)


def rounded(numbers: np.ndarray) -> np.ndarray:
    """Numbers as they come back from a pack."""
    return round_numbers(numbers.astype(np.float32), NUMBERS).reshape(numbers.shape)


def rounded_tensor(numbers: Tensor) -> Tensor:
    """As `rounded`."""
    return torch.from_numpy(rounded(numbers.numpy()))

"""The preset `best`: a chosen option -> block and streams. The inverse: `delta` of what blocks are split into."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dtscodec.encoding.budget.candidates import NUMBERS, Choice
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.fitting.coordinate_descent import TINY, Refined, Sight
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.planned import Part, measured
from dtscodec.encoding.segments.segment import CodedBlock, Cut, Delta, New, raw_block
from dtscodec.errors import assert_never
from dtscodec.format.blocks import Coded, LowRank, Raw, Same, Values
from dtscodec.format.streams import NO_NUMBERS, Streams, round_numbers
from dtscodec.linalg.essential_subspace import essential_factors
from dtscodec.linalg.norms import squared_norm
from dtscodec.linalg.spectrum import leading_factors
from dtscodec.quantize.lloyd_max import fit_levels, nearest
from dtscodec.quantize.packing import PackedVectors, pack_codes
from dtscodec.quantize.widths import NORMAL_LEVELS

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
                    numbers, bands = self._low_rank(self.block)
                case Values():
                    numbers, bands = self._values(self.block)
                case _:
                    assert_never(self.block)
            coded = measured(self.block, self.moved, Streams(self.moved.bitmaps, rounded(numbers), bands))
            coded.streams.numbers[:] = rounded(coded.streams.numbers)
            squares = coded.delta_square + self.left, coded.error_square + self.left
            return CodedBlock(coded.block, coded.streams, *squares)

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

    def _low_rank(self, block: LowRank) -> tuple[np.ndarray, tuple[bytes, ...]]:
        moved, recipe = self.moved, self.recipe
        values, unit = self._scaled()
        widths = [band.bits for band in block.bands for _ in range(band.rank)]
        if moved.metric is None:
            factors, sight = leading_factors(values, block.rank, self.device), None
        else:
            sight = Sight.through(moved.metric, values, block.rank, self.device)
            factors = essential_factors(values.to(self.device), sight.factors, block.rank, moved.metric.on_rows)
        refined = Refined(values.to(self.device), factors, widths, recipe, sight)
        scales = refined.solve_scales(rounded_tensor)
        scales *= refined.gain(scales, moved.noise.edge / unit if moved.noise else 0.0)
        return LowRank.join(0.0, refined.bands(scales * unit))

    def _values(self, block: Values) -> tuple[np.ndarray, tuple[bytes, ...]]:
        values, unit = self._scaled() if block.bits < 16 else (self.moved.values, 1.0)
        norm = self._norm()
        codes, levels, scales = code_values(values, block, None if norm is None else norm / unit)
        packed = pack_codes(codes.reshape(1, -1), block.bits)
        levels, scales = levels * np.float32(unit), scales * np.float32(unit)
        return Values.join(PackedVectors(packed, levels, codes.size, block.bits), scales)


def plan_best(cut: Cut, choices: Sequence[Choice], config: EncodeConfig) -> list[Part]:
    """Give every piece of a tensor the block that has been chosen for it."""
    return [
        piece if isinstance(piece, CodedBlock) else _plan(piece, choice, config)
        for piece, choice in zip(cut.pieces, choices, strict=True)
    ]


def _plan(piece: Delta | New, choice: Choice, config: EncodeConfig) -> Part:
    block, moved = choice.block, piece.moved
    energy = moved.signal_square if isinstance(piece, Delta) else 0.0
    if block.is_coded:
        rows = len(moved.values) if block.rows is None else block.rows
        within = moved.largest_rows(rows)
        left = max(0.0, energy - within.signal_square) if isinstance(piece, Delta) else 0.0
        return BestPart(within, block, config.recipe, left, config.device)
    if isinstance(block, Same):
        return CodedBlock(block, Streams(), energy, energy)
    assert piece.stored is not None
    exact = raw_block(piece.stored, piece.split)
    if isinstance(block, Raw) and block.planes is None:
        exact = CodedBlock(block, Streams(raw=piece.stored.data.tobytes()))
    return CodedBlock(exact.block, exact.streams, energy, 0.0)


def code_values(values: Tensor, block: Values, norm: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantize elements one by one.

    Parameters
    ----------
    values : float32 [m, n]
    block : Values
    norm : float, optional
        That four levels are scaled to; wider codes are close enough by themselves.

    Returns
    -------
    codes : [m, n], of the dtype that `pack_codes` takes
    levels : float32 [1, 4] or [0, 4]
    scales : float32 [0], [1] or [m]
    """
    no_levels = np.empty((0, 4), np.float32)
    if block.bits == 16:
        return values.numpy().astype(np.float16), no_levels, NO_NUMBERS
    if block.bits == 2:
        levels = fit_levels(values)
        codes = nearest(values, levels)
        decoded = squared_norm(levels[codes]) ** 0.5
        levels = levels * (norm / decoded if norm and decoded else 1.0)
        return codes.numpy().astype(np.uint8), levels.numpy().reshape(1, 4), NO_NUMBERS
    grouped = values if block.per_row else values.reshape(1, -1)
    codes, scales = _fit_scales(grouped, block.bits)
    stored = codes.numpy().astype(np.int8 if block.bits == 8 else np.uint8)
    return stored.reshape(values.shape), no_levels, scales


def _fit_scales(values: Tensor, bits: int) -> tuple[Tensor, np.ndarray]:
    """Codes of 4 or 8 bits, and a scale for each row, rounded as it is stored before the codes are chosen."""
    if bits == 8:
        scales = rounded(((values.abs().amax(dim=1) / 127).clamp(min=TINY)).numpy())
        return (values / torch.from_numpy(scales)[:, None]).round().clamp(-128, 127), scales
    levels = torch.from_numpy(NORMAL_LEVELS)
    scale = values.square().mean(dim=1).sqrt().clamp(min=TINY)
    for _ in range(3):
        coded = levels[nearest(values / scale[:, None], levels)]
        scale = ((values * coded).sum(1) / coded.square().sum(1).clamp(min=TINY)).clamp(min=TINY)
    scales = rounded(scale.numpy())
    return nearest(values / torch.from_numpy(scales)[:, None], levels), scales


def rounded(numbers: np.ndarray) -> np.ndarray:
    """Numbers as they come back from a pack."""
    return round_numbers(numbers.astype(np.float32), NUMBERS).reshape(numbers.shape)


def rounded_tensor(numbers: Tensor) -> Tensor:
    """As `rounded`."""
    return torch.from_numpy(rounded(numbers.numpy()))

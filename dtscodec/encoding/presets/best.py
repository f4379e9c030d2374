"""The preset `best`: a segment and its chosen candidate -> block and streams.

The inverse is `delta` of the content that a block's streams are split into, such as
`dtscodec.format.blocks.LowRankContent.delta`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dtscodec.encoding.budget.candidate import NUMBERS, Candidate
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.fitting.coordinate_descent import FittedComponents
from dtscodec.encoding.fitting.scaled_delta import ScaledDelta, unit_scaled
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import (
    ChangedDelta,
    EncodedBlock,
    low_rank_block,
    raw_block,
    values_block,
)
from dtscodec.encoding.segments.segment import Segment
from dtscodec.errors import assert_never
from dtscodec.format.blocks import Coded, LowRank, Raw, Same, Tie, Values
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.linalg.chunks import squared_norm
from dtscodec.quantize.scalar import dequantize, quantize_elements


@dataclass(frozen=True, slots=True)
class BestPlan:
    """A delta and the block that it will become. The fine-tune's own bytes are not needed any more.

    Parameters
    ----------
    delta : DenseDelta or FactoredDelta
        The coded rows and columns.
    block : LowRank or Values
        The block that was chosen.
    recipe : Recipe
        The recipe in force.
    left_out : float
        Squared norm of changed rows that are not coded.
    device : str
        Device for products of large matrices.
    """

    delta: ChangedDelta
    block: Coded
    recipe: Recipe
    left_out: float
    device: str = "cpu"

    def encode(self) -> EncodedBlock:
        """Encode the delta, and measure the error.

        Raises
        ------
        EncodeError
            The matrix cannot be decomposed, or a number is beyond float32.
        """
        match self.block:
            case LowRank():
                coded = encode_low_rank(self.delta, self.block, self.recipe, self.device)
            case Values():
                assert isinstance(self.delta, DenseDelta)
                coded = encode_values(self.delta, self.block, self.recipe)
            case _:
                assert_never(self.block)
        delta_energy, error_energy = coded.delta_energy + self.left_out, coded.error_energy + self.left_out
        return replace(coded, delta_energy=delta_energy, error_energy=error_energy)


def plan_best(segment: Segment, candidate: Candidate, config: EncodeConfig) -> BestPlan | EncodedBlock:
    """Return how a segment is encoded by the candidate that was chosen for it.

    Parameters
    ----------
    segment : Segment
        Rows of a tensor.
    candidate : Candidate
        One of its candidate encodings.
    config : EncodeConfig
        Holds the recipe and the device.
    """
    if isinstance(segment, EncodedBlock):
        return segment
    block, delta = candidate.block, segment.delta
    match block:
        case Values() | LowRank():
            # Rows that the candidate leaves out stay as in the base, and count as error.
            coded = delta.largest_rows(delta.shape[0] if block.rows is None else block.rows)
            left_out = max(0.0, segment.energy - coded.energy)
            return BestPlan(coded, block, config.recipe, left_out, config.device)
        case Same():
            return EncodedBlock(block, Streams(), segment.energy, segment.energy)
        case Raw():
            assert segment.stored is not None
            exact = raw_block(segment.stored, segment.split)
            # The size of the file was planned with bytes that are not compressed.
            if block.planes is None:
                exact = EncodedBlock(block, Streams(raw=segment.stored.data.tobytes()))
            return replace(exact, delta_energy=segment.energy)
        case Tie():
            raise TypeError("expected a block of its own, got a tie")
        case _:
            assert_never(block)


def encode_low_rank(delta: ChangedDelta, block: LowRank, recipe: Recipe, device: str = "cpu") -> EncodedBlock:
    """Encode a matrix by components of the numbers and widths that a block's bands give.

    Parameters
    ----------
    delta : DenseDelta or FactoredDelta
        The coded rows and columns.
    block : LowRank
        The block to encode.
    recipe : Recipe
        How components are fitted.
    device : str
        Device for products of large matrices.

    Raises
    ------
    EncodeError
        The matrix cannot be decomposed, or a number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = ScaledDelta.of(delta, block.rank, device)
        widths = [band.bits for band in block.bands for _ in range(band.rank)]
        if scaled.is_factored and all(band.width.is_float for band in block.bands):
            # Half precision holds the exact singular vectors so well that refits do not pay.
            recipe = replace(recipe, rounds=0)
        # Coordinate descent: quantize the vectors one by one, each against what the others leave of the delta.
        fitted = FittedComponents(scaled.values, scaled.factors, widths, recipe)
        # Scales of least squared error for the codes found, then gains.
        scales = fitted.solve_scales(rounded_tensor)
        scales *= fitted.gains(scales, scaled.noise_edge)
        bands = [band.rounded(rounded) for band in fitted.bands(scales * scaled.unit)]
        return low_rank_block(block, delta, bands, rounded)


def encode_values(delta: DenseDelta, block: Values, recipe: Recipe) -> EncodedBlock:
    """Encode a delta element by element.

    Parameters
    ----------
    delta : DenseDelta
        The coded rows and columns.
    block : Values
        The block to encode.
    recipe : Recipe
        If it has a gain, the decoded delta gets the norm of the true one.

    Raises
    ------
    EncodeError
        A number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Codes that are floating-point numbers have no scales that could take the unit back.
        values, unit = (delta.values, 1.0) if block.width.is_float else unit_scaled(delta)
        codes, scales = quantize_elements(values, block.bits, block.per_row, rounded)
        norm = 0.0 if recipe.gain_power is None else float(delta.energy**0.5) / unit
        if norm and len(codes.levels):
            # Cell means shrink: scale the levels to the norm of the true delta. Wider codes are close enough.
            decoded = squared_norm(torch.from_numpy(dequantize(codes))) ** 0.5
            factor = norm / decoded if decoded else 1.0
            codes = codes.with_levels((torch.from_numpy(codes.levels) * factor).numpy())
        codes = codes.with_levels(rounded(codes.levels * np.float32(unit)))
        return values_block(block, delta, codes, rounded(scales * np.float32(unit)))


def rounded(numbers: np.ndarray) -> np.ndarray:
    """Return float32 numbers as a pack of `best` stores them."""
    return round_numbers(numbers.astype(np.float32), NUMBERS).reshape(numbers.shape)


def rounded_tensor(numbers: Tensor) -> Tensor:
    """Return a tensor of numbers as a pack of `best` stores them; see `rounded`."""
    return torch.from_numpy(rounded(numbers.numpy()))

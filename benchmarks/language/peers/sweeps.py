"""The settings of each peer, from about 0.05 % to 10 % of the bytes of a model in bfloat16.

Peers without data are those of ``benchmarks.fidelity.peers``. Embeddings are left at the base's, at no cost, or coded
as other matrices, and the better of both counts; stored in fp16, they alone would be 21 % of SmolLM2-135M. Norms are
left at the base's: stored, they would take 0.026 % and lower the KL of the task ``style`` by 0.0003.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from benchmarks.fidelity.peers.bitdelta import code_by_matrix, code_by_row
from benchmarks.fidelity.peers.dare import code_dropped
from benchmarks.fidelity.peers.delta_come import PUBLISHED, Plan, code_bands
from benchmarks.fidelity.peers.dqrelo import code_signs_and_rank
from benchmarks.fidelity.peers.dts import code_density
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings
from benchmarks.fidelity.peers.svd import code_pooled_ranks
from benchmarks.fidelity.peers.ultradelta import code_sparse_values
from benchmarks.language.calibration import Calibration
from benchmarks.language.peers.delta_come import code_by_gptq
from benchmarks.language.peers.distillation import code_distilled
from benchmarks.language.peers.loraquant import code_as_lora

DENSITIES = (0.004, 0.012, 0.03, 0.06, 0.1, 0.3)
DENSITIES_WITH_EMBEDDINGS = (0.03, 0.06, 0.1, 0.2, 0.4, 0.55)
"""Of DTS; 0.1 is published for language."""
BUDGETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Of pooled ranks, as shares of the bytes in bfloat16."""
DROP_RATES = (0.9975, 0.99, 0.97, 0.9, 0.7)
DROP_RATES_WITH_EMBEDDINGS = (0.9, 0.65)
SPARSITIES = (0.9995, 0.998, 0.99, 0.97, 0.9)
SPARSITIES_WITH_EMBEDDINGS = (0.97, 0.9, 0.8)
RESIDUAL_RANKS = (1, 4, 10, 20)
RESIDUAL_RANKS_WITH_EMBEDDINGS = (1, 8)
SINGLE_PRECISION = Plan({2: 1002}, {2: 1462})
"""Of Delta-CoMe: as many components as published, all of 2 bits. With one of 8 bits in every matrix, no size below
0.12 % can be had."""
BANDS = (
    ("2 bits", SINGLE_PRECISION, (0.01, 0.02)),
    ("bands", PUBLISHED, (0.0, 0.03, 0.1, 0.3, 1.0)),
)
BANDS_WITH_EMBEDDINGS = (("bands", PUBLISHED, (0.1, 0.3, 0.8, 1.4)),)
"""Of Delta-CoMe: shares of its bands; those published at 1."""
DISTILLATION_RATES = (0.01, 0.05)
"""Of BitDelta: peak learning rates by the mean of the scales."""
LORAS = ((2, 0.9), (8, 0.9), (24, 0.9), (60, 0.9), (150, 0.9), (30, 0.7))
LORAS_WITH_EMBEDDINGS = ((24, 0.9), (60, 0.9), (150, 0.9), (350, 0.9), (180, 0.7))
"""Of LoRAQuant: ranks, and shares of the energy in leading components of 3 bits."""

Make = Callable[[Any], Setting]


def with_and_without_embeddings(make: Make, without: Iterable[Any], coded: Iterable[Any]) -> list[Setting]:
    """Return settings for some values with embeddings left at the base's, and for others with embeddings coded.

    Parameters
    ----------
    make : callable
        The setting for a value.
    without, coded : iterable
        The values.
    """
    return [*(leaving_embeddings(make(x)) for x in without), *(make(x) for x in coded)]


def dts(calibration: Calibration) -> list[Setting]:
    """Density of DTS."""
    return with_and_without_embeddings(
        lambda x: Setting("DTS", f"density {x}", partial(_dts, x)), DENSITIES, DENSITIES_WITH_EMBEDDINGS
    )


def svd(calibration: Calibration) -> list[Setting]:
    """Budget of a truncated SVD whose ranks are pooled over all matrices, embeddings among them."""
    return [Setting("SVD fp16 (ranks pooled)", f"{x:.2%}", partial(_svd, x)) for x in BUDGETS]


def dare(calibration: Calibration) -> list[Setting]:
    """Rate of dropping."""
    return with_and_without_embeddings(
        lambda x: Setting("DARE + 4 bits", f"drop {x}", partial(_dare, x), random=True),
        DROP_RATES,
        DROP_RATES_WITH_EMBEDDINGS,
    )


def ultradelta(calibration: Calibration) -> list[Setting]:
    """Target sparsity."""
    return with_and_without_embeddings(
        lambda x: Setting("UltraDelta", f"sparsity {x}", partial(_ultradelta, x), random=True),
        SPARSITIES,
        SPARSITIES_WITH_EMBEDDINGS,
    )


def dqrelo(calibration: Calibration) -> list[Setting]:
    """Rank of the residual."""
    return with_and_without_embeddings(
        lambda x: Setting("D-QReLO-lite", f"rank {x}", partial(_dqrelo, x)),
        RESIDUAL_RANKS,
        RESIDUAL_RANKS_WITH_EMBEDDINGS,
    )


def bitdelta(calibration: Calibration) -> list[Setting]:
    """Both kinds of scale, and distilled ones, with and without embeddings."""
    points = [
        Setting("BitDelta", "one scale a matrix", _bitdelta),
        Setting("BitDelta (per row)", "one scale a row", _bitdelta_by_row),
    ]
    for x in DISTILLATION_RATES:
        code = partial(code_distilled, calibration, x)
        points.append(Setting("BitDelta (distilled)", f"one scale a matrix, rate {x}", code, calibrated=True))
    return [setting for point in points for setting in (leaving_embeddings(point), point)]


def delta_come(calibration: Calibration) -> list[Setting]:
    """Share of the bands, rounded to nearest and by GPTQ."""

    def rounded(point: tuple[str, Plan, float]) -> Setting:
        kind, plan, x = point
        return Setting("Delta-CoMe (round to nearest)", f"{kind} x {x}", partial(_rounded, x, plan))

    def fitted(point: tuple[str, Plan, float]) -> Setting:
        kind, plan, x = point
        code = partial(_by_gptq, calibration, x, plan)
        return Setting("Delta-CoMe (GPTQ)", f"{kind} x {x}", code, calibrated=True)

    without, coded = (
        [(kind, plan, x) for kind, plan, shares in bands for x in shares] for bands in (BANDS, BANDS_WITH_EMBEDDINGS)
    )
    return [setting for make in (rounded, fitted) for setting in with_and_without_embeddings(make, without, coded)]


def loraquant(calibration: Calibration) -> list[Setting]:
    """Rank of the LoRA, and share of the energy in its leading components."""
    return with_and_without_embeddings(
        lambda x: Setting("LoRAQuant", f"rank {x[0]}, ratio {x[1]}, 3 bits", partial(_lora, x[0], x[1], 3)),
        LORAS,
        LORAS_WITH_EMBEDDINGS,
    )


def _dts(density: float, deltas: Deltas, seed: int) -> Coded:
    return code_density(deltas, density)


def _svd(share: float, deltas: Deltas, seed: int) -> Coded:
    return code_pooled_ranks(deltas, int(share * 2 * sum(delta.numel() for delta in deltas.values())))


def _dare(rate: float, deltas: Deltas, seed: int) -> Coded:
    return code_dropped(deltas, rate, seed)


def _ultradelta(target: float, deltas: Deltas, seed: int) -> Coded:
    return code_sparse_values(deltas, target, seed)


def _dqrelo(rank: int, deltas: Deltas, seed: int) -> Coded:
    return code_signs_and_rank(deltas, rank)


def _bitdelta(deltas: Deltas, seed: int) -> Coded:
    return by_matrix(deltas, code_by_matrix)


def _bitdelta_by_row(deltas: Deltas, seed: int) -> Coded:
    return by_matrix(deltas, code_by_row)


def _rounded(share: float, plan: Plan, deltas: Deltas, seed: int) -> Coded:
    return code_bands(deltas, share, plan)


def _by_gptq(calibration: Calibration, share: float, plan: Plan, deltas: Deltas, seed: int) -> Coded:
    return code_by_gptq(calibration, share, plan, deltas)


def _lora(rank: int, ratio: float, bits: int, deltas: Deltas, seed: int) -> Coded:
    return code_as_lora(deltas, rank, ratio, bits)

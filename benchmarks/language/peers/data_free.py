"""Peers without data, as in ``benchmarks.fidelity.peers``, at the sizes of a language model.

They leave embeddings at the base's, at no cost, where that is better, and code them as other matrices where it is not.
"""

from functools import partial

from benchmarks.fidelity.peers.dare import code_dropped
from benchmarks.fidelity.peers.dqrelo import code_signs_and_rank
from benchmarks.fidelity.peers.dts import code_density
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, leaving_embeddings
from benchmarks.fidelity.peers.svd import code_pooled_ranks
from benchmarks.fidelity.peers.ultradelta import code_sparse_values
from benchmarks.language.calibration import Calibration

DENSITIES = (0.004, 0.012, 0.03, 0.06, 0.1, 0.2, 0.4)
"""Of DTS; 0.1 is published for language."""
BUDGETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Of pooled ranks, as shares of the bytes in bfloat16."""
DROP_RATES = (0.997, 0.99, 0.97, 0.9, 0.8, 0.6)
SPARSITIES = (0.999, 0.995, 0.98, 0.95, 0.85, 0.7)
RESIDUAL_RANKS = (1, 3, 8, 16)


def dts(calibration: Calibration) -> list[Setting]:
    """Density of DTS."""
    return [leaving_embeddings(Setting("DTS", f"density {x}", partial(_dts, x))) for x in DENSITIES]


def svd(calibration: Calibration) -> list[Setting]:
    """Budget of a truncated SVD whose ranks are pooled over all matrices, embeddings among them."""
    return [Setting("SVD fp16 (ranks pooled)", f"{x:.2%}", partial(_svd, x)) for x in BUDGETS]


def dare(calibration: Calibration) -> list[Setting]:
    """Rate of dropping."""
    name = "DARE + 4 bits"
    return [leaving_embeddings(Setting(name, f"drop {x}", partial(_dare, x), random=True)) for x in DROP_RATES]


def ultradelta(calibration: Calibration) -> list[Setting]:
    """Target sparsity."""
    return [
        leaving_embeddings(Setting("UltraDelta", f"sparsity {x}", partial(_ultradelta, x), random=True))
        for x in SPARSITIES
    ]


def dqrelo(calibration: Calibration) -> list[Setting]:
    """Rank of the residual."""
    return [leaving_embeddings(Setting("D-QReLO-lite", f"rank {x}", partial(_dqrelo, x))) for x in RESIDUAL_RANKS]


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

"""BitDelta on a language model: as it starts, and with its scales distilled on calibration texts as published.

Source: "BitDelta: Your Fine-Tune May Only Be Worth One Bit", arXiv 2402.10193, FasterDecoding/BitDelta (`train.py`,
`diff.py`). The matrices of attention and MLP become signs times one scale each. Then all scales are trained: mean
squared error between the logits of the fine-tune and of the coded model, AdamW, a cosine, batches of four texts of 128
tokens. The authors train at a rate of 1e-4 for 100 steps (200 in their README) on scales of some 1e-3; the rate here is
in proportion to the mean of the scales, and chosen. Their code trains what it leaves uncoded, embeddings and norms, as
well; the paper names the scales alone, and so do the bytes here.

The authors store embeddings in full, which alone is 21 % of the bfloat16 bytes of this model. Here embeddings are
left at the base's, or coded alike.
"""

from functools import partial

import torch

from benchmarks.fidelity.peers.bitdelta import code_by_matrix, code_by_row, signs
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings
from benchmarks.language.calibration import Calibration
from benchmarks.language.peers.distillation import distil

STEPS = 100
RATE = 0.01
"""Peak learning rate by the mean of the scales."""


def settings(calibration: Calibration) -> list[Setting]:
    """Both kinds of scale, and distilled ones, with and without embeddings."""
    distilled = Setting("BitDelta (distilled)", "one scale a matrix", partial(_code, calibration), calibrated=True)
    points = (
        Setting("BitDelta", "one scale a matrix", lambda deltas, seed: by_matrix(deltas, code_by_matrix)),
        Setting("BitDelta (per row)", "one scale a row", lambda deltas, seed: by_matrix(deltas, code_by_row)),
        distilled,
    )
    return [setting for point in points for setting in (leaving_embeddings(point), point)]


def code_distilled(calibration: Calibration, deltas: Deltas, seed: int) -> Coded:
    """Code signs and a scale of every matrix, and train the scales."""
    coded = by_matrix(deltas, code_by_matrix)
    changed = {name: signs(delta).to(torch.int8) for name, delta in deltas.items() if delta.any()}
    start = {name: float(deltas[name].abs().mean()) for name in changed}
    rate = RATE * sum(start.values()) / len(start)
    trained, _ = distil(calibration, changed, start, rate, STEPS, seed)
    return Coded(coded.deltas | {name: trained[name] * sign for name, sign in changed.items()}, coded.size)


def _code(calibration: Calibration, deltas: Deltas, seed: int) -> Coded:
    return code_distilled(calibration, deltas, seed)

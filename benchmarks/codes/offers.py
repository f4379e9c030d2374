"""The codes that are compared: what a component may be stored in, beside the widths of the format above two bits."""

from collections.abc import Callable, Mapping

import torch

from benchmarks.codes.codes import ByteCode, Code, EntropyCode, FormatCode, FourGroups, LevelCode, TrellisCode
from benchmarks.codes.components import Offer
from dtscodec.encoding.presets.recipe import BEST
from dtscodec.quantize.widths import ALL_BITS, width_of

TODAY = "four groups"
"""What the preset `best` offers."""
SIGN, SIGN_DISTORTION = 0.7979, 0.3634
TERNARY, TERNARY_DISTORTION = 1.224, 0.1902
"""Outer levels, and squared errors, of the best quantizers of two and of three levels for a normal variable of unit
variance (J. Max, 1960)."""
TWO = width_of(2)


def _four_groups() -> Code:
    return FourGroups("four groups", 2, 1 - TWO.retained_energy**0.5)


def _sign() -> Code:
    return LevelCode("sign", 1, SIGN_DISTORTION, levels=torch.tensor([-SIGN, SIGN]))


def _ternary() -> Code:
    # Five elements in a byte.
    return LevelCode("three levels", 1.6, TERNARY_DISTORTION, levels=torch.tensor([-TERNARY, 0.0, TERNARY]))


OFFERS: Mapping[str, tuple[Callable[[], list[Code]], float]] = {
    TODAY: (lambda: [_four_groups()], BEST.precision_weight),
    "sign, 1 bit": (lambda: [_sign()], BEST.precision_weight),
    "three levels, 1.6 bits": (lambda: [_ternary()], BEST.precision_weight),
    "vectors of 4, 2 bits": (lambda: [ByteCode.of(4)], BEST.precision_weight),
    "entropy-coded, 1.5 bits": (lambda: [EntropyCode.of(1.65, 0.245)], BEST.precision_weight),
    "entropy-coded, 2 bits": (lambda: [EntropyCode.of(1.2, 0.123)], BEST.precision_weight),
    "trellis 256, 1 bit": (lambda: [TrellisCode.of(8, 1)], BEST.precision_weight),
    "trellis 256, 1.5 bits": (lambda: [TrellisCode.of(8, 3, 2)], BEST.precision_weight),
    "trellis 256, 2 bits": (lambda: [TrellisCode.of(8, 2)], BEST.precision_weight),
    "trellis 256, 1 and 2 bits": (lambda: [TrellisCode.of(8, 1), TrellisCode.of(8, 2)], 0.5),
    "trellis 1,024, 2 bits": (lambda: [TrellisCode.of(10, 2)], BEST.precision_weight),
}
"""By name: the narrow codes, and the weight of the energy that wider ones save."""


def offer_of(name: str) -> Offer:
    """Return an offer by its name, with the wider widths of the format."""
    narrow, weight = OFFERS[name]
    return Offer(name, [*narrow(), *(FormatCode.of(bits) for bits in ALL_BITS if bits > TWO.bits)], weight)

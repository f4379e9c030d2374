"""Our own packs with a residual layer."""

from pathlib import Path

import dtscodec
from benchmarks.exact.pair import Pair
from benchmarks.exact.scheme import LossyPart
from dtscodec import BaseOnly, EncodeConfig, Size

PACK = "pack.dts.safetensors"


class ExactPack(LossyPart):
    """A pack with a residual layer.

    Parameters
    ----------
    name, setting : str
        As of `Scheme`.
    config : dtscodec.EncodeConfig
        Settings of the codes, with `exact`.
    """

    def __init__(self, name: str, setting: str, config: EncodeConfig) -> None:
        self.name, self.setting, self._config = name, setting, config

    def encode(self, pair: Pair, prepared: Path, packed: Path) -> None:
        """See `Scheme`."""
        dtscodec.encode(pair.base, pair.fine, packed / PACK, self._config)

    def decode(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """See `Scheme`."""
        with dtscodec.decode(packed / PACK, pair.base, whole=True) as state:
            state.save(out)

    def decode_lossy(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """See `LossyPart`."""
        with dtscodec.decode(packed / PACK, pair.base, whole=True, lossy=True) as state:
            state.save(out)


NO_CODES = ExactPack("dtscodec, no codes", "preset BaseOnly()", EncodeConfig(preset=BaseOnly(), exact=True))
CODES = {
    size: ExactPack(
        f"dtscodec, {size}", f"codes of {size} of the checkpoint", EncodeConfig(Size.parse(size), exact=True)
    )
    for size in ("0.5%", "10%")
}
"""By the size of their codes; a plan has one of them."""
SEARCHED = ExactPack(
    "dtscodec", "as called without settings: the smallest of some sizes of codes", EncodeConfig(exact=True)
)
OURS = (NO_CODES, *CODES.values(), SEARCHED)

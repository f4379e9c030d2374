"""Points of one curve from small lossy packs to exact ones: bytes against the error of the delta."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dtscodec
from benchmarks.exact.pair import Pair


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A lossy pack.

    Parameters
    ----------
    pair, size : str
        What was measured, and the size that was asked for.
    raw, bytes : int
        Bytes of the fine-tune and of the pack.
    error : float
        Relative Frobenius error of the delta.
    seconds : float
        Of the encode.
    """

    pair: str
    size: str
    raw: int
    bytes: int
    error: float
    seconds: float

    @property
    def share(self) -> float:
        """Bytes by those of the fine-tune."""
        return self.bytes / self.raw


def curve_points(pair: Pair, sizes: Sequence[str], scratch: Path) -> Iterator[CurvePoint]:
    """Yield the points of a pair at some sizes, such as ``"0.5%"``."""
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            config = dtscodec.EncodeConfig(dtscodec.Size.parse(size))
            report = dtscodec.encode(pair.base, pair.fine, Path(folder, "pack.safetensors"), config)
        yield CurvePoint(pair.name, size, pair.size, report.pack_bytes, report.relative_error, report.seconds)

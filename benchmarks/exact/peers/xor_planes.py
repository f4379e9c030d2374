"""Exclusive or, byte planes, zstd: a few lines of numpy, and the measure of speed.

A file has the length of a header, the header as JSON, and frames of zstd: the header of the safetensors file, then for
each tensor a frame for each byte of its elements.
"""

import json
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.exact.pair import Pair
from benchmarks.exact.safetensors_layout import header_of, map_body, spans
from benchmarks.exact.scheme import Scheme

FILE = "planes"
LENGTH_BYTES = 8


def encode_planes(base: Path, fine: Path, out: Path, level: int) -> None:
    """Write the difference of two files of one layout; `decode_planes` is the inverse.

    Parameters
    ----------
    base, fine : Path
        Safetensors files whose tensors lie at the same places.
    out : Path
        The new file.
    level : int
        Level of zstd.
    """
    coder = zstandard.ZstdCompressor(level=level)
    header, other, body = header_of(fine), map_body(base), map_body(fine)
    frames = [coder.compress(header)]
    for span in spans(header):
        difference = body[span.start : span.stop] ^ other[span.start : span.stop]
        frames += [coder.compress(np.ascontiguousarray(difference[i :: span.width]).data) for i in range(span.width)]
    lengths = json.dumps([len(frame) for frame in frames]).encode()
    with out.open("wb") as file:
        file.write(len(lengths).to_bytes(LENGTH_BYTES, "little") + lengths)
        file.writelines(frames)


def decode_planes(base: Path, packed: Path, out: Path) -> None:
    """Write the fine-tune; the inverse of `encode_planes`."""
    coder, other = zstandard.ZstdDecompressor(), map_body(base)
    with packed.open("rb") as source, out.open("wb") as file:
        lengths = iter(json.loads(source.read(int.from_bytes(source.read(LENGTH_BYTES), "little"))))
        header = coder.decompress(source.read(next(lengths)))
        file.write(header)
        for span in spans(header):
            values: NDArray[np.uint8] = np.empty(span.stop - span.start, np.uint8)
            for i in range(span.width):
                values[i :: span.width] = np.frombuffer(coder.decompress(source.read(next(lengths))), np.uint8)
            values ^= other[span.start : span.stop]
            file.write(values.data)


class XorPlanes(Scheme):
    """The scheme at a level of zstd."""

    def __init__(self, level: int) -> None:
        self.name, self.setting = f"xor + planes + zstd -{level}", f"byte planes of each tensor, zstd level {level}"
        self._level = level

    def encode(self, pair: Pair, prepared: Path, packed: Path) -> None:
        """See `Scheme`."""
        encode_planes(pair.laid_out, pair.fine, packed / FILE, self._level)

    def decode(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """See `Scheme`."""
        decode_planes(pair.laid_out, packed / FILE, out)

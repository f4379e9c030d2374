"""The content of a chunk: parts one after another, in one zstd frame (spec section 15.5)."""

import numpy as np

from dtscodec.format.primitives.zstd_frames import decompress
from dtscodec.format.residual.integers import Octets


class Content:
    """The content of a chunk, from which parts are taken in order.

    Parameters
    ----------
    data : bytes
        The chunk: one zstd frame.
    limit : int
        Largest content, in bytes.

    Raises
    ------
    ValueError
        The frame is damaged, longer than its content may be, or followed by other bytes.
    """

    def __init__(self, data: bytes, limit: int) -> None:
        try:
            content, used = decompress(data, limit)
        except OverflowError as error:
            raise ValueError(str(error)) from error
        if used != len(data):
            raise ValueError(f"expected a frame of {len(data)} bytes, got {used}")
        self._data, self._at = np.frombuffer(content, np.uint8), 0

    def take(self, count: int) -> Octets:
        """Return the next bytes: uint8 [count].

        Raises
        ------
        ValueError
            There are fewer.
        """
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise ValueError(f"expected {self._at + count} bytes in a chunk, got {len(self._data)}")
        self._at += count
        return part

    def take_integer(self, count: int, signed: bool = False) -> int:
        """Return the next bytes as a little-endian integer; ValueError if there are fewer."""
        return int.from_bytes(self.take(count).tobytes(), "little", signed=signed)

    def end(self) -> None:
        """Raise ValueError unless everything was taken."""
        if self._at != len(self._data):
            raise ValueError(f"expected {self._at} bytes in a chunk, got {len(self._data)}")

"""The bytes of a pack in remote storage, by range."""

from pathlib import Path

from dtscodec.files.byte_source import ByteSource, FileSource
from dtscodec.storage.errors import pack_errors
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import is_remote, storage

HEAD_BYTES = 2**18
"""What is read of a file at first, in one request: of most packs header, digests and index."""


class RemoteSource:
    """A `ByteSource` over a file in remote storage.

    Raises
    ------
    PackNotFoundError
        It cannot be read.
    """

    far = True

    def __init__(self, place: Path) -> None:
        self._place = place
        files, name = storage(place)
        with pack_errors(place):
            self.size = int(files.info(name)["size"])
        self._head = self._fetch(0, min(HEAD_BYTES, self.size))

    def read(self, offset: int, length: int) -> bytes:
        """Read a range."""
        end = min(offset + length, self.size)
        if end <= len(self._head):
            return self._head[offset:end]
        return self._fetch(offset, end)

    def close(self) -> None:
        """Do nothing: no connection is held."""

    def _fetch(self, begin: int, end: int) -> bytes:
        if begin >= end:
            return b""
        files, name = storage(self._place)
        with pack_errors(self._place):
            data: bytes = files.cat_file(name, start=begin, end=end)
        return data


def pack_source(place: Path, whole: bool) -> ByteSource:
    """The bytes of a pack, wherever it lies.

    Parameters
    ----------
    place : Path
    whole : bool
        Whether all of it will be read: files of the Hub then go through the client's cache.

    Raises
    ------
    PackNotFoundError
        There is none, or it cannot be read.
    OSError
        The same of a local file.
    """
    if isinstance(place, HubPath):
        with pack_errors(place):
            cached = place.local() if whole else place.cached()
        if cached is not None:
            return FileSource(cached)
    return RemoteSource(place) if is_remote(place) else FileSource(place)

"""Files of a commit on the Hub, read by range."""

import io
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from dtscodec.storage.hub_client import ask, hub_api
from dtscodec.storage.hub_tree import whole_tree

_STREAM_BYTES = 2**16


class HubFiles:
    """Files of a commit, with the part of fsspec's interface that `dtscodec.storage.remote_file` uses.

    Parameters
    ----------
    repo : str
        `user/name`.
    commit : str
        40 hex digits.
    """

    def __init__(self, repo: str, commit: str) -> None:
        self._repo, self._commit = repo, commit

    def info(self, name: str) -> dict[str, Any]:
        """Return a file's size and, as ETag, the commit; FileNotFoundError if there is no such file."""
        path = PurePosixPath(name)
        above = "" if path.parent == PurePosixPath() else str(path.parent)
        # One listing answers for all files of a directory, and is cached.
        size = whole_tree(self._repo, self._commit, above).get(path.name)
        if size is None:
            raise FileNotFoundError(2, "No such file")
        return {"size": size, "ETag": self._commit}

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; the client retries where that helps."""
        from huggingface_hub import constants, hf_hub_url

        url = hf_hub_url(self._repo, name, revision=self._commit, endpoint=hub_api().endpoint)
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        response = ask(url, headers=wanted, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        content: bytes = response.content
        # A server that ignores the range sends the whole file.
        return content if response.status_code == 206 else content[start:end]

    def open(self, name: str, mode: str = "rb", cache_type: str = "none") -> BinaryIO:
        """Open a file as a buffered stream."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self, name, self.info(name)["size"]), _STREAM_BYTES))


class _Stream(io.RawIOBase):
    """A raw stream of which each read is one request."""

    def __init__(self, files: HubFiles, name: str, size: int) -> None:
        self._files, self._name, self._size, self._at = files, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        data = self._files.cat_file(self._name, self._at, end) if self._at < end else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

"""Files of the Hugging Face Hub as places: `hf://user/repo[@revision][/path]`, by range or through the client's cache.

A revision is resolved once, to a commit; what lies at a commit never changes.
"""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from dtscodec.errors import BackendError

SCHEME = "hf://"
NAME = "dtscodec"
"""How we tell the Hub who we are."""

WAIT_SECONDS = 30.0
"""How long we wait for an answer of the Hub; the client itself would for ever."""

is_command = False
"""Whether this process is a command of ours, which never waits for ever."""

_STREAM_BYTES = 2**16


@dataclass(frozen=True, slots=True, order=True)
class HubPlace:
    """A file or directory of a repository at a commit, with the methods of `Path` that this package uses.

    Parameters
    ----------
    repo : str
        `user/name`.
    commit : str
        40 hex digits.
    path : str
        Within the repository; empty for all of it.
    """

    repo: str
    commit: str
    path: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}@{self.commit}" + (f"/{self.path}" if self.path else "")

    def __truediv__(self, name: "str | PurePosixPath") -> "HubPlace":
        return HubPlace(self.repo, self.commit, f"{self.path}/{name}" if self.path else str(name))

    @property
    def name(self) -> str:
        """The last part of its path; of a repository the name."""
        return PurePosixPath(self.path or self.repo).name

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> "HubPlace":
        """The directory that it is in; of a repository itself."""
        parent = PurePosixPath(self.path).parent.as_posix()
        return HubPlace(self.repo, self.commit, "" if parent == "." else parent)

    @property
    def top(self) -> "HubPlace":
        """The repository at this commit."""
        return HubPlace(self.repo, self.commit)

    @property
    def fs(self) -> "_Files":
        """What fsspec's file systems do, as far as it is used."""
        return _Files(self.repo, self.commit)

    @property
    def storage_options(self) -> dict[str, Any]:
        """None: the client has its own settings."""
        return {}

    def relative_to(self, other: "HubPlace") -> PurePosixPath:
        """Its path below a directory of the same commit; ValueError if it lies elsewhere."""
        if (self.repo, self.commit) != (other.repo, other.commit):
            raise ValueError(f"expected a place in {other}, got {self}")
        return PurePosixPath(self.path).relative_to(other.path)

    def exists(self) -> bool:
        """Whether there is such a file or directory."""
        return self.is_dir() or self.is_file()

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return self.cached() is not None or _size(self) is not None

    def is_dir(self) -> bool:
        """Whether there is such a directory."""
        return not self.path or (self.cached() is None and _is_directory(self))

    def iterdir(self) -> Iterator["HubPlace"]:
        """Its files and directories."""
        return iter(self / name for name in _names(self))

    def glob(self, pattern: str) -> Iterator["HubPlace"]:
        """Its files and directories of such names."""
        return (place for place in self.iterdir() if fnmatchcase(place.name, pattern))

    def stat(self) -> SimpleNamespace:
        """Its size."""
        local = self.cached()
        return SimpleNamespace(st_size=local.stat().st_size if local else self.fs.info(self.path)["size"])

    def read_bytes(self) -> bytes:
        """The whole file, through the cache."""
        return self.local().read_bytes()

    def cached(self) -> Path | None:
        """The file in the client's cache, if it is there."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo, self.path, revision=self.commit) if self.path else None
        return Path(found) if isinstance(found, str) else None

    def local(self) -> Path:
        """The file in the client's cache, fetched if it is not there; a fetch that was cut off goes on."""
        return self.cached() or Path(hub_api().hf_hub_download(self.repo, self.path, revision=self.commit))


def hub_place(name: str) -> HubPlace:
    """The place that a name such as `hf://user/repo@branch/file` stands for.

    Raises
    ------
    BackendError
        It is not the name of a model repository.
    Exception
        What the client raises; see `dtscodec.remote.failures`.
    """
    from huggingface_hub.errors import HfUriError
    from huggingface_hub.utils import parse_hf_uri  # type: ignore[attr-defined]

    try:
        uri = parse_hf_uri(name)
        if uri.type != "model":
            raise ValueError(f"expected a model repository, got a {uri.type}")
    except (HfUriError, ValueError) as error:
        raise BackendError(f"{name}: expected hf://user/repo[@revision][/path], got '{error}'") from error
    return HubPlace(uri.id, _commit(uri.id, uri.revision), uri.path_in_repo.strip("/"))


class _Files:
    """The part of fsspec's interface that `dtscodec.checkpoints.remote_file` uses, for the files of a commit."""

    def __init__(self, repo: str, commit: str) -> None:
        self._repo, self._commit = repo, commit

    def info(self, name: str) -> dict[str, Any]:
        """Size, and a mark of the content."""
        size = _size(HubPlace(self._repo, self._commit, name))
        if size is None:
            raise FileNotFoundError(2, "No such file")
        return {"size": size, "ETag": self._commit}

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """Bytes of a range; the client tries again where that helps."""
        from huggingface_hub import constants, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers, http_backoff  # type: ignore[attr-defined]

        api = hub_api()
        headers = build_hf_headers(token=api.token, library_name=NAME, library_version=api.library_version)
        url = hf_hub_url(self._repo, name, revision=self._commit, endpoint=api.endpoint)
        wanted = {**headers, "Range": f"bytes={start}-{end - 1}"}
        response = http_backoff("GET", url, headers=wanted, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        hf_raise_for_status(response)
        content: bytes = response.content
        return content if response.status_code == 206 else content[start:end]

    def open(self, name: str, mode: str = "rb", cache_type: str = "none") -> BinaryIO:
        """The file as a stream."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self, name, self.info(name)["size"]), _STREAM_BYTES))


class _Stream(io.RawIOBase):
    def __init__(self, files: _Files, name: str, size: int) -> None:
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


def hub_api() -> Any:
    """The client, which says who we are."""
    from huggingface_hub import HfApi, get_session

    from dtscodec import __version__

    if is_command:
        # One client serves the whole process; that of a program is not ours to change. Its log tells of each try, with
        # addresses that may be signed; what matters of it is in our own line.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        get_session().timeout = WAIT_SECONDS
    return HfApi(library_name=NAME, library_version=__version__)


def forget() -> None:
    """Forget what the Hub said, so that branches are looked up again."""
    _commit.cache_clear()
    _names.cache_clear()
    _known.clear()


@lru_cache
def _commit(repo: str, revision: str | None) -> str:
    """The commit that a branch, tag or commit names, asked once in the life of a process; offline as last seen."""
    api = hub_api()
    cached_only = _is_offline() or not _answers(api, repo, revision)
    return str(api.resolve_revision(repo, revision=revision, local_files_only=cached_only).resolved)


def _answers(api: Any, repo: str, revision: str | None) -> bool:
    """Whether the Hub answers at all. `resolve_revision` itself would wait for ever."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    try:
        api.repo_info(repo, revision=revision, timeout=WAIT_SECONDS)
    except HfHubHTTPError:
        raise
    except (HTTPError, ConnectionError):
        return False
    return True


_known: dict[HubPlace, Any] = {}
"""What the Hub said of paths; at a commit it stays so."""


def _entry(place: HubPlace) -> Any:
    """What the Hub says of a path: a file, a directory, or None."""
    if place not in _known:
        found = hub_api().get_paths_info(place.repo, place.path, revision=place.commit)
        _known[place] = found[0] if found else None
    return _known[place]


def _size(place: HubPlace) -> int | None:
    if not place.path or (_is_offline() and place.cached() is None):
        return None
    size: int | None = getattr(_entry(place), "size", None)
    return size


def _is_directory(place: HubPlace) -> bool:
    if _is_offline():
        return (_snapshot(place) / place.path).is_dir()
    entry = _entry(place)
    return entry is not None and not hasattr(entry, "size")


@lru_cache(64)
def _names(directory: HubPlace) -> tuple[str, ...]:
    """Names of what lies in a directory; offline of what of it is in the cache."""
    if _is_offline():
        folder = _snapshot(directory) / directory.path
        return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()
    tree = hub_api().list_repo_tree(directory.repo, directory.path or None, revision=directory.commit)
    found = {HubPlace(directory.repo, directory.commit, entry.path): entry for entry in tree}
    _known.update(found)
    return tuple(sorted(place.name for place in found))


def _snapshot(place: HubPlace) -> Path:
    """Where the client's cache keeps a commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=place.repo, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / place.commit


def _is_offline() -> bool:
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())
